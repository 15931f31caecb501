package e2e_test

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/rollout"
)

// fault is one reason not to come up; with no cause it is a control, which must
// come up.
type fault struct {
	name  string
	kinds []string // default all
	// broken makes a healthy workload have the fault.
	broken func(m *matrix, w *workload)
	// around prepares the namespace, after the healthy release of an upgrade.
	around func(ctx context.Context, m *matrix, namespace string) error
	// during happens from the moment on that the workload is there.
	during func(ctx context.Context, m *matrix, namespace string, w *workload) error
	// before is what an upgrade finds instead of a healthy workload.
	before func(m *matrix, w *workload)
	// after checks, when the verdict is there, that what was to happen has happened.
	after func(ctx context.Context, m *matrix, namespace string, w *workload) error

	cause   rollout.Cause
	pending rollout.Cause // at the timeout
	// field is what is responsible, from the pod's spec on unless it starts with /.
	field   string
	timeout time.Duration
	only    mode // the zero value is both
}

// Everything that has pods which a controller makes.
var (
	controlled = []string{kindDeployment, kindStatefulSet, kindDaemonSet, kindJob}
	restarting = []string{kindDeployment, kindStatefulSet, kindDaemonSet}
	everything = []string{kindDeployment, kindStatefulSet, kindDaemonSet, kindJob, kindPod}
	// derived have pods as a Deployment and a Job make them, so that a fault in each
	// different place tells enough.
	derived = []string{kindReplicaSet, kindReplicationController, kindCronJob}
)

const app = "containers[name=app]"

// imageFaults lie in the image.
func imageFaults() []fault {
	const none = "@sha256:00000000000000000000000000000000000000000000000000000000000000aa"
	image := func(ref func(m *matrix, w *workload) string) func(m *matrix, w *workload) {
		return func(m *matrix, w *workload) { w.app().Image = ref(m, w) }
	}
	lie := func(name string) func(m *matrix, w *workload) {
		return image(func(m *matrix, w *workload) string { return m.lying(name, 0, "fault") })
	}
	return []fault{
		{name: "image not found", kinds: slices.Concat(everything, derived), cause: rollout.ImageNotFound, field: app + ".image",
			broken: image(func(m *matrix, _ *workload) string { return m.world.box.Registry + "/lab/gone" + none })},
		{name: "registry wants credentials", cause: rollout.ImageUnauthorized, field: "imagePullSecrets", broken: lie("unauthorized")},
		{name: "registry limits the rate", cause: rollout.ImageRateLimited, field: app + ".image", broken: lie("limited")},
		{name: "registry answers 503", cause: rollout.ImageUnreachable, field: app + ".image", broken: lie("down")},
		{name: "no such registry", cause: rollout.ImageUnreachable, field: app + ".image",
			broken: image(func(*matrix, *workload) string { return "registry.invalid/shop:1" })},
		{name: "image for another platform", cause: rollout.ImageWrongPlatform, field: app + ".image",
			broken: image(func(m *matrix, _ *workload) string { return m.foreign })},
		{name: "bad image name", cause: rollout.ImageNameInvalid, field: app + ".image",
			broken: image(func(*matrix, *workload) string { return "Shop/UPPER:1" })},
		{name: "image never pulled", cause: rollout.ImageNeverPulled, field: app + ".imagePullPolicy", broken: func(m *matrix, w *workload) {
			w.app().Image, w.app().ImagePullPolicy = m.world.box.Registry+"/lab/never:1", corev1.PullNever
		}},
	}
}

