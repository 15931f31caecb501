package sign_test

import (
	"context"
	"errors"
	"fmt"
	"log"

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
		log.Fatal(err)
	}
	defer server.Close(ctx)
	client, err := registry.New(registry.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	tag, err := name.NewTag(server.Addr() + "/team/app:v1")
	if err != nil {
		log.Fatal(err)
	}
	if err := remote.Write(tag, empty.Image); err != nil { // stands for a build
		log.Fatal(err)
	}
	img, err := client.Resolve(ctx, tag.String())
	if err != nil {
		log.Fatal(err)
	}

	pair, err := sign.GenerateKeyPair([]byte("a password from a secret store"))
	if err != nil {
		log.Fatal(err)
	}
	public, err := sign.ParsePublicKey(pair.Public)
	if err != nil {
		log.Fatal(err)
	}
	verifier, err := sign.NewVerifier(sign.VerifierConfig{Keys: []*sign.PublicKey{public}, Registry: client})
	if err != nil {
		log.Fatal(err)
	}
	_, err = verifier.VerifySignature(ctx, img)
	fmt.Println("refused before signing:", errors.Is(err, stages.ErrSignature))

	key, err := sign.LoadPrivateKey(pair.Private, []byte("a password from a secret store"))
	if err != nil {
		log.Fatal(err)
	}
	signer, err := sign.NewSigner(sign.SignerConfig{Key: key, Registry: client, Annotations: map[string]string{"commit": "4bcd50b"}})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := signer.Sign(ctx, img); err != nil {
		log.Fatal(err)
	}
	signature, err := verifier.VerifySignature(ctx, img)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("verified:", signature.KeyID == public.ID())
	// Output:
	// refused before signing: true
	// verified: true
}
