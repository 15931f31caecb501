package helmx

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/resource"

	"github.com/fairlead-dev/fairlead/helmx/internal/tree"
	"github.com/fairlead-dev/fairlead/stages"
)

// freeze finds the fields that can't be changed in place: those that the server
// doesn't mind in a new object. Only where it may not be asked for one, the words
// of its refusal have to do.
func (t *trial) freeze(status *metav1.Status) error {
	anew, err := t.anew()
	if err != nil {
		return err
	}
	minded := map[string]bool{}
	certain := anew == nil || anew.Code == http.StatusUnprocessableEntity
	if anew != nil {
		for _, cause := range causes(anew) {
			minded[cause.Field] = true
		}
	}
	for _, cause := range causes(status) {
		if minded[cause.Field] || !certain && !immutable(cause.Message) {
			continue
		}
		if !slices.Contains(t.frozen, cause.Field) {
			t.frozen = append(t.frozen, cause.Field)
		}
	}
	if len(t.frozen) > 0 {
		t.action = stages.Recreate
	}
	return nil
}

// anew tries to make the object under another name. It returns the refusal, nil if
// there is none.
func (t *trial) anew() (*metav1.Status, error) {
	obj := &unstructured.Unstructured{Object: tree.Clone(t.object.content)}
	if t.object.id.Namespace != "" {
		obj.SetNamespace(t.object.id.Namespace)
	}
	const longest = 40 // The server adds to it, and names of Services are short.
	obj.SetName("")
	obj.SetGenerateName(t.object.id.Name[:min(len(t.object.id.Name), longest)] + "-")
	unstructured.RemoveNestedField(obj.Object, "metadata", "name")
	helper := resource.NewHelper(t.target.Client, t.target.Mapping).WithFieldManager(fieldManager)
	_, err := helper.Create(t.object.id.Namespace, false, obj)
	if t.s.ctx.Err() != nil {
		return nil, t.s.explain(t.s.ctx.Err())
	}
	if status := t.wire.wrote.refused(); status != nil {
		return status, nil
	}
	if err != nil {
		return nil, t.s.explain(fmt.Errorf("try %s anew: %w", t.object.id, err))
	}
	return nil, nil
}

func immutable(message string) bool {
	for _, words := range []string{"immutable", "may not change", "are forbidden", "cannot change", "may not be changed", "must not be changed"} {
		if strings.Contains(message, words) {
			return true
		}
	}
	return false
}
