package sealedsecrets

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bitnami-labs/sealed-secrets/pkg/crypto"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"
)

// Scope says where a SealedSecret may be unsealed. It is part of the encryption:
// changing the annotation afterwards does not widen it.
type Scope int

// The scopes.
const (
	// Strict binds to a name in a namespace.
	Strict Scope = iota
	// NamespaceWide binds to a namespace, under any name.
	NamespaceWide
	// ClusterWide binds to nothing but the controller's key.
	ClusterWide
)

// The annotations by which the controller knows a scope.
const (
	annotationNamespaceWide = "sealedsecrets.bitnami.com/namespace-wide"
	annotationClusterWide   = "sealedsecrets.bitnami.com/cluster-wide"
)

// copies are where kubectl and kubecfg keep the whole Secret in clear text.
var copies = []string{
	"kubectl.kubernetes.io/last-applied-configuration",
	"kubecfg.ksonnet.io/last-applied-configuration",
}

// String returns "strict", "namespace-wide" or "cluster-wide".
func (s Scope) String() string {
	switch s {
	case Strict:
		return "strict"
	case NamespaceWide:
		return "namespace-wide"
	case ClusterWide:
		return "cluster-wide"
	default:
		return fmt.Sprintf("scope(%d)", int(s))
	}
}

// annotation returns what marks the scope, or "".
func (s Scope) annotation() string {
	switch s {
	case NamespaceWide:
		return annotationNamespaceWide
	case ClusterWide:
		return annotationClusterWide
	default:
		return ""
	}
}

// label is what the encryption is bound to.
func (s Scope) label(namespace, name string) []byte {
	switch s {
	case ClusterWide:
		return nil
	case NamespaceWide:
		return []byte(namespace)
	default:
		return []byte(namespace + "/" + name)
	}
}

// Secret is what is to be sealed.
type Secret struct {
	// Name is required.
	Name string
	// Namespace is required unless the scope is [ClusterWide].
	Namespace string
	// Type is such as "kubernetes.io/tls"; empty is Kubernetes' default, Opaque.
	Type string
	// Data are the values by their keys. They may be empty but not absent.
	Data map[string][]byte
	// Labels and Annotations are put, in clear text, on the Secret that the
	// controller makes. Copies of the whole Secret that kubectl leaves among the
	// annotations are dropped.
	Labels, Annotations map[string]string
	// Immutable makes that Secret immutable.
	Immutable bool
}

// manifest is a SealedSecret as kubeseal writes it, and as strictly as it is read.
type manifest struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   metadata `json:"metadata"`
	Spec       spec     `json:"spec"`
}

