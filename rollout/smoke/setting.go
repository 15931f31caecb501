package smoke

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/stages"
)

// Setting is where, and as what, the pods of a smoke test run. Its zero value suits
// a namespace that enforces the restricted Pod Security level.
type Setting struct {
	// Namespace is where the pods run. Default the release's.
	Namespace string
	// User is the numeric user that the program runs as. Default 65532.
	User int64
	// Resources are the containers' requests and limits. Default 10m and 32Mi, up to
	// 500m and 64Mi.
	Resources *corev1.ResourceRequirements
	// ServiceAccount and ImagePullSecrets are the pods'; no token is mounted.
	ServiceAccount   string
	ImagePullSecrets []string
	// Labels are added to what is made, for network policies and the like.
	Labels map[string]string
	// CleanupTimeout bounds the deletion of what was made, which happens even after
	// cancellation. Default 15 seconds.
	CleanupTimeout time.Duration
	// Rules override how causes are treated; see [rollout.DefaultRule].
	Rules map[rollout.Cause]rollout.Rule
}

// complete returns a checked copy in which nothing is missing.
func (s Setting) complete() (Setting, error) {
	s.CleanupTimeout = cmp.Or(s.CleanupTimeout, DefaultCleanupTimeout)
	s.User = cmp.Or(s.User, int64(DefaultUser))
	s.Labels, s.ImagePullSecrets = maps.Clone(s.Labels), slices.Clone(s.ImagePullSecrets)
	switch {
	case s.CleanupTimeout < 0:
		return s, fmt.Errorf("%w: CleanupTimeout can't be negative", stages.ErrInvalid)
	case s.User < 1:
		return s, fmt.Errorf("%w: User must be a numeric user other than root", stages.ErrInvalid)
	}
	return s, nil
}
