package rollout

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-dev/fairlead/rollout/internal/daemonset"
	"github.com/fairlead-dev/fairlead/stages"
)

// A rollback leaves the pods of a DaemonSet alone that the update had not reached: they
// are of the revision that is back, but of the generation that they were made from.
func TestDaemonSetThatWasRolledBack(t *testing.T) {
	for name, test := range map[string]struct {
		strategy appsv1.DaemonSetUpdateStrategyType
		last     string // generation of the last pod's template
		image    string
		updated  int32
		done     bool
	}{
		"one pod was replaced":    {appsv1.RollingUpdateDaemonSetStrategyType, "3", pinnedTo(digestA), 3, true},
		"none was replaced":       {appsv1.RollingUpdateDaemonSetStrategyType, "1", pinnedTo(digestA), 3, true},
		"none by hand":            {appsv1.OnDeleteDaemonSetStrategyType, "1", pinnedTo(digestA), 3, true},
		"none is updated yet":     {appsv1.RollingUpdateDaemonSetStrategyType, "1", pinnedTo(digestA), 0, false},
		"pods that were replaced": {appsv1.RollingUpdateDaemonSetStrategyType, "1", pinnedTo(digestB), 3, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				set := &appsv1.DaemonSet{
					ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "agent", UID: "agent", Generation: 3, Annotations: map[string]string{appsv1.DeprecatedTemplateGeneration: "3"}},
					Spec:       appsv1.DaemonSetSpec{Template: podTemplate(pinnedTo(digestA)), UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: test.strategy}},
					Status:     appsv1.DaemonSetStatus{ObservedGeneration: 3, DesiredNumberScheduled: 3, NumberAvailable: 3, UpdatedNumberScheduled: test.updated},
				}
				l := newLab(t, set)
				for pod, generation := range map[string]string{"agent-a": "1", "agent-b": "1", "agent-c": test.last} {
					p := labelled(podOf(set, "DaemonSet", pod, podTemplate(test.image)), daemonset.GenerationLabel, generation)
					l.write(as(labelled(p, appsv1.ControllerRevisionHashLabelKey, "one"), ready(test.image)))
				}
				r := l.begin(t.Context(), release(t, stages.Object{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "agent"}), (*Verifier).VerifyRestored)
				require.Equal(t, test.done, r.over())
				<-r.done
				if test.done {
					require.NoError(t, r.err)
				}
			})
		})
	}
}
