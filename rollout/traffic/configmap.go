package traffic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/stages"
)

// ConfigMapConfig configures a [ConfigMap].
type ConfigMapConfig struct {
	// REST is how to reach the cluster, required. It is copied.
	REST *rest.Config
	// Namespace and Release name the stable release, required. The ConfigMap is
	// called "fairlead.canary." and then the release, and lives in its namespace.
	Namespace, Release string
}

// ConfigMap keeps a canary's record in a ConfigMap, which exists as long as a
// canary is under way. It needs the verbs get, create, update and delete on
// configmaps. It is safe for concurrent use.
type ConfigMap struct {
	namespace, name string

	api corev1client.ConfigMapInterface
}

var _ State = (*ConfigMap)(nil)

const (
	stateKey     = "state.json"
	labelManaged = "app.kubernetes.io/managed-by"
	managedBy    = "fairlead"
)

// NewConfigMap returns a state, without asking the cluster anything yet. Its
// error matches [stages.ErrInvalid].
func NewConfigMap(config ConfigMapConfig) (*ConfigMap, error) {
	access, err := access(config.REST)
	if err != nil {
		return nil, fmt.Errorf("canary state: %w", err)
	}
	client, err := kubernetes.NewForConfig(access)
	if err != nil {
		return nil, fmt.Errorf("canary state: %w", errors.Join(stages.ErrInvalid, err))
	}
	return newConfigMap(client, config.Namespace, config.Release)
}

func newConfigMap(client kubernetes.Interface, namespace, release string) (*ConfigMap, error) {
	name := "fairlead.canary." + release
	if errs := validation.IsDNS1123Subdomain(name); release == "" || namespace == "" || len(errs) > 0 {
		return nil, fmt.Errorf("canary state: %w: Namespace %q and Release %q must name the stable release", stages.ErrInvalid, namespace, release)
	}
	return &ConfigMap{namespace: namespace, name: name, api: client.CoreV1().ConfigMaps(namespace)}, nil
}

// Load implements [State].
func (c *ConfigMap) Load(ctx context.Context) (*Record, string, error) {
	cm, err := c.api.Get(ctx, c.name, metav1.GetOptions{})
	switch {
	case ctx.Err() != nil:
		return nil, "", context.Cause(ctx)
	case apierrors.IsNotFound(err):
		return nil, "", nil
	case err != nil:
		return nil, "", c.explain(err, "read")
	case cm.Labels[labelManaged] != managedBy:
		return nil, "", fmt.Errorf("%w: ConfigMap %s/%s is not of fairlead; rename it, or the release", stages.ErrInvalid, cm.Namespace, c.name)
	}
	record, err := DecodeRecord([]byte(cm.Data[stateKey]))
	if err != nil {
		return nil, "", fmt.Errorf("ConfigMap %s/%s: %w", cm.Namespace, c.name, err)
	}
	return record, cm.ResourceVersion, nil
}

// Save implements [State].
func (c *ConfigMap) Save(ctx context.Context, record Record, version string) (string, error) {
	record.Format = recordFormat
	data, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return "", fmt.Errorf("write the canary's state: %w", err)
	}
	cm := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: c.name, ResourceVersion: version, Labels: map[string]string{labelManaged: managedBy}},
		Data:       map[string]string{stateKey: string(data)},
	}
	if version == "" {
		cm, err = c.api.Create(ctx, cm, metav1.CreateOptions{FieldManager: FieldManager})
	} else {
		cm, err = c.api.Update(ctx, cm, metav1.UpdateOptions{FieldManager: FieldManager})
	}
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err == nil:
		return cm.ResourceVersion, nil
	case version == "" && apierrors.IsAlreadyExists(err), version != "" && (apierrors.IsConflict(err) || apierrors.IsNotFound(err)):
		return "", fmt.Errorf("write the canary's state: %w: %w", ErrStateChanged, err)
	}
	return "", c.explain(err, "write")
}

func (c *ConfigMap) explain(err error, verb string) error {
	return explain(err, verb+" the canary's state in", stages.Object{Kind: "ConfigMap", Namespace: c.namespace, Name: c.name})
}

// Delete implements [State].
func (c *ConfigMap) Delete(ctx context.Context, version string) error {
	err := c.api.Delete(ctx, c.name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &version}})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil, apierrors.IsNotFound(err):
		return nil
	case apierrors.IsConflict(err):
		return fmt.Errorf("delete the canary's state: %w: %w", ErrStateChanged, err)
	}
	return c.explain(err, "delete")
}
