package rollout

import (
	"maps"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// maxRemembered bounds the releases of which a verifier remembers something.
const maxRemembered = 100

// memories are what verifications of a release leave to the next one of the same
// deployment, so that crashes in between count: a canary looks at its release again and
// again.
type memories struct {
	mu sync.Mutex
	of map[string]memory // by "namespace/name"
}

// memory is since which of its ends a container's count.
type memory struct {
	revision        int
	began, deployed time.Time
	restarts        map[containerKey]int32
	ends            map[containerKey]pastEnds
	at              time.Time
}

// recall returns what is remembered of a deployment, or nil.
func (m *memories) recall(rel stages.Release) *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	found, ok := m.of[rel.Namespace+"/"+rel.Name]
	if !ok || found.revision != rel.Revision || !found.began.Equal(rel.Began) || !found.deployed.Equal(rel.Deployed) {
		return nil
	}
	return &found
}

// keep remembers what a verification that went well goes by.
func (m *memories) keep(rel stages.Release, in *inspector) {
	if rel.Deployed.IsZero() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of == nil {
		m.of = map[string]memory{}
	}
	m.of[rel.Namespace+"/"+rel.Name] = memory{rel.Revision, rel.Began, rel.Deployed, in.restarts, in.ends, time.Now()}
	if len(m.of) <= maxRemembered {
		return
	}
	var oldest string
	for name, r := range m.of {
		if oldest == "" || r.at.Before(m.of[oldest].at) {
			oldest = name
		}
	}
	delete(m.of, oldest)
}

// goOn has ends count as they did when the release was looked at before.
func (in *inspector) goOn(from *memory) {
	in.restarts, in.ends = maps.Clone(from.restarts), maps.Clone(from.ends)
}
