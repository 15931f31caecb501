package smoke

import (
	"cmp"
	"maps"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// jobKept is how long the cluster keeps a job that has ended, for a process that
// lives to read it.
const jobKept = int32(600)

// job returns the job for a release.
func (j *jobTest) job(rel stages.Release) (*batchv1.Job, error) {
	template, err := j.template(rel)
	if err != nil {
		return nil, err
	}
	meta := identity(rel, cmp.Or(j.Namespace, rel.Namespace), j.Labels, j.Timeout)
	labels := maps.Clone(template.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, meta.Labels)
	template.Labels = labels
	restrict(&template.Spec, j.User, j.Resources)
	seconds, kept, one := wholeSeconds(j.Timeout), jobKept, int32(1)
	grace := int64(1)
	orDefault(&template.Spec.TerminationGracePeriodSeconds, &grace)
	none, attempts := int32(0), int32(j.expect.Attempts)
	job := &batchv1.Job{ObjectMeta: meta, Spec: batchv1.JobSpec{
		ActiveDeadlineSeconds: &seconds, TTLSecondsAfterFinished: &kept, Parallelism: &one, Completions: &attempts, BackoffLimit: &none, Template: *template,
	}}
	if attempts > 1 {
		// Each index is one run. The job goes on after one that failed, until too many have.
		mode, tolerated := batchv1.IndexedCompletion, attempts-int32(j.expect.Successes)
		job.Spec.CompletionMode, job.Spec.BackoffLimit = &mode, nil
		job.Spec.BackoffLimitPerIndex, job.Spec.MaxFailedIndexes = &none, &tolerated
	}
	return job, nil
}

// template returns the job's pod, before it is restricted.
func (j *jobTest) template(rel stages.Release) (*corev1.PodTemplateSpec, error) {
	if j.Template != nil {
		return j.Template.DeepCopy(), nil
	}
	command, err := fillAll(j.command, rel)
	if err != nil {
		return nil, err
	}
	args, err := fillAll(j.args, rel)
	if err != nil {
		return nil, err
	}
	img := j.Image
	if img.IsZero() {
		img = rel.Image
	}
	return &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{}, Spec: corev1.PodSpec{
		ServiceAccountName: j.ServiceAccount, ImagePullSecrets: pullSecrets(j.ImagePullSecrets),
		Containers: []corev1.Container{{Name: container, Image: img.String(), Command: command, Args: args, Env: j.Env}},
	}}, nil
}

func fillAll(patterns []pattern, rel stages.Release) ([]string, error) {
	var out []string
	for _, p := range patterns {
		text, err := p.fill(rel)
		if err != nil {
			return nil, err
		}
		out = append(out, text)
	}
	return out, nil
}
