package registry_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/fairlead-dev/fairlead/registry"
)

// pushExample stands for a build that pushes an image.
func pushExample(ref string) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return err
	}
	return remote.Write(tag, empty.Image)
}

// A registry in one line, and an image pinned in it.
func Example() {
	ctx := context.Background()
	server, err := registry.Serve(ctx, registry.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = server.Close(ctx) }()
	if err := pushExample(server.Addr() + "/team/app:v1"); err != nil {
		fmt.Println(err)
		return
	}

	client, err := registry.New(registry.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()
	img, err := client.Resolve(ctx, server.Addr()+"/team/app:v1")
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := client.Tag(ctx, img, "stable"); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(strings.TrimPrefix(img.Repository(), server.Addr()), img.Digest().Short())
	// Output: /team/app 732112270d7e
}

// What belongs to an image travels with it.
func ExampleClient_Attach() {
	ctx := context.Background()
	server, err := registry.Serve(ctx, registry.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = server.Close(ctx) }()
	if err := pushExample(server.Addr() + "/team/app:v1"); err != nil {
		fmt.Println(err)
		return
	}
	client, err := registry.New(registry.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()
	img, err := client.Resolve(ctx, server.Addr()+"/team/app:v1")
	if err != nil {
		fmt.Println(err)
		return
	}

	_, err = client.Attach(ctx, img, registry.Artifact{
		Type:  "application/spdx+json",
		Files: []registry.File{{MediaType: "application/spdx+json", Content: []byte(`{"spdxVersion":"SPDX-2.3"}`)}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	mirrored, err := client.Copy(ctx, img, server.Addr()+"/mirror/app", registry.CopyOptions{Attached: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	referrers, err := client.Referrers(ctx, mirrored, "")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range referrers {
		fmt.Println(r.Type)
	}
	// Output: application/spdx+json
}
