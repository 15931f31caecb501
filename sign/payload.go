package sign

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/sigstore/sigstore/pkg/signature/payload"

	"github.com/fairlead-dev/fairlead/stages"
)

// How cosign stores a signature: as a layer that is the payload, with the
// signature in an annotation.
const (
	layerType             = types.MediaType("application/vnd.dev.cosign.simplesigning.v1+json")
	signatureAnnotation   = "dev.cosignproject.cosign/signature"
	certificateAnnotation = "dev.sigstore.cosign/certificate"
)

const (
	// maxPayload bounds what is read of a payload, in bytes.
	maxPayload = 256 << 10
	// maxSignatures bounds how many signatures of one image are looked at; it is
	// cosign's own limit.
	maxSignatures = 1000
)

// signatureTag returns where cosign keeps the signatures of img.
func signatureTag(img stages.Image) string {
	return img.Repository() + ":" + strings.Replace(img.Digest().String(), ":", "-", 1) + ".sig"
}

// newPayload returns the claim that is signed: that img has its digest, under
// its repository's name, with annotations.
func newPayload(img stages.Image, annotations map[string]string) ([]byte, error) {
	digest, err := name.NewDigest(img.String())
	if err != nil {
		return nil, fmt.Errorf("%w: image %s: %w", stages.ErrInvalid, img, err)
	}
	claim := payload.Cosign{Image: digest}
	if len(annotations) > 0 {
		claim.Annotations = make(map[string]any, len(annotations))
		for k, v := range annotations {
			claim.Annotations[k] = v
		}
	}
	return json.Marshal(claim)
}

// checkPayload returns why a claim that was signed is not about img and does
// not have the annotations, or "".
func checkPayload(content []byte, img stages.Image, annotations map[string]string) (why string) {
	var claim payload.SimpleContainerImage
	if err := json.Unmarshal(content, &claim); err != nil {
		return "the signed payload is not a cosign claim"
	}
	if claim.Critical.Type != payload.CosignSignatureType {
		return fmt.Sprintf("the signed payload is of type %.60q, not %q", claim.Critical.Type, payload.CosignSignatureType)
	}
	if got := claim.Critical.Image.DockerManifestDigest; got != img.Digest().String() {
		return fmt.Sprintf("the signed payload is about another digest, %.71q", got)
	}
	for k, want := range annotations {
		if got, ok := claim.Optional[k]; !ok || got != want {
			return fmt.Sprintf("the signed payload does not have the annotation %s=%s", k, want)
		}
	}
	return ""
}

// signatureOf reads the signature out of a layer's annotations.
func signatureOf(layer v1.Descriptor) (sig []byte, why string) {
	text, ok := layer.Annotations[signatureAnnotation]
	switch {
	case layer.MediaType != layerType:
		return nil, fmt.Sprintf("it is of type %.100q, not a cosign signature", layer.MediaType)
	case !ok || text == "":
		return nil, "it has no signature"
	}
	sig, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, "its signature is not base64"
	}
	return sig, ""
}

// holds reports whether img has key's signature of exactly this payload.
func holds(img v1.Image, key *PublicKey, content []byte) (bool, error) {
	manifest, err := img.Manifest()
	if err != nil {
		return false, err
	}
	want, _, err := v1.SHA256(bytes.NewReader(content))
	if err != nil {
		return false, err
	}
	if len(manifest.Layers) >= maxSignatures {
		return false, fmt.Errorf("%w: there are %d signatures already, more than verifiers look at; remove old ones", stages.ErrInvalid, len(manifest.Layers))
	}
	for _, layer := range manifest.Layers {
		if layer.Digest != want {
			continue
		}
		if sig, why := signatureOf(layer); why == "" && key.verifies(sig, content) {
			return true, nil
		}
	}
	return false, nil
}

// withSignature adds a signature to those that are there, or begins with it.
func withSignature(current v1.Image, content, sig []byte) (v1.Image, error) {
	if current == nil {
		current = mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	}
	return mutate.Append(current, mutate.Addendum{
		Layer:       static.NewLayer(content, layerType),
		Annotations: map[string]string{signatureAnnotation: base64.StdEncoding.EncodeToString(sig)},
	})
}
