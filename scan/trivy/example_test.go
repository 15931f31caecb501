package trivy_test

import (
	"context"
	"log" //nolint:depguard // examples are main programs
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/fairlead-dev/fairlead/scan"
	"github.com/fairlead-dev/fairlead/scan/trivy"
	"github.com/fairlead-dev/fairlead/stages"
)

func Example() {
	caches, err := os.UserCacheDir()
	if err != nil {
		log.Fatal(err)
	}
	scanner, err := trivy.New(trivy.Config{CacheDir: filepath.Join(caches, "shop-delivery", "trivy")})
	if err != nil {
		log.Fatal(err)
	}
	defer scanner.Close()

	image, err := stages.ParseImage("registry.example/shop@sha256:" + strings.Repeat("a", 64))
	if err != nil {
		log.Fatal(err)
	}
	report, err := scanner.Scan(context.Background(), image)
	if err != nil {
		log.Fatal(err)
	}
	if err := scan.WriteTable(os.Stdout, report); err != nil {
		log.Fatal(err)
	}
}

// A machine without internet scans with a copy of the database in its own
// registry, and refuses to when nobody has renewed the copy for three days.
func ExampleNew_mirror() {
	scanner, err := trivy.New(trivy.Config{
		CacheDir:       "/var/cache/shop-delivery/trivy",
		Database:       "registry.internal:5000/mirror/trivy-db:2",
		JavaDatabase:   "registry.internal:5000/mirror/trivy-java-db:1",
		MaxDatabaseAge: 72 * time.Hour,
		Insecure:       []string{"registry.internal:5000"},
		Keychain:       authn.DefaultKeychain,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer scanner.Close()
}
