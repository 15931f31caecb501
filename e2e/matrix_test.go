package e2e_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/stages"
)

var (
	matrixAll    = flag.Bool("matrix.all", false, "run every cell of the fault matrix, each beside the other tools")
	matrixUpdate = flag.Bool("matrix.update", false, "write the fault matrix to MATRIX.md")
	matrixOnly   = flag.String("matrix.only", "", "run only the cells whose name, reason/kind/mode, contains this")
	matrixMerge  = flag.Bool("matrix.merge", false, "keep what earlier runs have found of the other cells, so that a long run can be made in parts")
)

const (
	// matrixWidth is how many cells run at once, until fairlead's verdict; matrixTail is
	// how many more may be there for the other tools, who take longer.
	matrixWidth = 6
	matrixTail  = 12
	// patience replaces the longer times of the default rules for faults, but not
	// for controls, so that a run takes minutes.
	matrixPatience = 10 * time.Second

	taintedNode = "matrix-tainted"
	lateLabel   = "matrix.example/late"
)

// mode is how the workload with the fault comes about.
type mode string

const (
	install mode = "install"
	upgrade mode = "upgrade"
)

// matrix is what its cells share.
type matrix struct {
	world    *world
	dynamic  dynamic.Interface
	liar     *liar
	webhooks *webhooks
	helm     helmCommand
	foreign  string // an image for another platform
	node     string
	count    atomic.Int32
	turns    chan struct{} // one for each cell that runs

	mu     sync.Mutex
	closer []func(context.Context) error
	rows   []row
}

// cell is one rollout of the matrix.
type cell struct {
	fault  fault
	kind   string
	mode   mode
	rivals bool // watched by the other tools too
}

func (c cell) String() string { return fmt.Sprintf("%s/%s/%s", c.fault.name, c.kind, c.mode) }

// result is what came of a cell.
type result struct {
	cell    cell
	err     error
	failure *rollout.Failure
	// early is how an object was not up yet that was said to be ready.
	early string
	// asked is when the verifier was; the fact is when there was something to see.
	began, asked, fact, verdict time.Time
	helm, kubectl, status       opinion
}

// cells returns what there is to run. The short run has each fault and control
// once as a Deployment's upgrade, and the other kinds and installs for those
// faults that lie in different places (but upgrades only of the derived kinds); the
// other tools watch every second one.
func cells() []cell {
	var out []cell
	short := []string{"image not found", "crash with an exit code", "no such ConfigMap", "quota", "one crash, then healthy"}
	all := slices.Concat(imageFaults(), programFaults(), configFaults(), placeFaults(), admissionFaults(), ownFaults(), controls())
	for i, f := range all {
		kinds := f.kinds
		if kinds == nil {
			kinds = everything
		}
		for _, kind := range kinds {
			for _, m := range []mode{install, upgrade} {
				c := cell{fault: f, kind: kind, mode: m, rivals: *matrixAll || i%2 == 0}
				first := kind == kinds[0] && m == upgrade
				also := slices.Contains(short, f.name) && (m == upgrade || !slices.Contains(derived, kind))
				if f.only != "" && f.only != m || !*matrixAll && !first && !also {
					continue
				}
				if strings.Contains(c.String(), *matrixOnly) {
					out = append(out, c)
				}
			}
		}
	}
	return out
}

// TestFaultMatrix rolls out what can't come up, and what can although it looks
// bad for a while, and writes down who noticed what, and when.
func TestFaultMatrix(t *testing.T) {
	m := newMatrix(t)
	var group errgroup.Group
	group.SetLimit(matrixWidth + matrixTail)
	began := time.Now()
	for _, c := range cells() {
		group.Go(func() error {
			t.Run(c.String(), func(t *testing.T) { m.try(t, c) })
			return nil
		})
	}
	require.NoError(t, group.Wait())
	m.write(t, time.Since(began))
}

func newMatrix(t *testing.T) *matrix {
	t.Helper()
	w, ctx := newWorld(t), labtest.Context(t)
	m := &matrix{world: w, helm: w.helm(t, ""), turns: make(chan struct{}, matrixWidth)}
	var err error
	m.dynamic, err = dynamic.NewForConfig(w.rest)
	require.NoError(t, err)
	m.liar, err = startLiar(ctx, w.box.Registry)
	require.NoError(t, err)
	port, err := m.liar.port()
	require.NoError(t, err)
	require.NoError(t, labtest.Cluster(t).ConnectRegistry(ctx, port))
	m.webhooks, err = startWebhooks(ctx, labtest.Cluster(t).Gateway())
	require.NoError(t, err)
	m.foreign, err = pushForeign(ctx, w.box.Registry)
	require.NoError(t, err)
	nodes, err := w.kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	m.node = nodes.Items[0].Name
	// A node that nobody may use: not even a DaemonSet tolerates its taint.
	_, err = w.kube.CoreV1().Nodes().Create(ctx, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: taintedNode},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: "matrix.example/nobody", Effect: corev1.TaintEffectNoSchedule}}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	m.afterwards(func(ctx context.Context) error {
		return w.kube.CoreV1().Nodes().Delete(ctx, taintedNode, metav1.DeleteOptions{})
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for _, undo := range slices.Backward(m.closer) {
			assert.NoError(t, undo(ctx))
		}
		assert.NoError(t, m.liar.Close())
		assert.NoError(t, m.webhooks.Close())
	})
	return m
}

