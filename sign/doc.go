// Package sign signs container images as cosign does, with keys instead of
// identities, and verifies such signatures: what it signs, "cosign verify --key"
// accepts, and what "cosign sign --key" makes, it accepts.
//
//	key, err := sign.FromEnv(os.LookupEnv, "COSIGN_PRIVATE_KEY", "COSIGN_PASSWORD")
//	...
//	signer, err := sign.NewSigner(sign.SignerConfig{Key: key, Registry: client})
//	...
//	signature, err := signer.Sign(ctx, img)
//
// A signature is stored beside the image, under the tag sha256-<digest>.sig.
// Nothing is sent to a transparency log. The package never writes a key to the
// disk, reads no environment variable by itself, and keeps keys and passwords
// out of errors and out of everything that package fmt prints.
package sign
