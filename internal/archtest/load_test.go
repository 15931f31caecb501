package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// root is the repository, seen from this folder.
const root = "../.."

const fields = "-json=ImportPath,Name,Doc,Standard,Imports,TestImports,XTestImports,Error"

// loadRepository returns our packages of every module, and what those of the
// root module reach.
func loadRepository() (graph, error) {
	g := graph{}
	if err := list(g, root, nil, "list", "-e", "-deps", fields, "./..."); err != nil {
		return nil, err
	}
	inWorkspace, err := workspaceModules()
	if err != nil {
		return nil, err
	}
	nested, err := nestedModules()
	if err != nil {
		return nil, err
	}
	for _, dir := range nested {
		var env []string
		if !slices.Contains(inWorkspace, dir) {
			env = []string{"GOWORK=off"}
		}
		if err := list(g, dir, env, "list", "-e", fields, "./..."); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// list adds the packages that a go command prints to g.
func list(g graph, dir string, env []string, args ...string) error {
	out, err := run(dir, env, args...)
	if err != nil {
		return err
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(pkg)
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading the output of go %s: %w", strings.Join(args, " "), err)
		}
		if g[p.ImportPath] == nil {
			g[p.ImportPath] = p
		}
	}
}

func workspaceModules() ([]string, error) {
	out, err := run(root, nil, "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(out)), nil
}

// nestedModules returns the folders below the root that hold a module. It reads
// every folder, by which go test also learns that a cached result is outdated.
func nestedModules() ([]string, error) {
	top, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	var dirs []string
	err = filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := name != top && strings.HasPrefix(d.Name(), ".")
		if d.IsDir() && (hidden || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if dir := filepath.Dir(name); d.Name() == "go.mod" && dir != top {
			dirs = append(dirs, dir)
		}
		return nil
	})
	return dirs, err
}

// readSums returns the go.sum files of all modules by name.
func readSums() (map[string]string, error) {
	nested, err := nestedModules()
	if err != nil {
		return nil, err
	}
	sums := map[string]string{}
	for _, dir := range append(nested, root) {
		name := filepath.Join(dir, "go.sum")
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a module without dependencies
		}
		if err != nil {
			return nil, err
		}
		sums[name] = string(text)
	}
	return sums, nil
}

// rootBuildList returns the modules that requiring the root module brings along.
func rootBuildList() ([]string, error) {
	out, err := run(root, []string{"GOWORK=off"}, "list", "-m", "-f", "{{.Path}}", "all")
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(out)), nil
}

func run(dir string, env []string, args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s in %s: %w\n%s", strings.Join(args, " "), dir, err, stderr.Bytes())
	}
	return out, nil
}