// programFaults lie in what runs in the container.
func programFaults() []fault {
	does := func(script string) func(*matrix, *workload) {
		return func(_ *matrix, w *workload) { w.app().Command = shell(script) }
	}
	return []fault{
		{name: "crash with an exit code", kinds: append(restarting, kindPod, kindReplicaSet, kindReplicationController), cause: rollout.Crash, field: app, broken: does("echo no database >&2; exit 3")},
		{name: "crash by a signal", kinds: restarting, cause: rollout.Crash, field: app, broken: does(`sh -c 'kill -SEGV $$'; exit $?`)},
		{name: "out of memory", kinds: restarting, cause: rollout.OutOfMemory, field: app + ".resources.limits.memory", broken: func(_ *matrix, w *workload) {
			w.app().Command = []string{"tail", "/dev/zero"}
			w.app().Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("24Mi")}
		}},
		{name: "init container crashes", kinds: restarting, cause: rollout.InitCrash, field: "initContainers[name=migrate]", broken: func(_ *matrix, w *workload) {
			w.pod.InitContainers = []corev1.Container{{Name: "migrate", Image: w.app().Image, Command: shell("exit 4")}}
		}},
		{name: "sidecar crashes", kinds: restarting, cause: rollout.Crash, field: "initContainers[name=proxy]", broken: func(_ *matrix, w *workload) {
			w.pod.InitContainers = []corev1.Container{{Name: "proxy", Image: w.app().Image, Command: shell("exit 5"), RestartPolicy: new(corev1.ContainerRestartPolicyAlways)}}
		}},
		{name: "no such command", cause: rollout.CommandNotRunnable, field: app + ".command", broken: func(_ *matrix, w *workload) {
			w.app().Command = []string{"/no/such/program"}
		}},
		{name: "runs as root", cause: rollout.RunsAsRoot, field: "securityContext.runAsNonRoot", broken: func(_ *matrix, w *workload) {
			w.pod.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: new(true)}
		}},
		{name: "liveness probe kills", kinds: restarting, cause: rollout.ProbeKilled, field: app + ".livenessProbe.httpGet.port", broken: func(_ *matrix, w *workload) {
			w.app().LivenessProbe = httpProbe("/healthz", 8080, 1)
		}},
		{name: "startup probe kills", kinds: restarting, cause: rollout.StartupKilled, field: app + ".startupProbe.exec.command", broken: func(_ *matrix, w *workload) {
			w.app().StartupProbe = execProbe(2, "test", "-f", "/never")
		}},
		{name: "never ready", kinds: restarting, cause: rollout.TimedOut, pending: rollout.NotReady, field: app + ".readinessProbe.exec.command", timeout: 20 * time.Second,
			broken: func(_ *matrix, w *workload) { w.app().ReadinessProbe = execProbe(1, "test", "-f", "/never") }},
		{name: "postStart hook fails", kinds: restarting, cause: rollout.HookFailed, field: app + ".lifecycle.postStart", broken: func(_ *matrix, w *workload) {
			w.app().Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"false"}}}}
		}},
	}
}

// configFaults lie in what the pod refers to.
func configFaults() []fault {
	local := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	return []fault{
		{name: "no such ConfigMap", kinds: slices.Concat(everything, derived), cause: rollout.ConfigMissing, field: app + ".envFrom[0].configMapRef", broken: func(_ *matrix, w *workload) {
			w.app().EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local("settings")}}}
		}},
		{name: "no such Secret", cause: rollout.ConfigMissing, field: app + ".env[name=PASSWORD].valueFrom.secretKeyRef.name", broken: func(_ *matrix, w *workload) {
			w.app().Env = []corev1.EnvVar{{Name: "PASSWORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: local("db"), Key: "password"}}}}
		}},
		{name: "no such key", cause: rollout.ConfigMissing, field: app + ".env[name=URL].valueFrom.configMapKeyRef.key", around: settings, broken: func(_ *matrix, w *workload) {
			w.app().Env = []corev1.EnvVar{{Name: "URL", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: local("settings"), Key: "url"}}}}
		}},
		{name: "no such Secret for a volume", cause: rollout.ConfigMissing, field: "volumes[name=tls].secret.secretName", broken: func(_ *matrix, w *workload) {
			w.pod.Volumes = []corev1.Volume{{Name: "tls", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "tls"}}}}
			w.app().VolumeMounts = []corev1.VolumeMount{{Name: "tls", MountPath: "/tls"}}
		}},
		{name: "unbound claim", cause: rollout.VolumeUnbound, field: "volumes[name=data].persistentVolumeClaim.claimName", around: unboundClaim, broken: claims("data")},
		{name: "no such claim", cause: rollout.VolumeMissing, field: "volumes[name=data].persistentVolumeClaim.claimName", broken: claims("nowhere")},
	}
}

func settings(ctx context.Context, m *matrix, namespace string) error {
	_, err := m.world.kube.CoreV1().ConfigMaps(namespace).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "settings"}, Data: map[string]string{"colour": "blue"}}, metav1.CreateOptions{})
	return err
}

