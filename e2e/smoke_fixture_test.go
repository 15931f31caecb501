package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/rollout/smoke"
	"github.com/fairlead-dev/fairlead/stages"
)

// answerer builds the program that smoke tests are tried on, and pushes it as an
// image.
func (w *world) answerer(t *testing.T) stages.Image {
	t.Helper()
	dir := t.TempDir()
	compile := exec.CommandContext(labtest.Context(t), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "answerer"), "./testdata/answerer")
	compile.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	output, err := compile.CombinedOutput()
	require.NoError(t, err, "%s", output)
	output, err = exec.CommandContext(labtest.Context(t), "tar", "--owner=0", "--group=0", "--mtime=@0", "-C", dir, "-cf", filepath.Join(dir, "layer.tar"), "answerer").CombinedOutput()
	require.NoError(t, err, "%s", output)
	layer, err := tarball.LayerFromFile(filepath.Join(dir, "layer.tar"))
	require.NoError(t, err)
	base := pull(t, w.box.Base.Base)
	config, err := base.ConfigFile()
	require.NoError(t, err)
	run := *config.Config.DeepCopy()
	run.Entrypoint, run.Cmd, run.User = []string{"/answerer"}, nil, "65532"
	img, err := mutate.AppendLayers(base, layer)
	require.NoError(t, err)
	img, err = mutate.Config(img, run)
	require.NoError(t, err)
	ref, err := name.ParseReference(w.box.Registry+"/answerer:e2e", name.Insecure)
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref, img, remote.WithContext(labtest.Context(t))))
	digest, err := img.Digest()
	require.NoError(t, err)
	pinned, err := stages.ParseImage(ref.Context().Name() + "@" + digest.String())
	require.NoError(t, err)
	return pinned
}

// restrict has a namespace enforce the restricted Pod Security level, a limit
// range and a quota that wants requests and limits.
func (w *world) restrict(t *testing.T, namespace string) {
	t.Helper()
	ctx := labtest.Context(t)
	ns, err := w.kube.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	require.NoError(t, err)
	ns.Labels["pod-security.kubernetes.io/enforce"] = "restricted"
	_, err = w.kube.CoreV1().Namespaces().Update(ctx, ns, metav1.UpdateOptions{})
	require.NoError(t, err)
	_, err = w.kube.CoreV1().LimitRanges(namespace).Create(ctx, &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Name: "limits"},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type: corev1.LimitTypeContainer, Max: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")}, Min: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("16Mi")},
		}}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = w.kube.CoreV1().ResourceQuotas(namespace).Create(ctx, &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "quota"},
		Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{
			"requests.cpu": resource.MustParse("1"), "limits.cpu": resource.MustParse("4"), "requests.memory": resource.MustParse("512Mi"), "limits.memory": resource.MustParse("1Gi"), "pods": resource.MustParse("6"),
		}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
}

// serve puts img into a namespace as a release of a Deployment and a Service, and
// waits until it runs.
func (w *world) serve(t *testing.T, namespace string, img stages.Image) stages.Release {
	t.Helper()
	ctx := labtest.Context(t)
	labels := map[string]string{"app": release}
	limits := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi")}
	off, on, two := false, true, int32(2)
	_, err := w.kube.AppsV1().Deployments(namespace).Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: release},
		Spec: appsv1.DeploymentSpec{
			Replicas: &two, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{
				TerminationGracePeriodSeconds: new(int64),
				SecurityContext:               &corev1.PodSecurityContext{RunAsNonRoot: &on, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
				Containers: []corev1.Container{{
					Name: "answerer", Image: img.String(), Resources: corev1.ResourceRequirements{Requests: limits, Limits: limits},
					Ports:           []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}, {Name: "tcp", ContainerPort: 9000}, {Name: "grpc", ContainerPort: 9090}},
					ReadinessProbe:  &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ok", Port: intstr.FromString("http")}}, PeriodSeconds: 1},
					SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: &off, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
				}},
			}},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = w.kube.CoreV1().Services(namespace).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: release},
		Spec: corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{
			{Name: "http", Port: 80, TargetPort: intstr.FromString("http")}, {Name: "tcp", Port: 9000}, {Name: "grpc", Port: 9090, TargetPort: intstr.FromString("grpc")},
		}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	rel := stages.Release{
		Image: img, Name: release, Namespace: namespace, Revision: 1,
		Objects: []stages.Object{{APIVersion: "apps/v1", Kind: "Deployment", Namespace: namespace, Name: release}, {APIVersion: "v1", Kind: "Service", Namespace: namespace, Name: release}},
	}
	ready, err := rollout.New(rollout.Config{REST: w.rest, Timeout: time.Minute})
	require.NoError(t, err)
	_, err = ready.Verify(ctx, rel)
	require.NoError(t, err)
	return rel
}

// withRights is the world as a user who has these rights in a namespace, and no
// others.
func (w *world) withRights(t *testing.T, namespace string, rules []rbacv1.PolicyRule) *world {
	t.Helper()
	ctx, user := labtest.Context(t), "smoke-"+w.suffix()
	_, err := w.kube.RbacV1().Roles(namespace).Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: user}, Rules: rules}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = w.kube.RbacV1().RoleBindings(namespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: user}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: user},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	as := *w
	as.rest = rest.CopyConfig(w.rest)
	as.rest.Impersonate.UserName = user
	as.kube, err = kubernetes.NewForConfig(as.rest)
	require.NoError(t, err)
	a := &account{w: w, namespace: namespace, rest: as.rest, kube: as.kube}
	a.requireRights(t, rightsOf(rules, namespace), true)
	return &as
}

// smokerEnv makes the test binary a process that runs a smoke test which hangs,
// until it is killed.
const smokerEnv = "FAIRLEAD_E2E_SMOKER"

type smoker struct {
	Kubeconfig, Job string
	Curl            string
	Release         stages.Release
}

func beSmoker(spec string) error {
	var s smoker
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		return err
	}
	access, err := helmx.Kubernetes{KubeconfigPath: s.Kubeconfig}.RESTConfig()
	if err != nil {
		return err
	}
	test, err := smoke.NewJob(smoke.JobConfig{REST: access, Command: []string{"/answerer", "hang"}, Timeout: smokerTimeout})
	if s.Curl != "" {
		curl, parse := stages.ParseImage(s.Curl)
		if parse != nil {
			return parse
		}
		test, err = smoke.NewPod(smoke.PodConfig{
			REST: access, Image: curl, Command: []string{"sleep", "3600", "--"}, URL: "http://shop/", Timeout: smokerTimeout,
		})
	}
	if err != nil {
		return err
	}
	_, err = test.Verify(context.Background(), s.Release)
	return fmt.Errorf("the test ended before it was killed: %w", err)
}

const smokerTimeout = 5 * time.Second
