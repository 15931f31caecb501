package helmfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// inRoot does something with a file. The file must be in the root, and so must be
// whatever symbolic links on the way to it lead to. Errors match [fs.ErrNotExist] or
// are a funcError.
func inRoot[T any](e engine, file string, do func(root *os.Root, name string) (T, error)) (T, error) {
	var none T
	name, err := e.relative(file)
	if err != nil {
		return none, err
	}
	root, err := os.OpenRoot(e.root)
	if err != nil {
		return none, e.unreadable(err)
	}
	defer root.Close()
	out, err := do(root, name)
	if err != nil {
		return none, e.unreadable(err)
	}
	return out, nil
}

// relative returns the path of a file within the root.
func (e engine) relative(file string) (string, error) {
	root, err := filepath.Abs(e.root)
	if err != nil {
		return "", problem("find the folder %s: %v", e.root, err)
	}
	absolute, err := filepath.Abs(file)
	if err != nil {
		return "", problem("find the file %s: %v", file, err)
	}
	name, err := filepath.Rel(root, absolute)
	if err != nil || !filepath.IsLocal(name) {
		return "", problem("%s is outside of %s; put it there, or widen Config.Root", file, e.root)
	}
	return name, nil
}

func (e engine) unreadable(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return problem("%v; only what is in %s is read, see Config.Root", err, e.root)
}

// matches returns the files in the root that a pattern matches.
func (e engine) matches(pattern string) ([]string, error) {
	return inRoot(e, pattern, func(root *os.Root, name string) ([]string, error) {
		files, err := fs.Glob(root.FS(), filepath.ToSlash(name))
		for i, file := range files {
			files[i] = filepath.Join(e.root, filepath.FromSlash(file))
		}
		return files, err
	})
}

// is reports whether there is a file of which that holds.
func (e engine) is(name string, holds func(fs.FileInfo) bool) (bool, error) {
	info, err := inRoot(e, e.path(name), (*os.Root).Stat)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && holds(info), err
}
