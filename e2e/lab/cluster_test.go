package lab_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/fairlead-dev/fairlead/e2e/lab"
	"github.com/fairlead-dev/fairlead/e2e/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

// serveRegistry serves an empty registry on a loopback port until the test ends.
func serveRegistry(t *testing.T) (port int) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		assert.NoError(t, server.Close())
		assert.ErrorIs(t, <-served, http.ErrServerClosed)
	})
	return listener.Addr().(*net.TCPAddr).Port
}

func TestPodRunsImageOfConnectedRegistry(t *testing.T) {
	l, cluster := labtest.Require(t), labtest.Cluster(t)
	ctx := labtest.Context(t)
	port := serveRegistry(t)

	images, err := l.PushBaseImages(ctx, fmt.Sprintf("localhost:%d", port))
	require.NoError(t, err)
	require.NoError(t, cluster.ConnectRegistry(ctx, port))

	began := time.Now()
	output := runPod(ctx, t, cluster, images.Base, `
		. /etc/os-release; echo "os $ID"
		id -u
		getent hosts kubernetes.default.svc.cluster.local
		curl --silent --cacert /var/run/secrets/kubernetes.io/serviceaccount/ca.crt \
			https://kubernetes.default.svc/version`)
	t.Logf("pod pulled and ran in %s", time.Since(began))
	assert.Contains(t, output, "os debian")
	assert.Contains(t, output, "65534", "runs as nobody")
	assert.Contains(t, output, "kubernetes.default.svc.cluster.local", "cluster DNS resolves")
	assert.Contains(t, output, "gitVersion", "a service's address leads to the API server")
}

// runPod runs a script in a pod of the image to its end and returns its output.
func runPod(ctx context.Context, t *testing.T, cluster *lab.Cluster, image, script string) string {
	t.Helper()
	client, err := kubernetes.NewForConfig(cluster.RESTConfig())
	require.NoError(t, err)
	pods := client.CoreV1().Pods("default")
	nobody, yes := int64(65534), true
	pod, err := pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "probe-"},
		Spec: corev1.PodSpec{
			RestartPolicy:   corev1.RestartPolicyNever,
			SecurityContext: &corev1.PodSecurityContext{RunAsUser: &nobody, RunAsNonRoot: &yes},
			Containers:      []corev1.Container{{Name: "probe", Image: image, Command: []string{"sh", "-euc", script}}},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)

	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	lw := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "pods", pod.Namespace,
		fields.OneTermEqualSelector(metav1.ObjectNameField, pod.Name))
	last, err := watchtools.UntilWithSync(ctx, lw, &corev1.Pod{}, nil, func(event watch.Event) (bool, error) {
		phase := event.Object.(*corev1.Pod).Status.Phase
		return phase == corev1.PodSucceeded || phase == corev1.PodFailed, nil
	})
	require.NoError(t, err)
	log, err := pods.GetLogs(pod.Name, &corev1.PodLogOptions{}).DoRaw(ctx)
	require.NoError(t, err)
	require.Equal(t, corev1.PodSucceeded, last.Object.(*corev1.Pod).Status.Phase, "log: %s", log)
	return string(log)
}

func TestKubeconfigIsPrivate(t *testing.T) {
	cluster := labtest.Cluster(t)
	info, err := os.Stat(cluster.KubeconfigPath())
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	content, err := cluster.Kubeconfig()
	require.NoError(t, err)
	assert.Contains(t, string(content), cluster.Name())
	if home, err := os.UserHomeDir(); err == nil {
		own, _ := os.ReadFile(filepath.Join(home, ".kube", "config"))
		assert.False(t, bytes.Contains(own, []byte(cluster.Name())), "the user's own kubeconfig must stay as it is")
	}
}

func TestCollectLogs(t *testing.T) {
	cluster := labtest.Cluster(t)
	dir := t.TempDir()
	require.NoError(t, cluster.CollectLogs(dir))
	found, err := filepath.Glob(filepath.Join(dir, "*", "kubelet.log"))
	require.NoError(t, err)
	assert.Len(t, found, 1)
}

func TestCloseLeavesNothing(t *testing.T) {
	l := labtest.Require(t)
	ctx := labtest.Context(t)
	engine, err := l.Engine(ctx)
	require.NoError(t, err)

	cluster, err := l.StartCluster(ctx)
	require.NoError(t, err)
	require.Len(t, containersOf(t, engine, cluster.Name()), 1)
	require.NoError(t, cluster.Close())
	require.NoError(t, cluster.Close(), "closing twice is closing once")
	assert.Empty(t, containersOf(t, engine, cluster.Name()))
	assert.NoFileExists(t, cluster.KubeconfigPath())
}

func TestCancelledStartLeavesNothing(t *testing.T) {
	l := labtest.Require(t)
	engine, err := l.Engine(labtest.Context(t))
	require.NoError(t, err)

	for name, phase := range map[string]string{
		"before the node runs":             "",
		"while Kubernetes is being set up": "/etc/kubernetes/manifests/kube-apiserver.yaml",
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(labtest.Context(t))
			defer cancel()
			known := containersOf(t, engine, "fairlead-")
			watcher := make(chan struct{})
			go func() {
				defer close(watcher)
				defer cancel()
				waitForFile(ctx, t, engine, known, phase)
			}()
			_, err := l.StartCluster(ctx)
			<-watcher
			require.ErrorIs(t, err, context.Canceled)
			if cluster := regexp.MustCompile(`fairlead-[a-z0-9]+`).FindString(err.Error()); cluster != "" {
				assert.Empty(t, containersOf(t, engine, cluster))
			}
		})
	}
}

// waitForFile returns when a node that is not among the known ones has a file,
// which tells how far its setup has come; at once if path is empty.
func waitForFile(ctx context.Context, t *testing.T, engine lab.Engine, known []string, path string) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for path != "" && ctx.Err() == nil {
		for _, node := range containersOf(t, engine, "fairlead-") {
			if !slices.Contains(known, node) && exec.CommandContext(ctx, engine.Name(), "exec", node, "test", "-e", path).Run() == nil {
				return
			}
		}
		<-tick.C
	}
}

func TestAbandonedClusterIsDeleted(t *testing.T) {
	l := labtest.Require(t)
	engine, err := l.Engine(labtest.Context(t))
	require.NoError(t, err)

	// What a killed process leaves: a node with kind's label, and a lock that
	// nobody holds.
	name := "fairlead-" + strings.ToLower(rand.Text()[:8])
	require.NoError(t, l.Abandon(name))
	out, err := exec.Command(engine.Name(), "run", "--detach", "--network=none", "--name", name+"-control-plane",
		"--label", "io.x-k8s.kind.cluster="+name, lab.ProbeImage, "/pause").CombinedOutput()
	require.NoError(t, err, string(out))
	require.Len(t, containersOf(t, engine, name), 1)

	require.NoError(t, l.DeleteAbandoned(engine))
	assert.Empty(t, containersOf(t, engine, name))
}

// containersOf lists the containers whose names begin with prefix, also stopped ones.
func containersOf(t *testing.T, engine lab.Engine, prefix string) []string {
	t.Helper()
	out, err := exec.Command(engine.Name(), "ps", "--all", "--format", "{{.Names}}").Output()
	assert.NoError(t, err)
	var names []string
	for _, name := range strings.Fields(string(out)) {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names
}