func (m *matrix) afterwards(undo func(context.Context) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closer = append(m.closer, undo)
}

func (m *matrix) unique() string { return fmt.Sprint(m.count.Add(1)) }

// pause waits and reports whether ctx still lives.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// try rolls out one cell.
func (m *matrix) try(t *testing.T, c cell) {
	m.turns <- struct{}{}
	done := sync.OnceFunc(func() { <-m.turns })
	defer done()
	ns, ctx := m.world.namespace(t), labtest.Context(t)
	name := "shop"
	if c.mode == upgrade {
		before := healthy(c.kind, name, m.world.box.Base.Base)
		if c.fault.before != nil {
			c.fault.before(m, before)
		}
		m.release(t, ns, before, c.fault.before == nil)
		if !replaces(c.kind) {
			name = "shop-2"
		}
	}
	w := healthy(c.kind, name, m.world.box.Base.Base)
	c.fault.broken(m, w)
	w.take(ns)
	if c.fault.around != nil {
		require.NoError(t, c.fault.around(ctx, m, ns))
	}
	text, err := w.manifest()
	require.NoError(t, err)
	chart := writeChart(t, map[string]string{"shop.yaml": text})
	watching, stop := context.WithCancel(ctx)
	defer stop()
	by, err := startBystander(watching, m.world.kube, ns)
	require.NoError(t, err)
	r := m.watch(ctx, t, c, w, ns, chart, done)
	stop()
	by.stop()
	m.judge(t, c, r, by)
}

// release installs a workload, as an upgrade finds it.
func (m *matrix) release(t *testing.T, ns string, w *workload, wait bool) {
	t.Helper()
	text, err := w.manifest()
	require.NoError(t, err)
	rel := requireDeployed(t, m.world.parts(t, ns, map[string]string{"shop.yaml": text}), "run-1")
	if !wait {
		return
	}
	rel.Image = m.image(t)
	_, err = m.verifier(t, rollout.Config{Timeout: time.Minute, Settle: -1}).Verify(labtest.Context(t), rel)
	require.NoError(t, err, "the release before")
}

func (m *matrix) image(t *testing.T) stages.Image {
	t.Helper()
	image, err := stages.ParseImage(m.world.box.Base.Base)
	require.NoError(t, err)
	return image
}

func (m *matrix) verifier(t *testing.T, cfg rollout.Config) *rollout.Verifier {
	t.Helper()
	cfg.REST, cfg.AllowUnused = m.world.rest, true
	v, err := rollout.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, v.Close()) })
	return v
}

// watch has the helm command apply the chart, and everybody watch what comes. It calls
// done when the other tools are the only ones that still do.
func (m *matrix) watch(ctx context.Context, t *testing.T, c cell, w *workload, ns, chart string, done func()) result {
	t.Helper()
	r := result{cell: c}
	helm := m.helm
	helm.namespace, helm.home = ns, t.TempDir()
	there := m.awaitChange(ctx, t, w, ns)
	rivals, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { r.helm = helmWait(rivals, helm, chart, c.rivals) })
	r.began = there()
	if c.rivals {
		wg.Go(func() { r.kubectl = kubectlStatus(rivals, m.dynamic, w, ns) })
		wg.Go(func() { r.status = kstatus(rivals, m.dynamic, w, ns) })
	}
	if c.fault.during != nil {
		wg.Go(func() { assert.NoError(t, c.fault.during(ctx, m, ns, w)) })
	}
	rel := stages.Release{Image: m.image(t), Name: "parts", Namespace: ns, Revision: 1, Objects: []stages.Object{w.object(ns)}}
	v := m.verifier(t, c.config())
	r.asked = time.Now()
	_, r.err = v.Verify(ctx, rel)
	r.verdict = time.Now()
	if r.err == nil {
		r.early = m.notUp(ctx, t, w, ns)
	}
	if c.fault.after != nil {
		assert.NoError(t, c.fault.after(ctx, m, ns, w))
	}
	done()
	if c.rivals {
		pause(rivals, time.Until(r.began.Add(rivalCap)))
	}
	stop()
	wg.Wait()
	return r
}

