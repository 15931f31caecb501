package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"
	"sigs.k8s.io/kind/pkg/cluster"
	"sigs.k8s.io/kind/pkg/exec"
)

const (
	clusterPrefix = "fairlead-"
	lockSuffix    = ".lock"

	// readyTimeout bounds the wait for a cluster whose containers all run.
	readyTimeout = 5 * time.Minute

	// killTimeout bounds the attempt to make deleting faster.
	killTimeout = 20 * time.Second
)

// Cluster is a Kubernetes cluster of one node that lives until Close. Its
// methods are safe for concurrent use.
type Cluster struct {
	name     string
	engine   Engine
	provider *cluster.Provider
	dir      string // holds the kubeconfig; removed by Close
	lock     *flock.Flock
	rest     *rest.Config
	gateway  netip.Addr
	progress *progress

	closeOnce sync.Once
	closeErr  error

	mu       sync.Mutex
	closed   bool
	forwards []*forward
}

// StartCluster makes a new cluster and returns once its node is ready, cluster
// DNS answers, and pods can be created in the namespace default. With the node
// image in the cache that takes well under a minute.
//
// When it fails, or ctx ends first, it returns only after everything it made is
// deleted. A cluster that an earlier process left behind by being killed is
// deleted first.
func (l *Lab) StartCluster(ctx context.Context) (*Cluster, error) {
	engine, err := l.Engine(ctx)
	if err != nil {
		return nil, err
	}
	image, err := l.NodeImage(ctx)
	if err != nil {
		return nil, err
	}
	if err := l.deleteAbandoned(engine); err != nil {
		return nil, err
	}
	c, err := l.newCluster(engine)
	if err != nil {
		return nil, err
	}
	err = l.progress.step("cluster "+c.name+": starting", 30*time.Second, func() error {
		return c.start(ctx, image)
	})
	if err != nil {
		err = fmt.Errorf("lab: start cluster %s: %w", c.name, err)
		if l.logDir != "" && ctx.Err() == nil {
			err = errors.Join(err, c.CollectLogs(filepath.Join(l.logDir, c.name)))
		}
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// newCluster reserves a name, and a folder of that name for the kubeconfig. The
// lock beside it tells other processes that the cluster has a living owner.
func (l *Lab) newCluster(engine Engine) (*Cluster, error) {
	name := clusterPrefix + randomSuffix()
	c := &Cluster{
		name: name, engine: engine, provider: engine.provider(), progress: l.progress,
		dir:  filepath.Join(l.cache, "clusters", name),
		lock: flock.New(filepath.Join(l.cache, "clusters", name+lockSuffix)),
	}
	if err := os.MkdirAll(filepath.Dir(c.dir), 0o755); err != nil {
		return nil, fmt.Errorf("lab: reserve a cluster name: %w", err)
	}
	if err := c.lock.Lock(); err != nil {
		return nil, fmt.Errorf("lab: reserve a cluster name: %w", err)
	}
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		return nil, errors.Join(fmt.Errorf("lab: reserve a cluster name: %w", err), c.forget())
	}
	return c, nil
}

// deleteAbandoned deletes the clusters whose owners are gone without having
// closed them: their locks can be taken.
func (l *Lab) deleteAbandoned(engine Engine) error {
	locks, err := filepath.Glob(filepath.Join(l.cache, "clusters", clusterPrefix+"*"+lockSuffix))
	if err != nil {
		return err
	}
	for _, path := range locks {
		lock := flock.New(path)
		if free, err := lock.TryLock(); err != nil || !free {
			continue
		}
		dir := strings.TrimSuffix(path, lockSuffix)
		c := &Cluster{
			name: filepath.Base(dir), engine: engine, provider: engine.provider(),
			progress: l.progress, dir: dir, lock: lock,
		}
		l.progress.say("cluster %s: left behind by a killed process", c.name)
		if err := c.Close(); err != nil {
			return err
		}
	}
	return nil
}

// kill stops the node at once. Deleting would stop it as well, but Podman first
// waits ten seconds for a tidy shutdown, which nobody needs here.
func (c *Cluster) kill() {
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	node, err := c.node()
	if err != nil {
		return // there may be none; deleting will tell
	}
	_, _ = run(ctx, c.engine.name, "kill", node)
}

// forget gives up the name for good.
func (c *Cluster) forget() error {
	return errors.Join(os.RemoveAll(c.dir), os.Remove(c.lock.Path()), c.lock.Unlock())
}

// start creates the cluster and waits for it. It leaves the cleaning up of a
// failure to Close.
func (c *Cluster) start(ctx context.Context, image string) error {
	if err := c.create(ctx, image); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", c.KubeconfigPath())
	if err != nil {
		return fmt.Errorf("read its kubeconfig: %w", err)
	}
	c.rest = config
	if c.gateway, err = c.findGateway(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("not ready after %s", readyTimeout))
	defer cancel()
	return waitReady(ctx, config)
}

// create has kind make the cluster. Kind knows no contexts: when ctx ends, the
// node is deleted under its hands, which ends every step of kind's with an
// error, until it has returned.
func (c *Cluster) create(ctx context.Context, image string) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	created := make(chan error, 1)
	go func() {
		created <- c.provider.Create(c.name,
			cluster.CreateWithV1Alpha4Config(clusterConfig(c.engine, lacksSysResource())),
			cluster.CreateWithNodeImage(image),
			cluster.CreateWithKubeconfigPath(c.KubeconfigPath()),
			// What failed is deleted by Close, after its logs were collected.
			cluster.CreateWithRetain(true),
		)
	}()
	select {
	case err := <-created:
		return explainKind(err)
	case <-ctx.Done():
	}
	retry := time.NewTicker(time.Second)
	defer retry.Stop()
	for {
		// Failing is no reason to stop: the node may only be half there yet.
		_ = c.provider.Delete(c.name, c.KubeconfigPath())
		select {
		case <-created: //nolint:errcheck // it failed because it was cancelled
			return context.Cause(ctx)
		case <-retry.C:
		}
	}
}

