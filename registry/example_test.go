package registry_test

import (
	"context"
	"fmt"
	"log"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/fairlead-dev/fairlead/registry"
)

// pushExample stands for a build that pushes an image.
func pushExample(ref string) {
	tag, err := name.NewTag(ref)
	if err != nil {
		log.Fatal(err)
	}
	if err := remote.Write(tag, empty.Image); err != nil {
		log.Fatal(err)
	}
}

// A registry in one line, and an image pinned in it.
func Example() {
	ctx := context.Background()
	server, err := registry.Serve(ctx, registry.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close(ctx)
	pushExample(server.Addr() + "/team/app:v1")

	client, err := registry.New(registry.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	img, err := client.Resolve(ctx, server.Addr()+"/team/app:v1")
	if err != nil {
		log.Fatal(err)
	}
	if err := client.Tag(ctx, img, "stable"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.TrimPrefix(img.Repository(), server.Addr()), img.Digest().Short())
	// Output: /team/app 732112270d7e
}

// What belongs to an image travels with it.
func ExampleClient_Attach() {
	ctx := context.Background()
	server, err := registry.Serve(ctx, registry.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close(ctx)
	pushExample(server.Addr() + "/team/app:v1")
	client, err := registry.New(registry.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	img, err := client.Resolve(ctx, server.Addr()+"/team/app:v1")
	if err != nil {
		log.Fatal(err)
	}

	_, err = client.Attach(ctx, img, registry.Artifact{
		Type:  "application/spdx+json",
		Files: []registry.File{{MediaType: "application/spdx+json", Content: []byte(`{"spdxVersion":"SPDX-2.3"}`)}},
	})
	if err != nil {
		log.Fatal(err)
	}
	mirrored, err := client.Copy(ctx, img, server.Addr()+"/mirror/app", registry.CopyOptions{Attached: true})
	if err != nil {
		log.Fatal(err)
	}
	referrers, err := client.Referrers(ctx, mirrored, "")
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range referrers {
		fmt.Println(r.Type)
	}
	// Output: application/spdx+json
}
