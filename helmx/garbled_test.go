package helmx_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestRestoreTellsNoAnswerFromARefusal: what became of the restore is not known then.
func TestRestoreTellsNoAnswerFromARefusal(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter){
		"a proxy that does not reach the API server": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(http.StatusBadGateway)
			w.Write([]byte("<html>502</html>")) //nolint:errcheck // The client may be gone.
		},
		"a proxy that is overloaded": func(w http.ResponseWriter) { http.Error(w, "slow down", http.StatusTooManyRequests) },
		"an answer that ends half way": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "100")
			w.Write([]byte(`{"kind":`)) //nolint:errcheck // The client may be gone.
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t, "shop")
			d := open(t, digestConfig(a))
			deploy(t, d, "run-1", "a")
			cp := checkpoint(t, d, "run-2")
			deploy(t, d, "run-2", "b")
			a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodPatch {
					return false
				}
				answer(w)
				return true
			})
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			r, err := d.Restore(ctx, "run-2", cp)
			require.ErrorIs(t, err, context.DeadlineExceeded, r.Message)
			var failure *helmx.APIError
			require.ErrorAs(t, err, &failure)
			assert.Equal(t, helmx.Unavailable, failure.Reason)
			assert.False(t, stages.IsPermanent(err))

			var once sync.Once
			a.onRequest(func(w http.ResponseWriter, r *http.Request) (answered bool) {
				if r.Method == http.MethodPatch {
					once.Do(func() { answer(w); answered = true })
				}
				return answered
			})
			assert.Equal(t, stages.Restored, restore(t, d, "run-2", cp).Outcome, "it is tried again")
			assert.Equal(t, image("a").String(), runningImage(t, a))
		})
	}
}

// TestRestoreOfARecordThatCannotBeRead ends in an outcome, where Helm's driver panics.
func TestRestoreOfARecordThatCannotBeRead(t *testing.T) {
	a := newAPIServer(t, "shop")
	d := open(t, digestConfig(a))
	deploy(t, d, "run-1", "a")
	cp := checkpoint(t, d, "run-2")
	deploy(t, d, "run-2", "b")
	a.onRequest(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasPrefix(r.URL.Path, recordPath) {
			return false
		}
		reply(w, 200, content{"apiVersion": "v1", "kind": "Secret", "metadata": content{"name": "x"}})
		return true
	})
	r := restore(t, d, "run-2", cp)
	assert.Equal(t, stages.Diverged, r.Outcome)
	assert.Contains(t, r.Message, "release record sh.helm.release.v1.web.v1 can't be read")
}
