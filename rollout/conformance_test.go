package rollout

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

func TestVerifierConforms(t *testing.T) {
	stagestest.TestVerifier(t, func(t *testing.T) stagestest.VerifierHarness {
		d, _, updated, _, newPod := upgrade()
		bad := deployment(pinnedTo(digestA), 1)
		bad.Name, bad.UID = "bad", "bad"
		badSet := replicaSet(bad, 2, bad.Spec.Template)
		badPod := podOf(badSet, "ReplicaSet", "bad-2-x", bad.Spec.Template)
		l := newLab(t, complete(d), updated, as(newPod, ready(pinnedTo(digestA))), bad, badSet, as(badPod, crashed(1, "Error", 1)))
		l.config.Timeout = 20 * time.Second
		good := release(t)
		broken := release(t, stages.Object{APIVersion: "apps/v1", Kind: "Deployment", Name: "bad"})
		return stagestest.VerifierHarness{Verifier: l.verifier(), Good: good, Bad: broken}
	})
}

// apiServer answers discovery and one Service, and refuses to show a Secret.
func apiServer(t *testing.T) *rest.Config {
	t.Helper()
	answer := func(status int, body any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			assert.NoError(t, json.NewEncoder(w).Encode(body))
		}
	}
	refuse := func(status int, reason metav1.StatusReason) http.HandlerFunc {
		return answer(status, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: int32(status), Reason: reason})
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v1", answer(http.StatusOK, metav1.APIResourceList{GroupVersion: "v1", APIResources: []metav1.APIResource{
		{Name: "services", Kind: "Service", Namespaced: true}, {Name: "secrets", Kind: "Secret", Namespaced: true},
	}}))
	mux.HandleFunc("/api/v1/namespaces/shop/services/shop", answer(http.StatusOK, metav1.PartialObjectMetadata{
		TypeMeta: metav1.TypeMeta{Kind: "PartialObjectMetadata", APIVersion: "meta.k8s.io/v1"}, ObjectMeta: metav1.ObjectMeta{Name: "shop"},
	}))
	mux.HandleFunc("/api/v1/namespaces/shop/secrets/shop", refuse(http.StatusForbidden, metav1.StatusReasonForbidden))
	mux.HandleFunc("/", refuse(http.StatusNotFound, metav1.StatusReasonNotFound))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return &rest.Config{Host: server.URL}
}

func TestOtherObjects(t *testing.T) {
	v, err := New(Config{REST: apiServer(t), AllowUnused: true})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, v.Close()) })
	service := stages.Object{APIVersion: "v1", Kind: "Service", Name: "shop"}
	secret := stages.Object{APIVersion: "v1", Kind: "Secret", Namespace: ns, Name: "shop"}

	verified, err := v.Verify(t.Context(), release(t, service, secret))
	require.NoError(t, err)
	assert.Equal(t, "1 other objects exist; not allowed to look at Secret shop/shop; not known whether ready, for want of the verbs list and watch: Service shop/shop", verified.Checks[0].Message)

	for _, absent := range []stages.Object{
		{APIVersion: "v1", Kind: "Service", Namespace: ns, Name: "gone"},
		{APIVersion: "v1", Kind: "ConfigMap", Name: "gone"},
	} {
		_, err = v.Verify(t.Context(), release(t, service, absent))
		var f *Failure
		require.ErrorAs(t, err, &f)
		assert.Equal(t, Missing, f.Cause)
		assert.Equal(t, absent, f.Workload)
		assert.Contains(t, f.Error(), "release shop/shop: "+absent.String())
	}
}
