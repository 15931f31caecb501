package helmx

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/stages"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Whatever is sent through a rehearsal, it changes nothing.
func TestRehearsalIsDry(t *testing.T) {
	var sent []string
	r := &rehearsal{base: roundTrip(func(req *http.Request) (*http.Response, error) {
		line := req.Method + " " + req.URL.RawQuery
		if req.Body != nil {
			data, err := io.ReadAll(req.Body)
			require.NoError(t, err)
			line += " " + string(data)
		}
		sent = append(sent, line)
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("{}"))}, nil
	})}
	do := func(method, body string) error {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://x/api?a=b", bytes.NewReader([]byte(body)))
		require.NoError(t, err)
		resp, err := r.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	for _, method := range []string{"POST", "PUT", "PATCH"} {
		require.NoError(t, do(method, "x"))
	}
	require.NoError(t, do("DELETE", `{"propagationPolicy":"Background"}`))
	require.Error(t, do("DELETE", "k8s\x00protobuf"))
	require.Error(t, do("CONNECT", ""))
	assert.Equal(t, []string{
		"POST a=b&dryRun=All x", "PUT a=b&dryRun=All x", "PATCH a=b&dryRun=All x",
		`DELETE a=b {"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Background","dryRun":["All"]}`,
	}, sent)
}

func parseContent(t *testing.T, text string) map[string]any {
	t.Helper()
	var out map[string]any
	require.NoError(t, yaml.Unmarshal([]byte(text), &out))
	return out
}

func TestFieldDifferences(t *testing.T) {
	for name, c := range map[string]struct {
		from, to string
		want     []string
	}{
		"values":     {"{spec: {a: 1, b: x}}", "{spec: {a: 2, b: x}}", []string{"spec.a: 1 -> 2"}},
		"dotted":     {"{data: {app.yaml: a}}", "{data: {app.yaml: b}}", []string{`data["app.yaml"]: "a" -> "b"`}},
		"new data":   {"{}", "{data: {a: x, b: z}}", []string{`data.a:  -> "x"`, `data.b:  -> "z"`}},
		"containers": {"{spec: {containers: [{name: a, image: x}, {name: b}]}}", "{spec: {containers: [{name: b}, {name: a, image: z}]}}", []string{`spec.containers: ["a","b"] -> ["b","a"]`, `spec.containers[name=a].image: "x" -> "z"`}},
		"order":      {"{spec: {env: [{name: a}, {name: c}, {name: b}]}}", "{spec: {env: [{name: b}, {name: d}, {name: a}]}}", []string{`spec.env: ["a","b"] -> ["b","a"]`, `spec.env[name=d]:  -> {"name":"d"}`, `spec.env[name=c]: {"name":"c"} -> `}},
		"in between": {"{spec: {env: [{name: a}, {name: b}]}}", "{spec: {env: [{name: a}, {name: c}, {name: b}]}}", []string{`spec.env[name=c]:  -> {"name":"c"}`}},
		"one more":   {"{spec: {containers: [{name: a}]}}", "{spec: {containers: [{name: a}, {name: b}]}}", []string{`spec.containers[name=b]:  -> {"name":"b"}`}},
		"args":       {"{spec: {args: [a, b]}}", "{spec: {args: [a, c, d]}}", []string{`spec.args[1]: "b" -> "c"`, `spec.args[2]:  -> "d"`}},
		"gone":       {"{spec: {a: {b: 1}}}", "{spec: {}}", []string{`spec.a: {"b":1} -> `}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, d := range fieldDifferences(parseContent(t, c.from), parseContent(t, c.to)) {
				got = append(got, d.path.String()+": "+jsonText(d.from)+" -> "+jsonText(d.to))
			}
			assert.Equal(t, c.want, got)
		})
	}
}

