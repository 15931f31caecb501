package lab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// capSysResource is CAP_SYS_RESOURCE of capabilities(7): the right to raise
// resource limits and to lower an OOM score. Some sandboxes deny it.
const capSysResource = 24

// osRelease is what the lab needs of os-release(5).
type osRelease struct {
	id       string
	like     []string
	codename string
	name     string
}

// debian reports whether apt-get and debootstrap are at home here.
func (r osRelease) debian() bool {
	return r.id == "debian" || slices.Contains(r.like, "debian")
}

// readOSRelease reads /etc/os-release; a machine without one is no Debian.
func readOSRelease() (osRelease, error) {
	file, err := os.Open("/etc/os-release")
	if errors.Is(err, fs.ErrNotExist) {
		return osRelease{name: runtime.GOOS}, nil
	}
	if err != nil {
		return osRelease{}, fmt.Errorf("lab: identify this system: %w", err)
	}
	defer func() { _ = file.Close() }()
	return parseOSRelease(file)
}

// parseOSRelease reads the shell-like assignments of os-release(5). Lines it
// does not understand are skipped, as that page demands of parsers.
func parseOSRelease(r io.Reader) (osRelease, error) {
	var release osRelease
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		key, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		if !ok {
			continue
		}
		value = strings.Trim(value, `"'`)
		switch key {
		case "ID":
			release.id = value
		case "ID_LIKE":
			release.like = strings.Fields(value)
		case "VERSION_CODENAME":
			release.codename = value
		case "PRETTY_NAME":
			release.name = value
		}
	}
	if err := lines.Err(); err != nil {
		return osRelease{}, fmt.Errorf("lab: read os-release: %w", err)
	}
	return release, nil
}

// lacksSysResource reports whether nothing on this machine, containers
// included, can have CAP_SYS_RESOURCE. Kubernetes and container engines assume
// it and have to be told. Where the answer can't be read it is no.
func lacksSysResource() bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil || os.Geteuid() != 0 {
		return false
	}
	bounding, ok := boundingSet(string(status))
	return ok && bounding&(1<<capSysResource) == 0
}

// boundingSet finds the capability bounding set in the text of /proc/<pid>/status.
func boundingSet(status string) (set uint64, ok bool) {
	for line := range strings.Lines(status) {
		if value, found := strings.CutPrefix(line, "CapBnd:"); found {
			set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			return set, err == nil
		}
	}
	return 0, false
}