// hastyStore has etcd not wait for the disk, on which a compiler beside it can hold
// everything up for seconds. What it keeps isn't to survive the machine.
const hastyStore = `apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
etcd: {local: {extraArgs: [{name: unsafe-no-fsync, value: "true"}]}}
`

// clusterConfig is kind's configuration of one node, with a store for a throwaway
// cluster, and exceptions where the host needs them: a kubelet that accepts cgroup v1,
// and programs that do without CAP_SYS_RESOURCE if that is denied.
func clusterConfig(engine Engine, denied bool) *v1alpha4.Cluster {
	config := &v1alpha4.Cluster{
		Nodes:                []v1alpha4.Node{{Role: v1alpha4.ControlPlaneRole}},
		KubeadmConfigPatches: []string{hastyStore},
	}
	v1alpha4.SetDefaultsCluster(config)

	const kubelet = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
	if engine.cgroupV1() {
		config.KubeadmConfigPatches = append(config.KubeadmConfigPatches, kubelet+"failCgroupV1: false\n")
	}
	if denied {
		config.KubeadmConfigPatches = append(config.KubeadmConfigPatches,
			kubelet+"featureGates:\n  KubeletInUserNamespace: true\n")
	}
	return config
}

// explainKind adds to an error of kind's what the failed program printed.
func explainKind(err error) error {
	if failed := exec.RunErrorForError(err); failed != nil {
		return fmt.Errorf("%w:\n%s", err, tail(string(failed.Output), 20))
	}
	return err
}

// Name is the cluster's name, unique to it.
func (c *Cluster) Name() string { return c.name }

// KubeconfigPath is a file, readable only by this user, with administrator's
// access to the cluster. Close removes it.
func (c *Cluster) KubeconfigPath() string { return filepath.Join(c.dir, "kubeconfig") }

// Kubeconfig is the content of the file at KubeconfigPath.
func (c *Cluster) Kubeconfig() ([]byte, error) { return os.ReadFile(c.KubeconfigPath()) }

// RESTConfig is administrator's access to the cluster. The caller owns it.
func (c *Cluster) RESTConfig() *rest.Config { return rest.CopyConfig(c.rest) }

// CollectLogs writes the logs of the node, its services and all pods into the
// folder dir, which is made if needed. It works as well as the node still does:
// what could not be collected is the error, and the rest is there.
func (c *Cluster) CollectLogs(dir string) error {
	if err := c.provider.CollectLogs(c.name, dir); err != nil {
		return fmt.Errorf("lab: collect logs of cluster %s: %w", c.name, err)
	}
	return nil
}

// Close deletes the cluster and everything made for it. It can be called again,
// and then returns the same result.
func (c *Cluster) Close() error {
	c.closeOnce.Do(func() { c.closeErr = c.close() })
	return c.closeErr
}

func (c *Cluster) close() error {
	c.mu.Lock()
	c.closed = true
	forwards := c.forwards
	c.mu.Unlock()

	var errs []error
	for _, f := range forwards {
		errs = append(errs, f.close())
	}
	began := time.Now()
	c.kill()
	if err := c.provider.Delete(c.name, c.KubeconfigPath()); err != nil {
		// A cluster that may still be there keeps its name; the next lab tries again.
		return errors.Join(append(errs, c.lock.Unlock(), fmt.Errorf("lab: delete cluster %s: %w; remove it with: kind delete cluster --name %s",
			c.name, explainKind(err), c.name))...)
	}
	c.progress.say("cluster %s: deleted in %s", c.name, clock(time.Since(began)))
	return errors.Join(append(errs, c.forget())...)
}
