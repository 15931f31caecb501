package sealedsecrets

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"

	yamlv3 "go.yaml.in/yaml/v3"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"
)

// tagSize is what AES-GCM adds to a value.
const tagSize = 16

// received is a SealedSecret as others may have written it: with what the API
// server and kubeseal add.
type received struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	Metadata   receivedMetadata `json:"metadata"`
	Spec       *receivedSpec    `json:"spec"`
	Status     any              `json:"status,omitempty"`
}

type receivedMetadata struct {
	metadata

	CreationTimestamp any `json:"creationTimestamp,omitempty"`
	Generation        any `json:"generation,omitempty"`
	ManagedFields     any `json:"managedFields,omitempty"`
	ResourceVersion   any `json:"resourceVersion,omitempty"`
	UID               any `json:"uid,omitempty"`
	OwnerReferences   any `json:"ownerReferences,omitempty"`
	Finalizers        any `json:"finalizers,omitempty"`
	GenerateName      any `json:"generateName,omitempty"`
	SelfLink          any `json:"selfLink,omitempty"`
	DeletionTimestamp any `json:"deletionTimestamp,omitempty"`
	DeletionGrace     any `json:"deletionGracePeriodSeconds,omitempty"`
}

type receivedSpec struct {
	EncryptedData map[string]string `json:"encryptedData"`
	Template      struct {
		Metadata  receivedMetadata  `json:"metadata"`
		Type      string            `json:"type"`
		Immutable *bool             `json:"immutable"`
		Data      map[string]string `json:"data"`
	} `json:"template"`
	// Data is one value for the whole Secret, which controllers no longer accept.
	Data any `json:"data"`
}

// unknownField finds the one part of a decoder's error that holds no value.
var unknownField = regexp.MustCompile(`unknown field "([A-Za-z0-9_.\[\]-]{1,100})"`)

// ScopeOf returns the scope that a SealedSecret (YAML or JSON) claims, after
// checking its form. See [Validate] for the errors.
func ScopeOf(sealed []byte) (Scope, error) {
	_, scope, err := parse(sealed)
	return scope, err
}

// Validate checks a SealedSecret (YAML or JSON) before it is deployed under name in
// namespace. Its form is wrong with a [FieldError]: unknown fields, another kind,
// no data, data that is not base64 or too short to be what the controller decrypts, or
// anything after its document. A scope that doesn't allow the place gives a [ScopeError].
func Validate(sealed []byte, name, namespace string) error {
	if reason := badPlace(namespace, name); reason != "" || namespace == "" {
		if reason == "" {
			reason = "namespace is required"
		}
		return &FieldError{Reason: "it can't be deployed: " + reason, Class: ErrManifest}
	}
	m, scope, err := parse(sealed)
	if err != nil {
		return err
	}
	// A manifest without a namespace is deployed to the one of the release, and was
	// sealed for one that isn't known: only a difference is certain to fail.
	sealedIn := m.Metadata.Namespace
	wrongNamespace := sealedIn != "" && sealedIn != namespace
	wrongName := m.Metadata.Name != name
	if scope == Strict && (wrongNamespace || wrongName) || scope == NamespaceWide && wrongNamespace {
		return &ScopeError{Scope: scope, SealedName: m.Metadata.Name, SealedNamespace: sealedIn, Name: name, Namespace: namespace}
	}
	return nil
}

func parse(sealed []byte) (*received, Scope, error) {
	refuse := func(field, reason string) (*received, Scope, error) {
		return nil, Strict, &FieldError{Field: field, Reason: reason, Class: ErrManifest}
	}
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	// First of all: a Secret in clear text had better be called that.
	if err := yaml.Unmarshal(sealed, &head); err != nil {
		return refuse("", "it is not YAML or JSON of the form of a SealedSecret")
	}
	if head.APIVersion != apiVersion || head.Kind != kind {
		return refuse("", "it is not a "+kind+" of "+apiVersion)
	}
	if !single(sealed) {
		return refuse("", "something follows its document, which would be deployed unchecked; give one document at a time")
	}
	var m received
	if err := yaml.UnmarshalStrict(sealed, &m); err != nil {
		// The cause may quote values; the name of a field is all that is repeated.
		if found := unknownField.FindStringSubmatch(err.Error()); found != nil {
			return refuse(found[1], "there is no such field")
		}
		return refuse("", "it is not YAML or JSON of the form of a SealedSecret")
	}
	switch {
	case m.Metadata.Name == "":
		return refuse("metadata.name", "it is required")
	case m.Spec == nil:
		return refuse("spec", "it is required")
	case m.Spec.Data != nil:
		return refuse("spec.data", "controllers no longer unseal this form; seal it again")
	case len(m.Spec.EncryptedData) == 0 && len(m.Spec.Template.Data) == 0:
		return refuse("spec.encryptedData", "it holds nothing")
	}
	if reason := badPlace(m.Metadata.Namespace, m.Metadata.Name); reason != "" {
		return refuse("metadata", reason)
	}
	for _, key := range slices.Sorted(maps.Keys(m.Spec.EncryptedData)) {
		if len(utilvalidation.IsConfigMapKey(key)) > 0 {
			return refuse("spec.encryptedData", fmt.Sprintf("key %q must be letters, digits, '-', '_' and '.'", key))
		}
		if err := checkSealed(m.Spec.EncryptedData[key]); err != nil {
			return refuse("spec.encryptedData."+key, err.Error())
		}
	}
	scope, ok := scopeOf(m.Metadata.Annotations)
	inner, innerOK := scopeOf(m.Spec.Template.Metadata.Annotations)
	switch {
	case !ok || !innerOK:
		return refuse("metadata.annotations", `a scope annotation must be "true"; remove it for strict scope`)
	case inner != scope && inner != Strict:
		return refuse("spec.template.metadata.annotations", fmt.Sprintf("its scope %s contradicts %s of metadata.annotations, by which the controller goes", inner, scope))
	}
	return &m, scope, nil
}

// single reports whether data is one document and nothing else. What decodes it
// stops at the end of the first.
func single(data []byte) bool {
	decoder := yamlv3.NewDecoder(bytes.NewReader(data))
	var first, rest yamlv3.Node
	return decoder.Decode(&first) == nil && errors.Is(decoder.Decode(&rest), io.EOF)
}

// scopeOf reads annotations as the controller does, and is not ok if they only
// look like a scope to people.
func scopeOf(annotations map[string]string) (scope Scope, ok bool) {
	for _, s := range []Scope{ClusterWide, NamespaceWide} {
		value, found := annotations[s.annotation()]
		if found && value == "true" {
			return s, true
		}
		if found && value != "false" && value != "" {
			return Strict, false
		}
	}
	return Strict, true
}

var (
	errNotBase64 = errors.New("it is not base64; was it sealed?")
	errTooShort  = errors.New("it is too short or cut; seal it again")
)

// checkSealed looks at the shape: the length of an RSA ciphertext in two bytes, the
// ciphertext, and the value encrypted with AES-GCM.
func checkSealed(text string) error {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return errNotBase64
	}
	if len(raw) < 2 {
		return errTooShort
	}
	size := int(binary.BigEndian.Uint16(raw))
	if size < minBits/8 || len(raw) < 2+size+tagSize {
		return errTooShort
	}
	return nil
}