type metadata struct {
	Name        string            `json:"name,omitempty"`
	Namespace   string            `json:"namespace,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type spec struct {
	EncryptedData map[string]string `json:"encryptedData"`
	Template      template          `json:"template,omitzero"`
}

type template struct {
	Metadata  metadata          `json:"metadata,omitzero"`
	Type      string            `json:"type,omitempty"`
	Immutable *bool             `json:"immutable,omitempty"`
	Data      map[string]string `json:"data,omitempty"`
}

const (
	apiVersion = "bitnami.com/v1alpha1"
	kind       = "SealedSecret"
)

// Seal encrypts a Secret with the controller's certificate (PEM) and returns the
// SealedSecret as YAML. A certificate outside its period, or whose key isn't RSA of
// 2048 bits or more, gives a [CertificateError]; a Secret that can't be one, a
// [FieldError].
func Seal(certificate []byte, secret Secret, scope Scope) ([]byte, error) {
	key, err := publicKey(certificate, time.Now())
	if err != nil {
		return nil, err
	}
	if err := secret.check(scope); err != nil {
		return nil, err
	}
	m := manifest{
		APIVersion: apiVersion,
		Kind:       kind,
		Metadata:   metadata{Name: secret.Name, Namespace: secret.Namespace},
		Spec: spec{
			EncryptedData: map[string]string{},
			Template: template{
				Type: secret.Type,
				Metadata: metadata{
					Name:        secret.Name,
					Namespace:   secret.Namespace,
					Labels:      secret.Labels,
					Annotations: templateAnnotations(secret.Annotations, scope),
				},
			},
		},
	}
	if a := scope.annotation(); a != "" {
		m.Metadata.Annotations = map[string]string{a: "true"}
	}
	if secret.Immutable {
		m.Spec.Template.Immutable = &secret.Immutable
	}
	label := scope.label(secret.Namespace, secret.Name)
	for name, value := range secret.Data {
		sealed, err := crypto.HybridEncrypt(rand.Reader, key, value, label)
		if err != nil {
			return nil, fmt.Errorf("sealing %s/%s: encrypting %q: %w", secret.Namespace, secret.Name, name, err)
		}
		m.Spec.EncryptedData[name] = base64.StdEncoding.EncodeToString(sealed)
	}
	out, err := yaml.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("sealing %s/%s: writing YAML: %w", secret.Namespace, secret.Name, err)
	}
	return out, nil
}

func templateAnnotations(given map[string]string, scope Scope) map[string]string {
	out := map[string]string{}
	maps.Copy(out, given)
	for _, name := range append([]string{annotationNamespaceWide, annotationClusterWide}, copies...) {
		delete(out, name)
	}
	if a := scope.annotation(); a != "" {
		out[a] = "true"
	}
	return out
}

// minBits is the shortest RSA key that is still considered safe.
const minBits = 2048

func publicKey(certificate []byte, now time.Time) (*rsa.PublicKey, error) {
	block, _ := pem.Decode(certificate)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, &CertificateError{Problem: Unreadable}
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, &CertificateError{Problem: Unreadable}
	}
	failure := &CertificateError{NotBefore: cert.NotBefore, NotAfter: cert.NotAfter}
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	if ok {
		failure.Bits = key.N.BitLen()
	}
	switch {
	case !ok:
		failure.Problem = NotRSA
	case failure.Bits < minBits:
		failure.Problem = Weak
	case now.Before(cert.NotBefore):
		failure.Problem = NotYetValid
	case now.After(cert.NotAfter):
		failure.Problem = Expired
	default:
		return key, nil
	}
	return nil, failure
}

func (s Secret) check(scope Scope) error {
	refuse := func(field, reason string) error { return &FieldError{Field: field, Reason: reason, Class: ErrSecret} }
	if scope < Strict || scope > ClusterWide {
		return refuse("", "there is no "+scope.String())
	}
	if s.Namespace == "" && scope != ClusterWide {
		return refuse("namespace", "it is required for scope "+scope.String())
	}
	if reason := badPlace(s.Namespace, s.Name); reason != "" {
		return refuse("name or namespace", reason)
	}
	if len(s.Data) == 0 {
		return refuse("data", "there is nothing to seal")
	}
	size := 0
	for _, key := range slices.Sorted(maps.Keys(s.Data)) {
		if len(utilvalidation.IsConfigMapKey(key)) > 0 {
			return refuse("data", fmt.Sprintf("key %q must be letters, digits, '-', '_' and '.'", key))
		}
		size += len(s.Data[key])
	}
	if size > corev1.MaxSecretSize {
		return refuse("data", fmt.Sprintf("it is %d bytes, and a Secret holds %d; split it", size, corev1.MaxSecretSize))
	}
	return nil
}

// badPlace says why a name or a namespace, which may be empty, is not one.
func badPlace(namespace, name string) string {
	for _, problem := range validation.NameIsDNSSubdomain(name, false) {
		return fmt.Sprintf("name %q: %s", name, problem)
	}
	if namespace == "" {
		return ""
	}
	for _, problem := range validation.ValidateNamespaceName(namespace, false) {
		return fmt.Sprintf("namespace %q: %s", namespace, problem)
	}
	return ""
}
