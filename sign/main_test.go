package sign_test

import (
	"fmt"
	"net/http"
	"os"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/remote"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	code := m.Run()
	// Connections that the tests' own clients keep are not leaks of ours.
	for _, transport := range []http.RoundTripper{http.DefaultTransport, remote.DefaultTransport} {
		if t, ok := transport.(*http.Transport); ok {
			t.CloseIdleConnections()
		}
	}
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
