package celrule_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/rollout/celrule"
	"github.com/fairlead-dev/fairlead/stages"
)

func database(status map[string]any) *unstructured.Unstructured {
	o := map[string]any{"apiVersion": "example.com/v1", "kind": "Database", "spec": map[string]any{"replicas": int64(2)}}
	if status != nil {
		o["status"] = status
	}
	return &unstructured.Unstructured{Object: o}
}

func TestCheck(t *testing.T) {
	const phase = "object.status.phase == 'Running' && object.status.replicas >= object.spec.replicas"
	loop := "[1,2,3,4,5,6,7,8,9].all(a, [1,2,3,4,5,6,7,8,9].all(b, [1,2,3,4,5,6,7,8,9].all(c, [1,2,3,4,5,6,7,8,9].all(d, a+b+c+d > 0))))"
	for name, test := range map[string]struct {
		config  celrule.Config
		status  map[string]any
		state   rollout.State
		message string
	}{
		"ready":                    {celrule.Config{Ready: phase}, map[string]any{"phase": "Running", "replicas": int64(2)}, rollout.StateReady, "ready"},
		"not ready":                {celrule.Config{Ready: phase}, map[string]any{"phase": "Starting", "replicas": int64(2)}, rollout.StateWaiting, "not yet: " + phase},
		"no status yet":            {celrule.Config{Ready: phase}, nil, rollout.StateWaiting, "Ready: no such key: status"},
		"no field yet":             {celrule.Config{Ready: phase}, map[string]any{"phase": "Running"}, rollout.StateWaiting, "Ready: no such key: replicas"},
		"a number as float":        {celrule.Config{Ready: phase}, map[string]any{"phase": "Running", "replicas": 2.0}, rollout.StateReady, "ready"},
		"null for a number":        {celrule.Config{Ready: "object.status.replicas > 1"}, map[string]any{"replicas": nil}, rollout.StateWaiting, "Ready: no such overload"},
		"no truth value":           {celrule.Config{Ready: "object.status.phase"}, map[string]any{"phase": "Running"}, rollout.StateWaiting, "Ready: it came to a value of type string, expected bool"},
		"optional field":           {celrule.Config{Ready: "object.?status.?phase.orValue('') == ''"}, nil, rollout.StateReady, "ready"},
		"failed":                   {celrule.Config{Ready: phase, Failed: "object.status.phase == 'Failed'"}, map[string]any{"phase": "Failed"}, rollout.StateFailed, "object.status.phase == 'Failed'"},
		"not known to have failed": {celrule.Config{Ready: "true", Failed: "object.status.phase == 'Failed'"}, nil, rollout.StateReady, "ready"},
		"message":                  {celrule.Config{Ready: phase, Message: "'phase ' + object.status.phase"}, map[string]any{"phase": "Starting"}, rollout.StateWaiting, "phase Starting"},
		"message without a field":  {celrule.Config{Ready: "true", Message: "object.status.phase"}, nil, rollout.StateReady, "ready"},
		"too much":                 {celrule.Config{Ready: loop, CostLimit: 1000}, nil, rollout.StateFailed, "Ready: operation cancelled: actual cost limit exceeded"},
		"a text that grows":        {celrule.Config{Ready: "object.status.phase" + strings.Repeat(".replace('a', 'aaaaaaaaaaaaaaaa')", 8) + " == ''"}, map[string]any{"phase": "aaaaaaaaaaaaaaaa"}, rollout.StateFailed, "cost limit"},
		"constants that grow":      {celrule.Config{Ready: "'aaaaaaaaaaaaaaaa'" + strings.Repeat(".replace('a', 'aaaaaaaaaaaaaaaa')", 8) + " == ''"}, nil, rollout.StateFailed, "cost limit"},
		"a list that grows":        {celrule.Config{Ready: "[[1,1,1,1,1,1,1,1].map(a, [1,1,1,1,1,1,1,1].map(b, [1,1,1,1,1,1,1,1].map(c, [1,1,1,1,1,1,1,1].map(d, string([1,1,1,1].map(e, 'x')[0])))))].size() > 0"}, nil, rollout.StateFailed, "cost limit"},
		"conditions":               {celrule.Config{Ready: "object.status.conditions.exists(c, c.type == 'Synced' && c.status == 'True')"}, map[string]any{"conditions": []any{map[string]any{"type": "Synced", "status": "True"}}}, rollout.StateReady, "ready"},
	} {
		t.Run(name, func(t *testing.T) {
			test.config.Kind = "Database"
			rule, err := celrule.New(test.config)
			require.NoError(t, err)
			state, message := rule.Check(database(test.status))
			assert.Equal(t, test.state, state, message)
			assert.Contains(t, message, test.message)
		})
	}
}

func TestNewRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		config celrule.Config
		text   string
	}{
		"no kind":           {celrule.Config{Ready: "true"}, "Kind is required"},
		"no expression":     {celrule.Config{Kind: "Database"}, "Ready is required"},
		"syntax":            {celrule.Config{Kind: "Database", Ready: "object.status ="}, "Syntax error"},
		"unknown variable":  {celrule.Config{Kind: "Database", Ready: "self.status.ready"}, "undeclared reference to 'self'"},
		"unknown function":  {celrule.Config{Kind: "Database", Ready: "now() > object.x"}, "undeclared reference to 'now'"},
		"not a bool":        {celrule.Config{Kind: "Database", Ready: "1 + 1"}, "it is of type int, expected bool"},
		"failed not a bool": {celrule.Config{Kind: "Database", Ready: "true", Failed: "'no'"}, "expression Failed for Database: it is of type string"},
		"message no text":   {celrule.Config{Kind: "Database", Ready: "true", Message: "true"}, "expected string"},
		"too long":          {celrule.Config{Kind: "Database", Ready: strings.Repeat("true && ", 1000) + "true"}, "size"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := celrule.New(test.config)
			require.ErrorIs(t, err, stages.ErrInvalid)
			assert.ErrorContains(t, err, test.text)
		})
	}
}

func FuzzNew(f *testing.F) {
	f.Add("object.status.phase == 'Running'")
	f.Add("has(object.status) && object.status.conditions.all(c, c.status == 'True')")
	f.Add("object.?status.?x.orValue(1) > 0")
	f.Fuzz(func(t *testing.T, source string) {
		rule, err := celrule.New(celrule.Config{Kind: "Database", Ready: source})
		if err != nil {
			require.ErrorIs(t, err, stages.ErrInvalid)
			return
		}
		rule.Check(database(map[string]any{"phase": "Running", "conditions": []any{}}))
	})
}
