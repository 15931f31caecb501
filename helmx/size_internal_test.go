package helmx

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/storage/driver"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// The size is that of what Helm stores.
func TestRecordSizeIsHelms(t *testing.T) {
	rel := &release.Release{
		Name: "web", Namespace: "shop", Version: 1, Manifest: "kind: ConfigMap\n", Info: &release.Info{Status: release.StatusDeployed},
		Chart: &chart.Chart{Metadata: &chart.Metadata{Name: "web", Version: "1.0.0"}, Files: []*chart.File{{Name: "a", Data: []byte("text")}}},
	}
	secrets := fake.NewClientset().CoreV1().Secrets("shop")
	require.NoError(t, driver.NewSecrets(secrets).Create("record", rel))
	stored, err := secrets.Get(t.Context(), "record", metav1.GetOptions{})
	require.NoError(t, err)
	size, err := recordSize(rel)
	require.NoError(t, err)
	assert.Equal(t, len(stored.Data["release"]), size)
}
