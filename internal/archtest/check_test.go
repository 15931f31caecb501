package archtest

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// row is one line of the architecture table.
type row struct {
	folder string
	may    []string
}

// budget bounds the third-party packages that a folder reaches. With a non-nil
// only, nothing else is allowed; otherwise never is forbidden.
type budget struct {
	folder string
	only   []string
	never  []string
}

// owner is the one folder that may name a family of third-party packages.
type owner struct {
	of     []string
	folder string
}

// edge is an import of one folder by another.
type edge struct{ from, to string }

// pkg is what the checks need to know of a package.
type pkg struct {
	ImportPath   string
	Name         string
	Doc          string
	Standard     bool
	Imports      []string
	TestImports  []string
	XTestImports []string
	Error        *struct{ Err string }
}

// graph is a set of packages by import path.
type graph map[string]*pkg

// ours returns the packages of this repository in order.
func (g graph) ours() []*pkg {
	var out []*pkg
	for _, p := range slices.Sorted(maps.Keys(g)) {
		if _, ok := folderOf(p); ok {
			out = append(out, g[p])
		}
	}
	return out
}

// chain returns the shortest import path from one package to another that hit
// accepts, or nil.
func (g graph) chain(from string, hit func(*pkg) bool) []string {
	before := map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		p := g[at]
		if p == nil {
			continue
		}
		if at != from && hit(p) {
			var steps []string
			for ; at != ""; at = before[at] {
				steps = append(steps, at)
			}
			slices.Reverse(steps)
			return steps
		}
		for _, next := range p.Imports {
			if _, seen := before[next]; !seen {
				before[next] = at
				queue = append(queue, next)
			}
		}
	}
	return nil
}

