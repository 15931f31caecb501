package scan_test

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/scan"
	"github.com/fairlead-dev/fairlead/stages"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func TestParseTrivyJSON(t *testing.T) {
	text, err := os.ReadFile("testdata/trivy-v0.72.0.json")
	require.NoError(t, err)
	got, err := scan.ParseTrivyJSON(bytes.NewReader(text))
	require.NoError(t, err)

	assert.Equal(t, "trivy 0.72.0", got.Scanner)
	assert.Equal(t, "debian 12.5", got.OS)
	assert.True(t, got.Database.IsZero(), "Trivy does not write it")
	assert.Equal(t, 3, got.Packages)
	assert.Equal(t, "127.0.0.1:5000/shop", got.Image.Repository())
	require.Len(t, got.Findings, 4)
	assert.Equal(t, stages.Finding{
		ID: "CVE-2019-10744", Severity: stages.SeverityCritical, Package: "lodash", Installed: "4.17.4", Fixed: "4.17.12",
		Target: "srv/node_modules/lodash/package.json", Type: "node-pkg",
		Title: "nodejs-lodash: prototype pollution in defaultsDeep function leading to modifying properties",
		URL:   "https://avd.aquasec.com/nvd/cve-2019-10744",
	}, got.Findings[0])
	assert.Equal(t, "libc6", got.Findings[2].Package)
	assert.Equal(t, "debian 12.5", got.Findings[2].Target, "not the image's name, which is in the report already")
}

func doc(change func(map[string]any)) string {
	m := map[string]any{
		"SchemaVersion": 2, "ArtifactType": "container_image",
		"ArtifactName": "registry.example/shop@" + digestA,
		"Metadata":     map[string]any{"RepoDigests": []string{"registry.example/shop@" + digestA}},
	}
	change(m)
	text, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func finding(v map[string]any) func(map[string]any) {
	return func(m map[string]any) {
		m["Results"] = []any{map[string]any{"Target": "t", "Vulnerabilities": []any{v}}}
	}
}

func TestParseTrivyJSONSubject(t *testing.T) {
	tests := map[string]struct {
		artifact string
		digests  []string
		want     string
		err      error
	}{
		"asked by digest":                {"registry.example/shop@" + digestA, nil, "registry.example/shop@" + digestA, nil},
		"asked by tag":                   {"registry.example/shop:1", []string{"registry.example/shop@" + digestA}, "registry.example/shop@" + digestA, nil},
		"both":                           {"registry.example/shop@" + digestA, []string{"registry.example/shop@" + digestA}, "registry.example/shop@" + digestA, nil},
		"both, with a tag":               {"registry.example/shop:1@" + digestA, []string{"registry.example/shop@" + digestA}, "registry.example/shop@" + digestA, nil},
		"Docker Hub library":             {"nginx:1", []string{"nginx@" + digestA}, "docker.io/library/nginx@" + digestA, nil},
		"Docker Hub user":                {"acme/shop:1", []string{"acme/shop@" + digestA}, "docker.io/acme/shop@" + digestA, nil},
		"local registry":                 {"localhost/shop:1", []string{"localhost/shop@" + digestA}, "localhost/shop@" + digestA, nil},
		"neither":                        {"registry.example/shop:1", nil, "", stages.ErrNotPinned},
		"no name at all":                 {"", nil, "", stages.ErrInvalid},
		"answered with another digest":   {"registry.example/shop@" + digestA, []string{"registry.example/shop@" + digestB}, "", stages.ErrSubjectMismatch},
		"several that agree":             {"a.example/shop:1", []string{"a.example/shop@" + digestA, "b.example/shop@" + digestA}, "a.example/shop@" + digestA, nil},
		"several that differ":            {"a.example/shop:1", []string{"a.example/shop@" + digestA, "b.example/shop@" + digestB}, "", stages.ErrSubjectMismatch},
		"a digest that is none":          {"a.example/shop:1", []string{"a.example/shop@sha256:1"}, "", stages.ErrInvalid},
		"an archive instead of an image": {"shop.tar", nil, "", stages.ErrInvalid},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := scan.ParseTrivyJSON(strings.NewReader(doc(func(m map[string]any) {
				m["ArtifactName"] = test.artifact
				m["Metadata"] = map[string]any{"RepoDigests": test.digests}
			})))
			if test.err != nil {
				require.ErrorIs(t, err, test.err)
				assert.Zero(t, got)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, test.want, got.Image.String())
			assert.NotNil(t, got.Findings, "a report lists its findings, if none")
		})
	}
}

func TestParseTrivyJSONRefuses(t *testing.T) {
	nothing := func(map[string]any) {}
	for name, in := range map[string]string{
		"nothing":                 "",
		"null":                    "null",
		"a list":                  "[]",
		"half a document":         doc(nothing)[:40],
		"two documents":           doc(nothing) + doc(nothing),
		"a tail":                  doc(nothing) + "x",
		"another schema":          doc(func(m map[string]any) { m["SchemaVersion"] = 3 }),
		"a file system":           doc(func(m map[string]any) { m["ArtifactType"] = "filesystem" }),
		"a finding without ID":    doc(finding(map[string]any{"PkgName": "a"})),
		"one without package":     doc(finding(map[string]any{"VulnerabilityID": "CVE-1"})),
		"a severity it never has": doc(finding(map[string]any{"VulnerabilityID": "CVE-1", "PkgName": "a", "Severity": "SEVERE"})),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := scan.ParseTrivyJSON(strings.NewReader(in))
			require.ErrorIs(t, err, stages.ErrInvalid)
			assert.Zero(t, got)
		})
	}
}

func TestParseTrivyJSONMergesDuplicates(t *testing.T) {
	v := func(fixed string) map[string]any {
		return map[string]any{"VulnerabilityID": "CVE-1", "PkgName": "a", "InstalledVersion": "1", "FixedVersion": fixed}
	}
	got, err := scan.ParseTrivyJSON(strings.NewReader(doc(func(m map[string]any) {
		m["Results"] = []any{map[string]any{"Target": "t", "Vulnerabilities": []any{v("2"), v("3"), v("")}}}
	})))
	require.NoError(t, err)
	require.Len(t, got.Findings, 1)
	assert.Equal(t, "3", got.Findings[0].Fixed)
	assert.Equal(t, stages.SeverityUnknown, got.Findings[0].Severity)
}

func FuzzParseTrivyJSON(f *testing.F) {
	written, err := os.ReadFile("testdata/trivy-v0.72.0.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(written)
	f.Add([]byte(doc(finding(map[string]any{"VulnerabilityID": "CVE-1", "PkgName": "a", "Severity": "LOW"}))))
	f.Add([]byte(`{"SchemaVersion":2}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := scan.ParseTrivyJSON(bytes.NewReader(in))
		if err != nil {
			assert.Zero(t, got, "an error comes without a report")
			return
		}
		assert.False(t, got.Image.IsZero(), "a report is about an image")
		again := slices.Clone(got.Findings)
		scan.Sort(again)
		assert.Equal(t, again, got.Findings, "findings are sorted")
		for _, finding := range got.Findings {
			assert.NotEmpty(t, finding.ID)
			assert.NotEmpty(t, finding.Package)
		}
	})
}
