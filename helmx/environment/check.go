package environment

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"
)

// maxPatterns bounds how many patterns of one kind are compared with each other.
const maxPatterns = 200

// declaration is an environment and where its parts were written.
type declaration struct {
	Environment
	// lines is empty for what is declared in Go. The key is a field, or a field and
	// an index.
	lines map[string]int
}

func at(field string, index int) string { return fmt.Sprint(field, "\x00", index) }

// line returns where the index'th entry of a field is, or the field, or the whole.
func (d declaration) line(field string, index int) int {
	for _, key := range []string{at(field, index), field, ""} {
		if n, ok := d.lines[key]; ok {
			return n
		}
	}
	return 0
}

// checker collects mistakes.
type checker struct {
	file     string
	problems []error
}

func (c *checker) refuse(line int, environment string, problem Problem, format string, args ...any) {
	e := &ConfigError{File: c.file, Environment: environment, Problem: problem, Message: fmt.Sprintf(format, args...)}
	if c.file != "" {
		e.Line = max(line, 1)
	}
	c.problems = append(c.problems, e)
}

// environment checks one environment by itself, and returns its namespace.
func (c *checker) environment(d declaration) template {
	// A name becomes a label, and part of the names of gates.
	if errs := validation.IsDNS1123Label(d.Name); len(errs) > 0 {
		c.refuse(d.line("name", 0), "", BadValue, "name %s: %s", quote(d.Name), errs[0])
	}
	namespace, err := parseNamespace(d.Namespace)
	if err != nil {
		c.refuse(d.line("namespace", 0), d.Name, BadValue, "%s", err)
	}
	for _, kind := range []Kind{KindBranch, KindTag, KindPullRequest} {
		if namespace.fill != "" && namespace.fill != kind && len(d.patterns(kind)) > 0 {
			c.refuse(d.line("namespace", 0), d.Name, BadValue, "namespace %s can't be filled in for a %s; make it an environment of its own", quote(d.Namespace), kind)
		}
	}
	if namespace.fill != "" && len(d.patterns(namespace.fill)) == 0 {
		c.refuse(d.line("namespace", 0), d.Name, BadValue, "namespace %s is for a %s, and no pattern takes one", quote(d.Namespace), namespace.fill)
	}
	if len(d.Branches)+len(d.Tags)+len(d.PullRequests) == 0 && d.PromotesFrom == "" {
		c.refuse(d.line("", 0), d.Name, BadValue, "nothing is ever delivered here; give branches, tags, pullRequests or promotesFrom")
	}
	c.list(d, "gates", d.Gates)
	c.list(d, "values", d.ValuesFiles)
	c.list(d, "approvals.from", d.Approvals.From)
	c.approvals(d)
	return namespace
}

func (c *checker) list(d declaration, field string, list []string) {
	for i, entry := range list {
		switch {
		case entry == "":
			c.refuse(d.line(field, i), d.Name, BadValue, "%s has an empty entry", field)
		case slices.Contains(list[:i], entry):
			c.refuse(d.line(field, i), d.Name, Duplicate, "%s names %s twice", field, quote(entry))
		}
	}
}

func (c *checker) approvals(d declaration) {
	a := d.Approvals
	switch {
	case a.Required < 0:
		c.refuse(d.line("approvals.required", 0), d.Name, BadValue, "approvals: required is %d, which is negative", a.Required)
	case a.Within < 0:
		c.refuse(d.line("approvals.within", 0), d.Name, BadValue, "approvals: within is %s, which is negative", a.Within)
	case a.Required == 0 && (len(a.From) > 0 || a.Within > 0):
		c.refuse(d.line("approvals", 0), d.Name, BadValue, "approvals: required is missing; say how many of them must agree")
	case a.Required > len(a.From):
		c.refuse(d.line("approvals", 0), d.Name, BadValue, "approvals: %d are required, and %d are named in from", a.Required, len(a.From))
	}
}

func (c *checker) names(declared []declaration) {
	for i, d := range declared {
		if j := slices.IndexFunc(declared[:i], func(o declaration) bool { return o.Name == d.Name }); j >= 0 && d.Name != "" {
			c.refuse(d.line("name", 0), d.Name, Duplicate, "the name is taken%s", c.where(declared[j].line("name", 0)))
		}
	}
}

// promotions checks that every chain of promotions begins somewhere.
func (c *checker) promotions(declared []declaration) {
	from := map[string]string{}
	for _, d := range declared {
		from[d.Name] = d.PromotesFrom
	}
	for _, d := range declared {
		if d.PromotesFrom == "" {
			continue
		}
		if _, known := from[d.PromotesFrom]; !known {
			c.refuse(d.line("promotesFrom", 0), d.Name, BadValue, "promotesFrom: there is no environment %s", quote(d.PromotesFrom))
			continue
		}
		steps := 0
		for at := d.PromotesFrom; at != "" && steps <= len(declared); at = from[at] {
			if at == d.Name {
				c.refuse(d.line("promotesFrom", 0), d.Name, BadValue, "promotesFrom %s leads back to where it began", quote(d.PromotesFrom))
				break
			}
			steps++
		}
	}
}

func (c *checker) sharedNamespaces(declared []declaration, namespaces []template) {
	for i, d := range declared {
		for j, o := range declared[:i] {
			if namespaces[i] == namespaces[j] && namespaces[i] != (template{}) && d.Context == o.Context {
				c.refuse(d.line("namespace", 0), d.Name, Duplicate, "environment %s%s releases to namespace %s too", quote(o.Name), c.where(o.line("namespace", 0)), quote(d.Namespace))
			}
		}
	}
}

// overlaps compares the patterns of different environments.
func (c *checker) overlaps(kind Kind, s *Set) {
	claims := s.claims[kind]
	if len(claims) > maxPatterns {
		c.refuse(claims[maxPatterns].line, "", BadPattern, "there are %d patterns for a %s, at most %d are possible", len(claims), kind, maxPatterns)
		return
	}
	for i, b := range claims {
		for _, a := range claims[:i] {
			here, there := s.environments[b.environment].Name, s.environments[a.environment].Name
			if a.environment == b.environment {
				if a.text == b.text {
					c.refuse(b.line, here, Duplicate, "pattern %s is given twice", quote(b.text))
				}
				continue
			}
			rel, witness := compare(b.pattern, a.pattern)
			switch rel {
			case disjoint, narrower, wider:
			case equal:
				c.refuse(b.line, here, Duplicate, "%s pattern %s is environment %s's already%s", kind, quote(b.text), quote(there), c.where(a.line))
			case crossing:
				c.refuse(b.line, here, Overlap, "%s pattern %s and %s of environment %s%s both match %s, and neither is the narrower one; change one of them",
					kind, quote(b.text), quote(a.text), quote(there), c.where(a.line), quote(witness))
			case unknown:
				c.refuse(b.line, here, Overlap, "%s pattern %s can't be told from %s of environment %s%s; use fewer wildcards", kind, quote(b.text), quote(a.text), quote(there), c.where(a.line))
			}
		}
	}
}

// where points to another line of the same file.
func (c *checker) where(line int) string {
	if c.file == "" {
		return ""
	}
	return fmt.Sprintf(" (line %d)", line)
}