// folderOf returns the folder of an import path relative to the repository.
func folderOf(importPath string) (string, bool) {
	if importPath == module {
		return ".", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

// unitOf returns the row that covers a folder, and the folder that the row
// stands for: "stages/policy" for "stages/policy/internal/x" under "stages/*".
func unitOf(table []row, folder string) (row, string, bool) {
	var best row
	var unit string
	found := false
	for _, r := range table {
		u, ok := covers(r.folder, folder)
		if ok && (!found || moreSpecific(r.folder, best.folder)) {
			best, unit, found = r, u, true
		}
	}
	return best, unit, found
}

func covers(pattern, folder string) (unit string, ok bool) {
	if pattern == "." || folder == "." {
		return folder, pattern == folder
	}
	want, have := strings.Split(pattern, "/"), strings.Split(folder, "/")
	if len(have) < len(want) {
		return "", false
	}
	unit = path.Join(have[:len(want)]...)
	ok, err := path.Match(pattern, unit)
	return unit, ok && err == nil
}

// moreSpecific prefers more elements, then literals over wildcards.
func moreSpecific(a, b string) bool {
	if n, m := strings.Count(a, "/"), strings.Count(b, "/"); n != m {
		return n > m
	}
	return !strings.Contains(a, "*") && strings.Contains(b, "*")
}

// checkImports holds production imports against the table.
func checkImports(g graph, table []row) []string {
	var found []string
	for _, p := range g.ours() {
		folder, _ := folderOf(p.ImportPath)
		r, unit, ok := unitOf(table, folder)
		if !ok {
			found = append(found, fmt.Sprintf("folder %s has no row in the architecture table: add one, with what it may import", folder))
			continue
		}
		for _, imp := range p.Imports {
			target, isOurs := folderOf(imp)
			if !isOurs {
				continue
			}
			_, targetUnit, _ := unitOf(table, target)
			if targetUnit != unit && !slices.Contains(r.may, "...") && !slices.Contains(r.may, targetUnit) {
				found = append(found, fmt.Sprintf("%s imports %s: %s may import of ours only %v", folder, target, unit, r.may))
			}
		}
	}
	return found
}

// checkCycles reports folders that reach themselves when the imports of tests
// count too.
func checkCycles(g graph, table []row, ignored []edge) []string {
	next := map[string]map[string]bool{}
	for _, p := range g.ours() {
		folder, _ := folderOf(p.ImportPath)
		_, from, _ := unitOf(table, folder)
		if next[from] == nil {
			next[from] = map[string]bool{}
		}
		for _, imp := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if target, ok := folderOf(imp); ok {
				_, to, _ := unitOf(table, target)
				if to != from && !slices.Contains(ignored, edge{from, to}) {
					next[from][to] = true
				}
			}
		}
	}
	var found []string
	done := map[string]bool{}
	var visit func(unit string, trail []string)
	visit = func(unit string, trail []string) {
		if i := slices.Index(trail, unit); i >= 0 {
			found = append(found, "imports, those of tests included, go in a circle: "+strings.Join(append(trail[i:], unit), " → "))
			return
		}
		if done[unit] {
			return
		}
		for _, to := range slices.Sorted(maps.Keys(next[unit])) {
			visit(to, append(slices.Clone(trail), unit))
		}
		done[unit] = true
	}
	for _, unit := range slices.Sorted(maps.Keys(next)) {
		visit(unit, nil)
	}
	return found
}

// checkBudgets holds everything that a folder reaches against its budget.
func checkBudgets(g graph, table []row, budgets []budget) []string {
	var found []string
	for _, p := range g.ours() {
		folder, _ := folderOf(p.ImportPath)
		_, unit, _ := unitOf(table, folder)
		for _, b := range budgets {
			if b.folder != unit {
				continue
			}
			steps := g.chain(p.ImportPath, func(dep *pkg) bool {
				if _, isOurs := folderOf(dep.ImportPath); isOurs || dep.Standard {
					return false
				}
				if b.only != nil {
					return !under(dep.ImportPath, b.only)
				}
				return under(dep.ImportPath, b.never)
			})
			if steps != nil {
				found = append(found, fmt.Sprintf("%s is over its dependency budget: %s", folder, strings.Join(steps, " → ")))
			}
		}
	}
	return found
}

// checkOwners reports folders that name a module that another folder owns.
func checkOwners(g graph, table []row, owners []owner) []string {
	var found []string
	for _, p := range g.ours() {
		folder, _ := folderOf(p.ImportPath)
		r, unit, _ := unitOf(table, folder)
		if slices.Contains(r.may, "...") {
			continue
		}
		for _, imp := range p.Imports {
			for _, o := range owners {
				if !under(unit, []string{o.folder}) && under(imp, o.of) {
					found = append(found, fmt.Sprintf("%s imports %s, which is for %s alone", folder, imp, o.folder))
				}
			}
		}
	}
	return found
}

// checkTesting reports production code that imports the testing packages.
func checkTesting(g graph, table []row, allowed []string) []string {
	var found []string
	for _, p := range g.ours() {
		folder, _ := folderOf(p.ImportPath)
		_, unit, _ := unitOf(table, folder)
		for _, imp := range p.Imports {
			if under(imp, []string{"testing"}) && !slices.Contains(allowed, unit) {
				found = append(found, fmt.Sprintf("%s imports %s outside its tests", folder, imp))
			}
		}
	}
	return found
}

// checkDocs reports packages without a package comment, and those that don't load.
func checkDocs(g graph) []string {
	var found []string
	for _, p := range g.ours() {
		folder, _ := folderOf(p.ImportPath)
		switch {
		case p.Error != nil:
			found = append(found, fmt.Sprintf("%s does not load: %s", folder, p.Error.Err))
		case p.Name != "" && p.Doc == "":
			found = append(found, fmt.Sprintf("%s has no package comment: say what it does, what it never does, and show the smallest use", folder))
		}
	}
	return found
}

// checkModules reports forbidden modules of a build list.
func checkModules(buildList, never []string) []string {
	var found []string
	for _, m := range buildList {
		if under(m, never) {
			found = append(found, fmt.Sprintf("the root module requires %s, whose version floors would reach every user", m))
		}
	}
	return found
}

// checkSums reports banned versions whose content a go.sum file vouches for. A
// line that ends in /go.mod is only about requirements.
func checkSums(file, sums string, banned []string) []string {
	var found []string
	for line := range strings.Lines(sums) {
		for _, version := range banned {
			if strings.HasPrefix(line, version+" ") {
				found = append(found, fmt.Sprintf("%s has %s, which must never be built", file, version))
			}
		}
	}
	return found
}

// under reports whether an import path is, or is below, one of the prefixes.
func under(importPath string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool {
		return importPath == prefix || strings.HasPrefix(importPath, prefix+"/")
	})
}

func join(families ...[]string) []string { return slices.Concat(families...) }