// noSuchClass is of claims that nothing provisions volumes for.
const noSuchClass = "no-such-class"

func unboundClaim(ctx context.Context, m *matrix, namespace string) error {
	_, err := m.world.kube.CoreV1().PersistentVolumeClaims(namespace).Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: new(noSuchClass), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}, metav1.CreateOptions{})
	return err
}

func claims(name string) func(*matrix, *workload) {
	return func(_ *matrix, w *workload) {
		w.pod.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}}}
		w.app().VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	}
}

// placeFaults keep the scheduler, or the node, from taking the pod.
func placeFaults() []fault {
	placed := append(restarting[:2:2], kindJob, kindPod) // a DaemonSet makes no pods for nodes that it doesn't fit
	return []fault{
		{name: "not enough cpu", kinds: everything, cause: rollout.Unschedulable, field: app + ".resources.requests.cpu", broken: func(_ *matrix, w *workload) {
			w.app().Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1000")}
		}},
		{name: "no node with the label", kinds: placed, cause: rollout.Unschedulable, field: "nodeSelector", broken: func(_ *matrix, w *workload) {
			w.pod.NodeSelector = map[string]string{"disk": "no-such"}
		}},
		{name: "taint", kinds: placed, cause: rollout.Unschedulable, field: "affinity.nodeAffinity", broken: func(_ *matrix, w *workload) {
			w.pod.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{taintedNode}}}}},
			}}}
		}},
		{name: "pod affinity", kinds: placed, cause: rollout.Unschedulable, field: "affinity.podAffinity", broken: func(_ *matrix, w *workload) {
			w.pod.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
				LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "nobody"}}, TopologyKey: "kubernetes.io/hostname",
			}}}}
		}},
		{name: "node refuses", kinds: []string{kindPod}, cause: rollout.NodeRefused, field: app + ".resources.requests.cpu", broken: func(m *matrix, w *workload) {
			w.pod.NodeName = m.node
			w.app().Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1000")}
		}},
		{name: "fills its scratch space", kinds: []string{kindPod, kindDeployment}, cause: rollout.EphemeralStorage, field: "volumes[name=memory].emptyDir.sizeLimit", timeout: 150 * time.Second,
			broken: func(_ *matrix, w *workload) {
				w.remember()
				w.pod.Volumes[0].EmptyDir.SizeLimit = new(resource.MustParse("1Mi"))
				w.app().Command = shell("dd if=/dev/zero of=/memory/big bs=1M count=8; " + serve)
				w.app().ReadinessProbe = execProbe(1, "test", "-f", "/never")
				// The kubelet sends no more than 25 events about a pod in a row; the
				// eviction, which may take a minute, must be among them.
				w.app().ReadinessProbe.PeriodSeconds = 5
			}},
	}
}

// ownFaults are the workload's own.
func ownFaults() []fault {
	return []fault{
		{name: "progress deadline", kinds: []string{kindDeployment}, cause: rollout.DeadlineExceeded, field: "/spec.progressDeadlineSeconds", broken: func(_ *matrix, w *workload) {
			w.progressDeadline = new(int32(8))
			w.app().ReadinessProbe = execProbe(1, "test", "-f", "/never")
		}},
		{name: "job fails", kinds: []string{kindJob}, cause: rollout.JobFailed, field: "/spec.backoffLimit", broken: func(_ *matrix, w *workload) {
			w.backoffLimit = new(int32(0))
			w.app().Command = shell("echo no database >&2; exit 3")
		}},
		{name: "run of a CronJob fails", kinds: []string{kindCronJob}, cause: rollout.JobFailed, field: "/spec.jobTemplate.spec.backoffLimit", broken: func(_ *matrix, w *workload) {
			w.backoffLimit = new(int32(0))
			w.app().Command = shell("echo no database >&2; exit 3")
		}},
		{name: "job takes too long", kinds: []string{kindJob}, cause: rollout.DeadlineExceeded, field: "/spec.activeDeadlineSeconds", broken: func(_ *matrix, w *workload) {
			w.activeDeadline = new(int64(4))
			w.app().Command = shell(serve)
		}},
	}
}
