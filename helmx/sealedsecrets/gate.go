package sealedsecrets

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/stages"
)

// Gate returns a gate that fails a plan with a SealedSecret that [Validate] refuses:
// the release would be deployed, and wait for a Secret that the controller never makes.
func Gate() stages.Gate[stages.Plan] {
	return stages.GateFunc[stages.Plan](func(ctx context.Context, plan stages.Plan) (stages.Decision, error) {
		decision := stages.Decision{Gate: "sealed secrets", Verdict: stages.Pass}
		namespace, _, _ := strings.Cut(plan.Release, "/")
		documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(plan.Manifests)))
		for ctx.Err() == nil {
			document, err := documents.Read()
			if errors.Is(err, io.EOF) {
				return decision, nil
			}
			if err == nil {
				err = refusals(document, namespace, &decision)
			}
			if err != nil {
				return stages.Decision{Gate: decision.Gate}, stages.Permanent(fmt.Errorf("sealed secrets of release %s: %w", plan.Release, err))
			}
		}
		return stages.Decision{Gate: decision.Gate}, context.Cause(ctx)
	})
}

// refusals adds what is wrong with the SealedSecrets in a document, which may be a list.
func refusals(document []byte, namespace string, decision *stages.Decision) error {
	var o struct {
		APIVersion string            `json:"apiVersion"`
		Kind       string            `json:"kind"`
		Metadata   metadata          `json:"metadata"`
		Items      []json.RawMessage `json:"items"`
	}
	if err := yaml.Unmarshal(document, &o); err != nil {
		return fmt.Errorf("%w: the plan's manifests are not those of Kubernetes objects", stages.ErrInvalid) // The cause may quote values.
	}
	for _, item := range o.Items {
		if err := refusals(item, namespace, decision); err != nil {
			return err
		}
	}
	if o.Kind != kind || !strings.HasPrefix(o.APIVersion, "bitnami.com/") {
		return nil
	}
	if o.Metadata.Namespace != "" {
		namespace = o.Metadata.Namespace
	}
	if err := Validate(document, o.Metadata.Name, namespace); err != nil {
		subject := stages.Object{APIVersion: o.APIVersion, Kind: kind, Namespace: namespace, Name: o.Metadata.Name}
		decision.Verdict = stages.Fail
		decision.Reasons = append(decision.Reasons, stages.Reason{Rule: "sealed-secret", Subject: subject.String(), Message: err.Error()})
	}
	return nil
}
