package archtest

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fake builds a graph from packages; a path that begins with "/" is ours.
func fake(pkgs ...pkg) graph {
	own := func(paths []string) []string {
		var out []string
		for _, p := range paths {
			out = append(out, expand(p))
		}
		return out
	}
	g := graph{}
	for _, p := range pkgs {
		p.ImportPath = expand(p.ImportPath)
		p.Imports, p.TestImports, p.XTestImports = own(p.Imports), own(p.TestImports), own(p.XTestImports)
		g[p.ImportPath] = &p
	}
	return g
}

func expand(p string) string {
	if p != "" && p[0] == '/' {
		return module + p
	}
	return p
}

func TestImportRulesCanFail(t *testing.T) {
	for name, tc := range map[string]struct {
		pkg  pkg
		want string
	}{
		"adapter imports the contract": {pkg: pkg{ImportPath: "/helmx", Imports: []string{"/stages"}}},
		"own subfolder":                {pkg: pkg{ImportPath: "/helmx/internal/lock", Imports: []string{"/helmx/internal/clock"}}},
		"examples import everything":   {pkg: pkg{ImportPath: "/examples/quickstart", Imports: []string{"/helmx", "/pipeline"}}},
		"engine seals":                 {pkg: pkg{ImportPath: "/pipeline", Imports: []string{"/internal/seal"}}},
		"longer row decides":           {pkg: pkg{ImportPath: "/scan/trivy", Imports: []string{"/scan"}}},
		"adapter imports adapter":      {pkg: pkg{ImportPath: "/helmx", Imports: []string{"/rollout"}}, want: "helmx imports rollout"},
		"adapter imports engine":       {pkg: pkg{ImportPath: "/sign", Imports: []string{"/pipeline"}}, want: "sign imports pipeline"},
		"adapter seals":                {pkg: pkg{ImportPath: "/helmx", Imports: []string{"/internal/seal"}}, want: "helmx imports internal/seal"},
		"one stage imports another":    {pkg: pkg{ImportPath: "/stages/policy", Imports: []string{"/stages/buildkit"}}, want: "stages/policy imports stages/buildkit"},
		"contract imports its suite":   {pkg: pkg{ImportPath: "/stages", Imports: []string{"/stages/stagestest"}}, want: "stages imports stages/stagestest"},
		"parent imports nested module": {pkg: pkg{ImportPath: "/scan", Imports: []string{"/scan/trivy"}}, want: "scan imports scan/trivy"},
		"below a folder counts":        {pkg: pkg{ImportPath: "/rollout/internal/x", Imports: []string{"/helmx/internal/y"}}, want: "rollout/internal/x imports helmx/internal/y"},
		"unknown folder":               {pkg: pkg{ImportPath: "/utils"}, want: "folder utils has no row"},
		"unknown target":               {pkg: pkg{ImportPath: "/sign", Imports: []string{"/utils"}}, want: "sign imports utils"},
	} {
		t.Run(name, func(t *testing.T) {
			expect(t, checkImports(fake(tc.pkg), imports), tc.want)
		})
	}
}

func TestCycleRuleCanFail(t *testing.T) {
	helmx := pkg{ImportPath: "/helmx", XTestImports: []string{"/rollout"}}
	rollout := pkg{ImportPath: "/rollout", TestImports: []string{"/helmx"}}
	expect(t, checkCycles(fake(helmx), imports, nil), "")
	expect(t, checkCycles(fake(helmx, rollout), imports, nil), "helmx → rollout → helmx")

	contract := pkg{ImportPath: "/stages", XTestImports: []string{"/stages/stagestest"}}
	suite := pkg{ImportPath: "/stages/stagestest", Imports: []string{"/stages"}}
	expect(t, checkCycles(fake(contract, suite), imports, nil), "stages → stages/stagestest → stages")
	expect(t, checkCycles(fake(contract, suite), imports, testEdgesIgnored), "")
}

