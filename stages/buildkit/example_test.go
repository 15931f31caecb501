package buildkit_test

import (
	"context"
	"fmt"
	"os"

	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/buildkit"
)

// A build with credentials for its registry, a secret for one of its
// instructions, and progress on the terminal.
func ExampleBuilder_Build() {
	builder, err := buildkit.New(buildkit.Config{
		Address:    buildkit.DockerEngine("unix:///var/run/docker.sock"),
		Repository: "ghcr.io/acme/shop",
		Auth: buildkit.StaticAuth(map[string]buildkit.Credentials{
			"ghcr.io": {Username: "acme-bot", Password: os.Getenv("REGISTRY_PASSWORD")},
		}),
		Secrets: map[string][]byte{"npm-token": []byte(os.Getenv("NPM_TOKEN"))},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := stages.WithProgress(context.Background(), func(p stages.Progress) { fmt.Println(p.Message) })
	img, err := builder.Build(ctx, stages.Source{Dir: ".", Tags: []string{"v1.4.2"}})
	if err != nil {
		fmt.Println(err) // such as "... Dockerfile:12: RUN npm ci failed with exit code 1: ..."
		return
	}
	fmt.Println(img)
}

func ExampleNew() {
	_, err := buildkit.New(buildkit.Config{Address: "unix:///run/buildkit/buildkitd.sock", Repository: "shop"})
	fmt.Println(err)
	// Output:
	// buildkit: invalid input: repository "shop" must begin with a registry host, such as ghcr.io/ or localhost:5000/
}
