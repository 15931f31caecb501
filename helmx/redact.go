package helmx

import (
	"encoding/base64"
	"regexp"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"

	"github.com/fairlead-dev/fairlead/helmx/internal/tree"
)

// Redacted stands for a secret value in plans, differences and errors.
const Redacted = "**REDACTED**"

// shortest is the length from which on a string is masked in an error: shorter
// ones would make the text unreadable and guard nothing.
const shortest = 4

// privateStrings returns the strings among values that the chart itself doesn't
// contain as a value.
func privateStrings(values map[string]any, c *chart.Chart) []string {
	public := map[string]bool{}
	var collect func(*chart.Chart)
	collect = func(c *chart.Chart) {
		tree.EachString(c.Values, func(s string) { public[s] = true })
		for _, dep := range c.Dependencies() {
			collect(dep)
		}
	}
	collect(c)
	var out []string
	tree.EachString(values, func(s string) {
		if len(s) >= shortest && !public[s] {
			out = append(out, s)
		}
	})
	return out
}

// secretStrings returns what the Secrets among objects hold, as it may be quoted
// by an API server or an admission webhook.
func secretStrings(objects []object) []string {
	var out []string
	add := func(s string) {
		if len(s) >= shortest {
			out = append(out, s)
		}
	}
	for _, obj := range objects {
		if !obj.isSecret() {
			continue
		}
		tree.EachString(obj.content["stringData"], add)
		tree.EachString(obj.content["data"], func(s string) {
			add(s)
			if raw, err := base64.StdEncoding.DecodeString(s); err == nil {
				add(string(raw))
			}
		})
	}
	return out
}

// secretName matches names of values that are secret by what they are called.
var secretName = regexp.MustCompile(`(?i)pass(word|wd|phrase)|secret|token|credential|api[-_]?key|private[-_]?key|access[-_]?key|(?:^|[-_])dsn$`)

// secretValues returns the strings among values whose own name, or that of a map
// they are in, says that they are secret. Names of objects to refer to, such as
// existingSecret or tokenName, are not.
func secretValues(values map[string]any) []string {
	var out []string
	var walk func(name string, secret bool, v any)
	walk = func(name string, secret bool, v any) {
		secret = secret || secretName.MatchString(name) && !refersTo.MatchString(name)
		switch v := v.(type) {
		case string:
			if secret && len(v) >= shortest && !refersTo.MatchString(name) {
				out = append(out, v)
			}
		case map[string]any:
			for key, item := range v {
				walk(key, secret, item)
			}
		case []any:
			for _, item := range v {
				walk("", secret, item)
			}
		}
	}
	for key, item := range values {
		walk(key, false, item)
	}
	return out
}

// refersTo matches names of values that tell where a secret is.
var refersTo = regexp.MustCompile(`(?i)^(existing|image_?pull).*|(name|ref|path|file|url|uri|type|enabled|provider|annotations|labels)s?$`)

// redact returns text without secrets, and whether it had any. Longer secrets go
// first, lest one that contains another survive in part.
func redact(text string, secrets []string) (clean string, changed bool) {
	ordered := slices.Clone(secrets)
	slices.SortFunc(ordered, func(a, b string) int { return len(b) - len(a) })
	clean = text
	for _, s := range ordered {
		clean = strings.ReplaceAll(clean, s, Redacted)
		// Go and JSON quote what an error cites.
		if quoted := strings.Trim(quoteJSON(s), `"`); quoted != s {
			clean = strings.ReplaceAll(clean, quoted, Redacted)
		}
	}
	return clean, clean != text
}
