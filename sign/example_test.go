package sign_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/fairlead-dev/fairlead/registry"
	"github.com/fairlead-dev/fairlead/sign"
	"github.com/fairlead-dev/fairlead/stages"
)

func Example() {
	ctx := context.Background()
	server, err := registry.Serve(ctx, registry.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = server.Close(ctx) }()
	client, err := registry.New(registry.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()
	tag, err := name.NewTag(server.Addr() + "/team/app:v1")
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := remote.Write(tag, empty.Image); err != nil { // stands for a build
		fmt.Println(err)
		return
	}
	img, err := client.Resolve(ctx, tag.String())
	if err != nil {
		fmt.Println(err)
		return
	}

	pair, err := sign.GenerateKeyPair([]byte("a password from a secret store"))
	if err != nil {
		fmt.Println(err)
		return
	}
	public, err := sign.ParsePublicKey(pair.Public)
	if err != nil {
		fmt.Println(err)
		return
	}
	verifier, err := sign.NewVerifier(sign.VerifierConfig{Keys: []*sign.PublicKey{public}, Registry: client})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = verifier.VerifySignature(ctx, img)
	fmt.Println("refused before signing:", errors.Is(err, stages.ErrSignature))

	key, err := sign.LoadPrivateKey(pair.Private, []byte("a password from a secret store"))
	if err != nil {
		fmt.Println(err)
		return
	}
	signer, err := sign.NewSigner(sign.SignerConfig{Key: key, Registry: client, Annotations: map[string]string{"commit": "4bcd50b"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := signer.Sign(ctx, img); err != nil {
		fmt.Println(err)
		return
	}
	signature, err := verifier.VerifySignature(ctx, img)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("verified:", signature.KeyID == public.ID())
	// Output:
	// refused before signing: true
	// verified: true
}
