package releaseset_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx/releaseset"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

// chart is a deployer with a chart of a megabyte in memory.
type chart struct {
	stagestest.Deployer
	files []byte
}

const chartSize = 1 << 20

// manySet is a set of layers of ten, each needing the one before. Charts are loaded
// when they are opened, as in practice.
func manySet(t testing.TB, size int, opened func()) *releaseset.Set {
	t.Helper()
	clearance, err := stages.BypassGates(stagestest.Image("v1"), "test")
	require.NoError(t, err)
	members := make([]releaseset.Member, size)
	for i := range members {
		members[i] = releaseset.Member{
			Namespace: "ns", Name: fmt.Sprintf("m%d", i), Clearance: clearance,
			Open: func(context.Context) (releaseset.Deployer, error) {
				opened()
				return &chart{files: make([]byte, chartSize)}, nil
			},
		}
		if i >= 10 {
			members[i].Needs = []string{fmt.Sprintf("m%d", i-10)}
		}
	}
	set, err := releaseset.New(releaseset.Config{Members: members})
	require.NoError(t, err)
	return set
}

// TestMemoryIsFlat shows that what is held does not grow with the charts: 200 of
// them would be 200 MiB.
func TestMemoryIsFlat(t *testing.T) {
	var mu sync.Mutex
	var most uint64
	set := manySet(t, 200, func() {
		mu.Lock()
		defer mu.Unlock()
		most = max(most, heap())
	})
	before := heap()
	_, err := set.Apply(t.Context(), releaseset.ApplyRequest{Run: "run"})
	require.NoError(t, err)
	require.Less(t, most-min(most, before), uint64(2*releaseset.DefaultConcurrency*chartSize))
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkApply200(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		set := manySet(b, 200, func() {})
		if _, err := set.Apply(b.Context(), releaseset.ApplyRequest{Run: "run"}); err != nil {
			b.Fatal(err)
		}
	}
}
