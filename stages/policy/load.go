package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
)

// policySet is what a gate's rules are found in and run with.
type policySet struct {
	modules      map[string]*ast.Module
	compiler     *ast.Compiler
	capabilities *ast.Capabilities
	store        storage.Store
}

// load reads, parses and compiles all policies.
func load(config Config) (*policySet, error) {
	version := ast.RegoV1
	if config.RegoV0 {
		version = ast.RegoV0
	}
	capabilities := restrict(ast.CapabilitiesForThisVersion(ast.CapabilitiesRegoVersion(version)), config.AllowHosts)
	modules, err := parse(config, ast.ParserOptions{RegoVersion: version, Capabilities: capabilities})
	if err != nil {
		return nil, err
	}
	if len(modules) == 0 {
		return nil, errors.New("there is no .rego file in Modules and Dirs; policy.Baseline() is a start")
	}
	compiler := ast.NewCompiler().WithCapabilities(capabilities).WithDefaultRegoVersion(version)
	if compiler.Compile(modules); compiler.Failed() {
		return nil, explain(compiler.Errors)
	}
	store, err := newStore(config.Data)
	if err != nil {
		return nil, err
	}
	return &policySet{modules: modules, compiler: compiler, capabilities: capabilities, store: store}, nil
}

// parse returns the modules of a config by a name that is unique among them.
func parse(config Config, options ast.ParserOptions) (map[string]*ast.Module, error) {
	modules := map[string]*ast.Module{}
	var mistakes ast.Errors
	read := func(source, shown string, files fs.FS) error {
		return fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if entry.IsDir() || path.Ext(name) != ".rego" || strings.HasSuffix(name, "_test.rego") {
				return nil
			}
			text, err := fs.ReadFile(files, name)
			if err != nil {
				return err
			}
			module, err := ast.ParseModuleWithOpts(filepath.Join(shown, name), string(text), options)
			switch parseErrors, ok := errors.AsType[ast.Errors](err); {
			case ok:
				mistakes = append(mistakes, parseErrors...)
			case err != nil:
				return fmt.Errorf("parsing %s: %w", filepath.Join(shown, name), err)
			default:
				modules[source+"/"+name] = module
			}
			return nil
		})
	}
	for i, files := range config.Modules {
		source := fmt.Sprintf("Modules[%d]", i)
		if files == nil {
			return nil, fmt.Errorf("%s is nil", source)
		}
		if err := read(source, "", files); err != nil {
			return nil, fmt.Errorf("reading %s: %w", source, err)
		}
	}
	for i, dir := range config.Dirs {
		if err := read(fmt.Sprintf("Dirs[%d]", i), dir, os.DirFS(dir)); err != nil {
			return nil, fmt.Errorf("reading policies in %s: %w", dir, err)
		}
	}
	if len(mistakes) > 0 {
		return nil, explain(mistakes)
	}
	return modules, nil
}

// networkBuiltins reach hosts; processBuiltins show the process and its
// environment to a policy.
var (
	networkBuiltins = []string{"http.send", "net.lookup_ip_addr"}
	processBuiltins = []string{"opa.runtime"}
)

// restrict takes the built-in functions away that a policy has no business with.
func restrict(capabilities *ast.Capabilities, hosts []string) *ast.Capabilities {
	removed := processBuiltins
	if len(hosts) == 0 {
		removed = slices.Concat(networkBuiltins, processBuiltins)
	}
	capabilities.Builtins = slices.DeleteFunc(slices.Clone(capabilities.Builtins), func(b *ast.Builtin) bool {
		return slices.Contains(removed, b.Name)
	})
	// Nil would allow every host, for schemas too.
	capabilities.AllowNet = append([]string{}, hosts...)
	return capabilities
}

// explain adds what to do to mistakes that a policy written for other tools has.
func explain(mistakes ast.Errors) error {
	text := mistakes.Error()
	for _, builtin := range networkBuiltins {
		if strings.Contains(text, "undefined function "+builtin) {
			return fmt.Errorf("%w\n%s is off unless Config.AllowHosts names the hosts it may reach", mistakes, builtin)
		}
	}
	if strings.Contains(text, "`if` keyword is required") || strings.Contains(text, "`contains` keyword is required") {
		return fmt.Errorf("%w\npolicies from before OPA 1.0 need Config.RegoV0, or `opa fmt --write --v0-v1`", mistakes)
	}
	return mistakes
}

// newStore returns a store that holds a copy of data as JSON would hold it.
func newStore(data map[string]any) (storage.Store, error) {
	text, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("data can't be represented in JSON: %w", err)
	}
	document := map[string]any{}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&document); err != nil {
		return nil, fmt.Errorf("data can't be read back from JSON: %w", err)
	}
	return inmem.NewFromObjectWithOpts(document, inmem.OptRoundTripOnWrite(false)), nil
}