// notUp returns why a workload is not up, by the status library's own computation.
func (m *matrix) notUp(ctx context.Context, t *testing.T, w *workload, ns string) string {
	t.Helper()
	o, err := m.dynamic.Resource(resources[w.kind]).Namespace(ns).Get(ctx, w.name, metav1.GetOptions{})
	require.NoError(t, err)
	found, err := status.Compute(o)
	require.NoError(t, err)
	if found.Status == status.CurrentStatus {
		return ""
	}
	return found.Message
}

// config is the verifier's configuration for a cell: the default rules, with less
// patience for faults.
func (c cell) config() rollout.Config {
	cfg := rollout.Config{Timeout: time.Minute, Rules: map[rollout.Cause]rollout.Rule{}}
	if c.kind == kindCronJob { // whose next run is up to a minute away
		cfg.CronRuns, cfg.Timeout = true, 2*time.Minute
	}
	if c.fault.timeout > 0 {
		cfg.Timeout = c.fault.timeout
	}
	if c.fault.cause == "" {
		return cfg
	}
	for _, cause := range rollout.Causes() {
		if rule := rollout.DefaultRule(cause); rule.After > matrixPatience {
			rule.After = matrixPatience
			cfg.Rules[cause] = rule
		}
	}
	return cfg
}

// awaitChange returns a function that waits until the workload is made, or
// changed since the call of awaitChange.
func (m *matrix) awaitChange(ctx context.Context, t *testing.T, w *workload, ns string) func() time.Time {
	t.Helper()
	client := m.dynamic.Resource(resources[w.kind]).Namespace(ns)
	selector := fields.OneTermEqualSelector("metadata.name", w.name).String()
	list, err := client.List(ctx, metav1.ListOptions{FieldSelector: selector})
	require.NoError(t, err)
	was := map[types.UID]int64{}
	for _, o := range list.Items {
		was[o.GetUID()] = o.GetGeneration()
	}
	stream, err := client.Watch(ctx, metav1.ListOptions{FieldSelector: selector, ResourceVersion: list.GetResourceVersion()})
	require.NoError(t, err)
	return func() time.Time {
		defer stream.Stop()
		limit := time.After(time.Minute)
		for {
			select {
			case e, open := <-stream.ResultChan():
				o, ok := e.Object.(metav1.Object)
				require.True(t, open && ok, "watch %s %s: %v", w.kind, w.name, e)
				if o.GetGeneration() > was[o.GetUID()] || was[o.GetUID()] == 0 {
					return time.Now()
				}
			case <-limit:
				require.Fail(t, "helm did not apply the chart")
			}
		}
	}
}

// judge checks what was said of a cell, and keeps it for the table.
func (m *matrix) judge(t *testing.T, c cell, r result, by *bystander) {
	t.Helper()
	if errors.As(r.err, &r.failure) {
		rule := rollout.DefaultRule(r.failure.Cause)
		if own, changed := c.config().Rules[r.failure.Cause]; changed {
			rule = own
		}
		r.fact = by.decidable(r.failure, rule)
		if r.failure.Cause == rollout.TimedOut {
			r.fact = r.asked.Add(c.config().Timeout)
		}
		if r.fact.Before(r.asked) {
			r.fact = r.asked
		}
	}
	m.mu.Lock()
	m.rows = append(m.rows, r.row())
	m.mu.Unlock()
	defer func() {
		if t.Failed() || r.failure != nil && r.verdict.Sub(r.fact) > time.Second {
			t.Logf("verdict at %s; facts:\n%s", r.verdict.Format("05.000"), strings.Join(by.facts(), "\n"))
		}
	}()
	if c.fault.cause == "" {
		require.NoError(t, r.err, "a wrong abort")
		assert.Empty(t, r.early, "said to be ready too early")
		return
	}
	require.NotNil(t, r.failure, "%v", r.err)
	t.Logf("%v\nfield %s; look closer: %v", r.failure, r.failure.Decisive.Field, r.failure.Advice.Commands)
	assert.Equal(t, c.fault.cause, r.failure.Cause, "%v", r.failure)
	assert.Equal(t, c.fault.pending, r.failure.Pending)
	if c.fault.field != "" {
		want, own := strings.CutPrefix(c.fault.field, "/")
		if !own {
			want = podPath(c.kind) + want
		}
		assert.Equal(t, want, r.failure.Decisive.Field)
	}
	assert.NotEmpty(t, r.failure.Decisive.Remedy)
	assert.NotEmpty(t, r.failure.Decisive.Command)
	// The order of magnitude; what it really took is in the table.
	assert.Less(t, r.verdict.Sub(r.fact), 5*time.Second, "from the fact to the verdict")
}
