package sealedsecrets_test

import (
	"fmt"
	"os"

	"github.com/fairlead-dev/fairlead/helmx/sealedsecrets"
)

// A Secret is sealed without a cluster, and can't be deployed elsewhere.
func Example() {
	certificate, err := os.ReadFile("testdata/controller.crt")
	if err != nil {
		fmt.Println(err)
		return
	}
	manifest, err := sealedsecrets.Seal(certificate, sealedsecrets.Secret{
		Name:      "shop",
		Namespace: "prod",
		Data:      map[string][]byte{"password": []byte("correct horse")},
	}, sealedsecrets.Strict)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(sealedsecrets.Validate(manifest, "shop", "prod"))
	fmt.Println(sealedsecrets.Validate(manifest, "shop", "staging"))
	// Output:
	// <nil>
	// SealedSecret is sealed for another place: its strict scope allows prod/shop only, not staging/shop; seal it again for that place, or with a wider scope
}