func TestOwner(t *testing.T) {
	live := &unstructured.Unstructured{Object: parseContent(t, `
metadata:
  managedFields:
  - {manager: helm, operation: Update, fieldsType: FieldsV1, fieldsV1: {"f:spec": {"f:replicas": {}}}}
  - {manager: kubectl-edit, operation: Update, fieldsType: FieldsV1, fieldsV1: {"f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{"name":"app"}': {"f:image": {}}}}}}}}
  - {manager: mesh, operation: Apply, fieldsType: FieldsV1, fieldsV1: {"f:metadata": {"f:labels": {"f:mesh.io/on": {}}}, "f:spec": {"f:args": {}}}}
  - {manager: kube-controller-manager, operation: Update, subresource: scale, fieldsType: FieldsV1, fieldsV1: {"f:spec": {"f:replicas": {}}}}
`)}
	at := func(fields ...string) fieldPath {
		var p fieldPath
		for _, f := range fields {
			p = append(p, step{field: f})
		}
		return p
	}
	containers := at("spec", "template", "spec", "containers")
	for want, path := range map[string]fieldPath{
		"kube-controller-manager/scale": at("spec", "replicas"),
		"kubectl-edit":                  containers.to(step{key: "name", value: "app"}).to(step{field: "image"}),
		"mesh":                          at("spec", "args").to(step{index: 1}),
		"":                              containers.to(step{key: "name", value: "other"}).to(step{field: "image"}),
	} {
		assert.Equal(t, want, owner(live, path), path.String())
	}
	assert.Equal(t, "mesh", owner(live, at("metadata", "labels", "mesh.io/on")))
}

func TestCommon(t *testing.T) {
	a := parseContent(t, "{a: 1, b: [x, y], c: {d: random1}, e: [1]}")
	b := parseContent(t, "{a: 1, b: [x, y], c: {d: random2}, e: [1, 2]}")
	img := testImage
	once := common(a, b)
	assert.Equal(t, hashContent(img, once), hashContent(img, common(once, parseContent(t, "{a: 1, b: [x, y], c: {d: random3}, e: [3]}"))))
	assert.NotEqual(t, hashContent(img, once), hashContent(img, common(once, parseContent(t, "{a: 2, b: [x, y], c: {d: random3}, e: [3]}"))))
}

func FuzzPlanDigest(f *testing.F) {
	f.Add(planDigest{7, strings.Repeat("a", 64), strings.Repeat("b", 64), ""}.String())
	f.Add(planDigest{7, strings.Repeat("a", 64), strings.Repeat("b", 64), "5"}.String())
	f.Add("v1.01.x.y")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parsePlanDigest(text)
		if err != nil {
			require.ErrorIs(t, err, stages.ErrInvalid)
			return
		}
		assert.Equal(t, text, got.String(), "a digest has one form")
	})
}

func TestSecretValues(t *testing.T) {
	got := secretValues(parseContent(t, `
password: one-secret
db: {auth: {secrets: {a: two-secret}}, existingSecret: not-secret, secretName: not-secret, host: not-secret}
apiKey: three-secret
tokens: [four-secret, abc]
passwordFile: not-secret
`))
	assert.ElementsMatch(t, []string{"one-secret", "two-secret", "three-secret", "four-secret"}, got)
}

func TestVeil(t *testing.T) {
	v := newVeil([]string{"hunter2-canary\n", "pass", "ab"})
	assert.Equal(t, Redacted, v.scalar("pass"))
	assert.Equal(t, "bypass", v.scalar("bypass"), "short secrets are masked only where they are all")
	assert.Equal(t, "x"+Redacted+"y", v.scalar("xhunter2-canaryy"))
	assert.Equal(t, "ab", v.scalar("ab"))
	masked := v.tree(parseContent(t, "{metadata: {name: pass, labels: {a: pass}}, data: {a: pass}, spec: {env: [{name: pass, value: pass}]}}"), nil, "", "")
	assert.Equal(t, parseContent(t, "{metadata: {name: pass, labels: {a: pass}}, data: {a: '**REDACTED**'}, spec: {env: [{name: pass, value: '**REDACTED**'}]}}"), masked)
}

func TestImmutableWords(t *testing.T) {
	for message, want := range map[string]bool{
		"Invalid value: x: field is immutable":                                                  true,
		"Forbidden: updates to statefulset spec for fields other than 'replicas' are forbidden": true,
		"Invalid value: may not change once set":                                                true,
		"Invalid value: must be greater than zero":                                              false,
	} {
		assert.Equal(t, want, immutable(message), message)
	}
	assert.False(t, lacksRight(&metav1.Status{Code: http.StatusForbidden, Message: "exceeded quota"}))
}
