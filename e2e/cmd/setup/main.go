// Command setup prepares this machine for the end-to-end tests and the
// demonstration: a container engine, the cluster's node image, and the base
// images of the samples. It prints a line per step. Everything it makes is kept
// in the user's cache directory, so that running it again takes a moment.
//
// On Debian, as root, it installs what is missing (Podman, debootstrap).
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/fairlead-dev/fairlead/e2e/lab"
)

func main() {
	cache := flag.String("cache", "", "`folder` for images and layers (default: fairlead/lab in the user's cache directory)")
	clean := flag.Bool("clean", false, "instead, delete what killed processes left running, and the cache")
	install := flag.Bool("install", true, "install missing Debian packages when running as root")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, lab.Config{CacheDir: *cache, InstallPackages: *install, Progress: os.Stdout}, *clean); err != nil {
		fmt.Fprintln(os.Stderr, "setup:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, config lab.Config, clean bool) error {
	l, err := lab.New(config)
	if err != nil {
		return err
	}
	if clean {
		return l.Clean(ctx)
	}
	if err := l.Prepare(ctx); err != nil {
		return err
	}
	fmt.Println("setup: ready")
	return nil
}
