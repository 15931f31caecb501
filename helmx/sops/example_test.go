package sops_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/fairlead-dev/fairlead/helmx/sops"
)

// The caller reads the identity from wherever it is kept; SOPS_AGE_KEY holds one in
// the form that Config takes.
func Example() {
	identity, err := os.ReadFile("testdata/keys/age1.txt")
	if err != nil {
		fmt.Println(err)
		return
	}
	d, err := sops.New(sops.Config{Age: [][]byte{identity}})
	if err != nil {
		fmt.Println(err)
		return
	}
	data, err := os.ReadFile("testdata/sealed/encrypted-regex.yaml")
	if err != nil {
		fmt.Println(err)
		return
	}
	values, err := d.Decrypt(context.Background(), "encrypted-regex.yaml", data)
	fmt.Println(len(values) > 0, err)

	data = bytes.Replace(data, []byte("app: shop"), []byte("app: shot"), 1)
	_, err = d.Decrypt(context.Background(), "encrypted-regex.yaml", data)
	fmt.Println(errors.Is(err, sops.ErrTampered))
	// Output:
	// true <nil>
	// true
}
