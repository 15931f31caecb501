package preview_test

import (
	"context"
	"fmt"
	"time"

	"github.com/fairlead-dev/fairlead/helmx/preview"
)

func Example() {
	previews, err := preview.New(preview.Config{
		Client: newCluster(), // kubernetes.NewForConfig, in real life
		TTL:    24 * time.Hour,
		URL:    "https://pr-{{.Number}}.preview.example.com",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	pr := preview.PullRequest{Repository: "acme/shop", Number: 7, Branch: "feature/login", Author: "ada"}
	p, err := previews.Create(ctx, pr)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.PullRequest, p.URL)
	fmt.Println(p.Namespace)

	// On merge or close:
	fmt.Println(previews.Delete(ctx, pr))
	// Output:
	// acme/shop#7 https://pr-7.preview.example.com
	// preview-acme-shop-tohttxhhlhx57-pr-7
	// <nil>
}
