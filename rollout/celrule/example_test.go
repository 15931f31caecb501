package celrule_test

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/rollout/celrule"
)

func Example() {
	rule, err := celrule.New(celrule.Config{
		Group: "example.com", Kind: "Database",
		Ready:   "object.status.phase == 'Running'",
		Message: "'phase ' + object.status.phase",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	object := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"phase": "Running"}}}
	state, message := rule.Check(object)
	fmt.Println(state == rollout.StateReady, message)
	// Output: true phase Running
}

func ExampleNew_invalid() {
	_, err := celrule.New(celrule.Config{Kind: "Database", Ready: "object.status.replicas"})
	fmt.Println(err)
	_, err = celrule.New(celrule.Config{Kind: "Database", Ready: "size('abc')"})
	fmt.Println(err != nil)
	// Output:
	// <nil>
	// true
}