func TestBudgetsCanFail(t *testing.T) {
	std := pkg{ImportPath: "net/http", Standard: true}
	other := pkg{ImportPath: "golang.org/x/other"}
	backoff := pkg{ImportPath: "github.com/cenkalti/backoff/v5"}
	engine := pkg{ImportPath: "github.com/open-policy-agent/opa/v1/rego"}
	indirect := pkg{ImportPath: "example.com/indirect", Imports: []string{engine.ImportPath}}

	for name, tc := range map[string]struct {
		pkg  pkg
		want string
	}{
		"standard library":        {pkg: pkg{ImportPath: "/stages", Imports: []string{"net/http"}}},
		"anything else":           {pkg: pkg{ImportPath: "/stages", Imports: []string{other.ImportPath}}, want: "stages is over its dependency budget"},
		"the one module allowed":  {pkg: pkg{ImportPath: "/pipeline", Imports: []string{backoff.ImportPath}}},
		"a second module":         {pkg: pkg{ImportPath: "/pipeline", Imports: []string{other.ImportPath}}, want: "pipeline is over its dependency budget"},
		"harmless dependency":     {pkg: pkg{ImportPath: "/helmx", Imports: []string{other.ImportPath}}},
		"forbidden, indirectly":   {pkg: pkg{ImportPath: "/helmx", Imports: []string{indirect.ImportPath}}, want: "example.com/indirect → " + engine.ImportPath},
		"forbidden, in subfolder": {pkg: pkg{ImportPath: "/rollout/internal/x", Imports: []string{engine.ImportPath}}, want: "rollout/internal/x is over its dependency budget"},
	} {
		t.Run(name, func(t *testing.T) {
			expect(t, checkBudgets(fake(tc.pkg, std, other, backoff, engine, indirect), imports, budgets), tc.want)
		})
	}
}

func TestOwnersCanFail(t *testing.T) {
	action := []string{"helm.sh/helm/v3/pkg/action"}
	expect(t, checkOwners(fake(pkg{ImportPath: "/helmx/internal/x", Imports: action}), imports, owners), "")
	expect(t, checkOwners(fake(pkg{ImportPath: "/e2e", Imports: action}), imports, owners), "")
	expect(t, checkOwners(fake(pkg{ImportPath: "/rollout", Imports: action}), imports, owners), "rollout imports helm.sh/helm/v3/pkg/action")
	expect(t, checkOwners(fake(pkg{ImportPath: "/scan", Imports: []string{"github.com/aquasecurity/trivy/pkg/types"}}), imports, owners), "for scan/trivy alone")
}

func TestTestingRuleCanFail(t *testing.T) {
	suite := pkg{ImportPath: "/stages/stagestest", Imports: []string{"testing"}}
	expect(t, checkTesting(fake(suite), imports, testingAllowed), "")
	expect(t, checkTesting(fake(pkg{ImportPath: "/sign", TestImports: []string{"testing"}}), imports, testingAllowed), "")
	expect(t, checkTesting(fake(pkg{ImportPath: "/sign", Imports: []string{"testing/fstest"}}), imports, testingAllowed), "sign imports testing/fstest")
}

func TestDocRuleCanFail(t *testing.T) {
	expect(t, checkDocs(fake(pkg{ImportPath: "/sign", Name: "sign", Doc: "Package sign signs."})), "")
	expect(t, checkDocs(fake(pkg{ImportPath: "/sign", Name: "sign"})), "sign has no package comment")
	broken := pkg{ImportPath: "/sign"}
	broken.Error = &struct{ Err string }{"expected declaration"}
	expect(t, checkDocs(fake(broken)), "sign does not load: expected declaration")
}

func TestModuleRuleCanFail(t *testing.T) {
	expect(t, checkModules([]string{module, "github.com/aquasecurity/trivy-db"}, rootNever), "")
	expect(t, checkModules([]string{"github.com/sigstore/cosign/v2"}, rootNever), "requires github.com/sigstore/cosign/v2")
}

func TestBannedRuleCanFail(t *testing.T) {
	expect(t, checkSums("go.sum", "example.com/a v1.2.3 h1:x\nexample.com/a v1.2.3/go.mod h1:y\n", []string{"example.com/a v1.2.3"}), "go.sum has example.com/a v1.2.3")
	expect(t, checkSums("go.sum", "example.com/a v1.2.3/go.mod h1:y\nexample.com/a v1.2.30 h1:x\n", []string{"example.com/a v1.2.3"}), "")
}

// expect asserts that there is exactly one violation, containing want, or none.
func expect(t *testing.T, violations []string, want string) {
	t.Helper()
	if want == "" {
		require.Empty(t, violations)
		return
	}
	if assert.Len(t, violations, 1) {
		assert.Contains(t, violations[0], want)
	}
}
