package helmx

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/storage"
	"helm.sh/helm/v3/pkg/storage/driver"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/fairlead-dev/fairlead/stages"
)

// session is one operation on the cluster: everything that it sends is bound to
// its context. It serves Helm as the getter of clients. It is for one goroutine.
type session struct {
	// ctx is kept because Helm's interfaces pass none.
	ctx       context.Context //nolint:containedctx // See above.
	cluster   *Cluster
	namespace string
	lease     string // the name of the lock's Lease
	hold      *hold  // the lock, where it may go away with the namespace
	// imageFields are fields of custom resources that hold image references.
	imageFields []ImageField
	log         *slog.Logger
	failures    *failureLog
	rest        *rest.Config
	clients     kubernetes.Interface
	discovery   *sessionDiscovery
	mapper      *aheadMapper
	kube        *kubeClient
	// declared are versions and kinds that the crds folder defines, or other releases.
	declared []string
	// redefined are kinds whose definitions other releases change before this one.
	redefined map[schema.GroupKind]bool
	// secrets are masked in errors.
	secrets []string
	// records are when the records of the release were made, once that was asked for.
	records map[int]metav1.Time
	// marks are labels of the record that is to be made.
	marks map[string]string
	// hook is why a hook failed, which Helm reports as text only.
	hook *HookError
}

func (d *Deployer) session(ctx context.Context) (*session, error) {
	s := &session{
		ctx: ctx, cluster: d.cluster, namespace: d.cfg.Namespace, lease: d.leaseName(), log: d.cfg.Logger, failures: &failureLog{},
		imageFields: d.cfg.ImageFields, marks: map[string]string{},
	}
	s.rest = d.cluster.config(ctx, s.failures, s)
	var err error
	if s.clients, err = kubernetes.NewForConfig(s.rest); err != nil {
		return nil, fmt.Errorf("make a Kubernetes client: %w", err)
	}
	known, fresh := d.cluster.remembered(), false
	if known == nil {
		if known, err = d.cluster.learn(s.rest); err != nil {
			return nil, s.explain(err)
		}
		fresh = true
	}
	s.discovery = &sessionDiscovery{CachedDiscoveryInterface: known.discovery, known: known, fresh: fresh, s: s}
	s.mapper = &aheadMapper{RESTMapper: restmapper.NewDeferredDiscoveryRESTMapper(s.discovery), kinds: kinds{}}
	s.foresee(d.source.definitions, d.cfg.CRDs)
	s.kube = newKubeClient(s, d.cfg.Apply)
	s.kube.timeout, s.kube.adopt, s.kube.defined = d.cfg.Timeout, d.cfg.TakeOwnership, map[identity]bool{}
	for _, o := range d.source.definitions {
		s.kube.defined[o.identity()] = true
	}
	return s, nil
}

// HandleWarningHeader passes on what the API server warns of, such as an unknown
// field or a deprecated version.
func (s *session) HandleWarningHeader(code int, _ string, text string) {
	const apiWarning = 299
	if code != apiWarning || text == "" {
		return
	}
	text, _ = redact(text, s.secrets)
	s.log.Warn("the API server warns", "warning", text)
	stages.ReportProgress(s.ctx, stages.Progress{Message: "warning: " + text})
}

func (s *session) debug(format string, args ...any) {
	if s.log.Enabled(s.ctx, slog.LevelDebug) {
		text, _ := redact(fmt.Sprintf(format, args...), s.secrets)
		s.log.DebugContext(s.ctx, text)
	}
}

// ToRESTConfig returns the configuration that is bound to the session. This and
// the methods that follow are what Helm asks a getter of clients for.
func (s *session) ToRESTConfig() (*rest.Config, error) { return s.rest, nil }

// ToDiscoveryClient returns what is known of the cluster.
func (s *session) ToDiscoveryClient() (discovery.CachedDiscoveryInterface, error) {
	return s.discovery, nil
}

// ToRESTMapper returns a mapper that looks again for a kind it doesn't know.
func (s *session) ToRESTMapper() (meta.RESTMapper, error) { return s.mapper, nil }

// ToRawKubeConfigLoader returns no more than the namespace.
func (s *session) ToRawKubeConfigLoader() clientcmd.ClientConfig {
	return clientcmd.NewDefaultClientConfig(*clientcmdapi.NewConfig(), &clientcmd.ConfigOverrides{
		Context: clientcmdapi.Context{Namespace: s.namespace},
	})
}

// capabilities are those of the cluster once it has the definitions of the crds folder.
func (s *session) capabilities() *chartutil.Capabilities {
	caps := s.discovery.known.caps.Copy()
	caps.APIVersions = append(slices.Clone(caps.APIVersions), s.declared...)
	return caps
}

// actions returns Helm's configuration, storing releases through record.
func (s *session) actions(record driver.Driver, historyMax int) *action.Configuration {
	releases := storage.Init(record)
	releases.MaxHistory = historyMax
	releases.Log = s.debug
	return &action.Configuration{
		RESTClientGetter: s,
		KubeClient:       s.kube,
		Releases:         releases,
		Capabilities:     s.capabilities(),
		Log:              s.debug,
		HookOutputFunc:   func(_, _, _ string) io.Writer { return io.Discard },
	}
}

// store returns Helm's driver for releases in Secrets.
func (s *session) store() driver.Driver {
	secrets := driver.NewSecrets(s.clients.CoreV1().Secrets(s.namespace))
	secrets.Log = s.debug
	return records{secrets}
}

// records is Helm's driver, which panics over a record that can't be decoded.
type records struct{ *driver.Secrets }

// Get returns a record.
func (r records) Get(key string) (rel *release.Release, err error) {
	defer unreadable(key, &err)
	return r.Secrets.Get(key)
}

// Delete deletes a record, and returns it.
func (r records) Delete(key string) (rel *release.Release, err error) {
	defer unreadable(key, &err)
	return r.Secrets.Delete(key)
}

// unreadable makes an error of a panic. It is deferred.
func unreadable(key string, err *error) {
	if recover() != nil {
		*err = fmt.Errorf("release record %s can't be read: its content is not what Helm writes", key)
	}
}

// sessionDiscovery is the shared knowledge of the cluster, renewed with the
// session's own client when a kind is missing from it.
type sessionDiscovery struct {
	discovery.CachedDiscoveryInterface
	known *knowledge
	fresh bool
	s     *session
}

// ServerVersion returns what the cluster last said.
func (d *sessionDiscovery) ServerVersion() (*version.Info, error) { return d.known.version, nil }

// Fresh reports whether looking again would be in vain.
func (d *sessionDiscovery) Fresh() bool { return d.fresh }

// Invalidate looks again. If that fails, what was known before stays.
func (d *sessionDiscovery) Invalidate() {
	if err := d.renew(); err != nil {
		d.s.debug("renew the discovery: %s", err)
	}
}

// renew looks again, whatever is known.
func (d *sessionDiscovery) renew() error {
	known, err := d.s.cluster.learn(d.s.rest)
	if err != nil {
		return err
	}
	d.CachedDiscoveryInterface, d.known, d.fresh = known.discovery, known, true
	return nil
}
