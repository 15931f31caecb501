package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// requireProgram makes sure that program is there, installing packages if the
// configuration allows it and this machine can.
func (l *Lab) requireProgram(ctx context.Context, program string, packages ...string) error {
	if _, err := exec.LookPath(program); err == nil {
		return nil
	}
	release, err := readOSRelease()
	if err != nil {
		return err
	}
	hint := "apt-get install --no-install-recommends " + strings.Join(packages, " ")
	switch {
	case !release.debian():
		return fmt.Errorf("lab: %s is missing, and can only be installed automatically on Debian, not on %s", program, release.name)
	case os.Geteuid() != 0:
		return fmt.Errorf("lab: %s is missing; install it as root: %s", program, hint)
	case !l.install:
		return fmt.Errorf("lab: %s is missing; install it (%s), or set Config.InstallPackages", program, hint)
	}
	return l.locked(ctx, "apt", func() error {
		return l.progress.step("installing Debian packages "+strings.Join(packages, ", "), 30*time.Second, func() error {
			return aptInstall(ctx, packages)
		})
	})
}

func aptInstall(ctx context.Context, packages []string) error {
	if _, err := run(ctx, "apt-get", "update", "-q"); err != nil {
		return fmt.Errorf("lab: refresh the package lists: %w", err)
	}
	install := command{
		args: append([]string{"apt-get", "install", "-q", "-y", "--no-install-recommends"}, packages...),
		env:  []string{"DEBIAN_FRONTEND=noninteractive"},
	}
	if _, err := install.run(ctx); err != nil {
		return fmt.Errorf("lab: install %s: %w", strings.Join(packages, ", "), err)
	}
	return nil
}
