package environment

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fairlead-dev/fairlead/stages"
)

// maxFile is the largest file that is read as a declaration.
const maxFile = 1 << 20

// LoadOptions change what a file may say. The zero value is for a file that comes
// with the source, and so may have been written by anybody who can open a pull
// request.
type LoadOptions struct {
	// AbsoluteValues allows absolute paths of values files.
	AbsoluteValues bool
}

// Load reads the declaration of environments from a YAML file. Paths of values
// files are relative to its folder, and must exist and stay within it, symbolic
// links included; the environments have them joined with the folder. Errors match
// [stages.ErrInvalid] and hold a [ConfigError], with file and line, for each
// mistake, unless the file can't be read.
func Load(path string, options LoadOptions) (*Set, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("load environments: %w", err)
	}
	declared, err := parse(path, data)
	if err != nil {
		return nil, err
	}
	if err := locateValues(path, declared, options); err != nil {
		return nil, err
	}
	return newSet(path, declared)
}

// LoadApprovals reads approvals from a YAML file: a list of approvals, each with the
// fields by, at, digest and environment, and if need be denied and note.
func LoadApprovals(path string) (Approved, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("load approvals: %w", err)
	}
	return parseApprovals(path, data)
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%w: %s is not a file of at most %d bytes", stages.ErrInvalid, path, maxFile)
	}
	return os.ReadFile(path)
}

// locateValues finds the values files. A root sees to it that a symbolic link
// leads nowhere else.
func locateValues(path string, declared []declaration, options LoadOptions) error {
	dir := filepath.Dir(path)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("load environments: open the folder of the values files: %w", err)
	}
	defer root.Close()
	c := &checker{file: path}
	for _, d := range declared {
		for i, name := range d.ValuesFiles {
			located, err := locate(root, dir, name, options)
			if err != nil {
				c.refuse(d.line("values", i), d.Name, BadFile, "%s", err)
			}
			d.ValuesFiles[i] = located
		}
	}
	return errors.Join(c.problems...)
}

func locate(root *os.Root, dir, name string, options LoadOptions) (string, error) {
	var info os.FileInfo
	var err error
	located := name
	switch absolute := filepath.IsAbs(name); {
	case absolute && !options.AbsoluteValues:
		return "", fmt.Errorf("values file %s: an absolute path is only allowed where the program says so; move it into %s", quote(name), dir)
	case absolute:
		info, err = os.Stat(name)
	case !filepath.IsLocal(name):
		return "", fmt.Errorf("values file %s is outside of %s", quote(name), dir)
	default:
		located = filepath.Join(dir, name)
		info, err = root.Stat(name)
	}
	if problem, ok := errors.AsType[*os.PathError](err); ok {
		err = problem.Err // The rest is said anyway.
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("values file %s does not exist", quote(located))
	case err != nil:
		return "", fmt.Errorf("values file %s: %w", quote(located), err)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("values file %s is not a file", quote(located))
	}
	return located, nil
}
