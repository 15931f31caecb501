package helmx

import (
	"errors"
	"fmt"
	"os"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/fairlead-dev/fairlead/stages"
)

// Defaults of [Kubernetes], which are kubectl's.
const (
	DefaultQPS   = 50
	DefaultBurst = 300
)

// Kubernetes is the way to a cluster. Exactly one of REST, Kubeconfig,
// KubeconfigPath and InCluster is set: there is no ambient default.
type Kubernetes struct {
	// REST is a ready configuration, which is copied.
	REST *rest.Config
	// Kubeconfig is the content of a kubeconfig file.
	Kubeconfig []byte
	// KubeconfigPath is a kubeconfig file. It is read once.
	KubeconfigPath string
	// InCluster takes the service account of the pod that the process runs in.
	InCluster bool
	// Context chooses a context of the kubeconfig; empty takes its current one.
	Context string
	// Impersonate names the account to act as. The account of the credentials must
	// be allowed to impersonate it.
	Impersonate rest.ImpersonationConfig
	// QPS and Burst bound the requests per second over all concurrent calls. 0
	// means [DefaultQPS] and [DefaultBurst].
	QPS   float32
	Burst int
}

// RESTConfig returns the configuration for client-go, so that other packages can
// share it, or an error matching [stages.ErrInvalid].
func (k Kubernetes) RESTConfig() (*rest.Config, error) {
	cfg, err := k.load()
	if err != nil {
		return nil, fmt.Errorf("%w: access to Kubernetes: %w", stages.ErrInvalid, err)
	}
	cfg.QPS, cfg.Burst = DefaultQPS, DefaultBurst
	if k.QPS > 0 {
		cfg.QPS = k.QPS
	}
	if k.Burst > 0 {
		cfg.Burst = k.Burst
	}
	if k.Impersonate.UserName != "" {
		cfg.Impersonate = k.Impersonate
	}
	return cfg, nil
}

func (k Kubernetes) isZero() bool {
	return k.REST == nil && len(k.Kubeconfig) == 0 && k.KubeconfigPath == "" && !k.InCluster && k.Context == ""
}

func (k Kubernetes) load() (*rest.Config, error) {
	given := 0
	for _, set := range []bool{k.REST != nil, len(k.Kubeconfig) > 0, k.KubeconfigPath != "", k.InCluster} {
		if set {
			given++
		}
	}
	fromFile := len(k.Kubeconfig) > 0 || k.KubeconfigPath != ""
	switch {
	case given != 1:
		return nil, errors.New("set exactly one of REST, Kubeconfig, KubeconfigPath and InCluster")
	case k.Context != "" && !fromFile:
		return nil, errors.New("a Context needs a kubeconfig")
	case k.QPS < 0 || k.Burst < 0:
		return nil, errors.New("QPS and Burst must not be negative")
	case k.Impersonate.UserName == "" && (k.Impersonate.UID != "" || len(k.Impersonate.Groups) > 0 || len(k.Impersonate.Extra) > 0):
		return nil, errors.New("Impersonate needs a UserName")
	case k.REST != nil:
		return rest.CopyConfig(k.REST), nil
	case k.InCluster:
		return rest.InClusterConfig()
	}
	config, err := k.kubeconfig()
	if err != nil {
		return nil, err
	}
	return clientcmd.NewNonInteractiveClientConfig(*config, k.Context, &clientcmd.ConfigOverrides{}, nil).ClientConfig()
}

func (k Kubernetes) kubeconfig() (*clientcmdapi.Config, error) {
	data, where := k.Kubeconfig, "kubeconfig"
	if k.KubeconfigPath != "" {
		where = "kubeconfig " + k.KubeconfigPath
		var err error
		if data, err = os.ReadFile(k.KubeconfigPath); err != nil {
			return nil, fmt.Errorf("read %s: %w", where, err)
		}
	}
	config, err := clientcmd.Load(data)
	if err != nil {
		// The parser quotes what it could not read, which may be a credential.
		return nil, fmt.Errorf("%s: not a kubeconfig: %s", where, yamlProblem(err))
	}
	if k.KubeconfigPath != "" {
		for _, c := range config.Clusters {
			c.LocationOfOrigin = k.KubeconfigPath
		}
		for _, a := range config.AuthInfos {
			a.LocationOfOrigin = k.KubeconfigPath
		}
		if err := clientcmd.ResolveLocalPaths(config); err != nil {
			return nil, fmt.Errorf("%s: %w", where, err)
		}
	}
	return config, nil
}
