package rollout

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	metadatafake "k8s.io/client-go/metadata/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/fairlead-dev/fairlead/stages"
)

// made returns an object without types.
func made(apiVersion, kind, namespace, name string, generation int64, rest map[string]any) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	for field, value := range rest {
		u.Object[field] = value
	}
	u.SetAPIVersion(apiVersion)
	u.SetKind(kind)
	u.SetNamespace(namespace)
	u.SetName(name)
	u.SetUID("object")
	u.SetGeneration(generation)
	return u
}

func conditions(all ...map[string]any) map[string]any {
	list := make([]any, 0, len(all))
	for _, c := range all {
		list = append(list, c)
	}
	return map[string]any{"conditions": list}
}

func cond(name, status, reason string, observed int64) map[string]any {
	c := map[string]any{"type": name, "status": status, "reason": reason, "message": "because of " + reason}
	if observed > 0 {
		c["observedGeneration"] = observed
	}
	return c
}

func widget(generation int64, status map[string]any) *unstructured.Unstructured {
	rest := map[string]any{}
	if status != nil {
		rest["status"] = status
	}
	return made("example.com/v1", "Widget", ns, "gear", generation, rest)
}

func gatewayAPI(kind string, generation int64, spec, status map[string]any) *unstructured.Unstructured {
	return made(gatewayGroup+"/v1", kind, ns, "front", generation, map[string]any{"spec": spec, "status": status})
}

func routed(observed int64, accepted, resolved string) map[string]any {
	answer := conditions(cond("Accepted", accepted, "NoMatchingParent", observed), cond("ResolvedRefs", resolved, "BackendNotFound", observed))
	answer["parentRef"] = map[string]any{"group": gatewayGroup, "kind": "Gateway", "name": "front", "sectionName": "https"}
	answer["controllerName"] = "example.com/controller"
	return map[string]any{"parents": []any{answer}}
}

func crd(status map[string]any) *unstructured.Unstructured {
	return made("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "widgets.example.com", 1, map[string]any{"status": status})
}

func claim(class string, change func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "data", UID: "claim"},
		Spec:       corev1.PersistentVolumeClaimSpec{StorageClassName: &class},
		Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending},
	}
	if change != nil {
		change(c)
	}
	return c
}

func class(name string, mode storagev1.VolumeBindingMode) *storagev1.StorageClass {
	return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, VolumeBindingMode: &mode}
}

func balanced(ip string) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "front", UID: "service"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}}
	if ip != "" {
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: ip}}
	}
	return s
}

func ingress(host string) *networkingv1.Ingress {
	i := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "front", UID: "ingress"}}
	if host != "" {
		i.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{Hostname: host}}
	}
	return i
}

func cronJob(image string) *batchv1.CronJob {
	c := &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "nightly", UID: "cronjob"}}
	c.Spec.JobTemplate.Spec.Template = podTemplate(image)
	return c
}

var (
	widgetObject  = stages.Object{APIVersion: "example.com/v1", Kind: "Widget", Name: "gear"}
	claimObject   = stages.Object{APIVersion: "v1", Kind: "PersistentVolumeClaim", Name: "data"}
	serviceObject = stages.Object{APIVersion: "v1", Kind: "Service", Name: "front"}
	ingressObject = stages.Object{APIVersion: "networking.k8s.io/v1", Kind: "Ingress", Name: "front"}
	gatewayObject = stages.Object{APIVersion: gatewayGroup + "/v1", Kind: "Gateway", Name: "front"}
	routeObject   = stages.Object{APIVersion: gatewayGroup + "/v1", Kind: "HTTPRoute", Name: "front"}
	crdObject     = stages.Object{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition", Name: "widgets.example.com"}
	apiService    = stages.Object{APIVersion: "apiregistration.k8s.io/v1", Kind: "APIService", Name: "v1.metrics.example.com"}
)

// Each kind that runs no pods, from a state that is not done to one that is. It
// must not be believed too early, nor given up, however long it takes.
func TestObjectsBecomeReady(t *testing.T) {
	parent := map[string]any{"parentRefs": []any{map[string]any{"name": "front", "sectionName": "https"}}}
	available := func(status string) *unstructured.Unstructured {
		return made("apiregistration.k8s.io/v1", "APIService", "", "v1.metrics.example.com", 0, map[string]any{"status": conditions(cond("Available", status, "FailedDiscoveryCheck", 0))})
	}
	tests := map[string]struct {
		object stages.Object
		before []runtime.Object
		after  runtime.Object
		said   string
	}{
		"claim": {claimObject, []runtime.Object{claim("fast", nil), class("fast", storagev1.VolumeBindingImmediate)},
			claim("fast", func(c *corev1.PersistentVolumeClaim) { c.Status.Phase, c.Spec.VolumeName = corev1.ClaimBound, "pv-1" }), "bound to pv-1"},
		"claim whose consumer has a node": {claimObject, []runtime.Object{
			claim("late", func(c *corev1.PersistentVolumeClaim) { c.Annotations = map[string]string{selectedNode: "node-1"} }), class("late", storagev1.VolumeBindingWaitForFirstConsumer)},
			claim("late", func(c *corev1.PersistentVolumeClaim) { c.Status.Phase, c.Spec.VolumeName = corev1.ClaimBound, "pv-1" }), "bound to pv-1"},
		"load balancer":               {serviceObject, []runtime.Object{balanced("")}, balanced("192.0.2.1"), "has the address 192.0.2.1"},
		"ingress with IngressAddress": {ingressObject, []runtime.Object{ingress("")}, ingress("shop.example"), "has the address shop.example"},
		"gateway that is programmed": {gatewayObject, []runtime.Object{gatewayAPI("Gateway", 2, nil, conditions(cond("Accepted", "True", "Accepted", 2), cond("Programmed", "True", "Programmed", 1)))},
			gatewayAPI("Gateway", 2, nil, conditions(cond("Accepted", "True", "Accepted", 2), cond("Programmed", "True", "Programmed", 2))), "accepted, programmed"},
		"gateway without controller yet": {gatewayObject, []runtime.Object{gatewayAPI("Gateway", 1, nil, conditions(cond("Accepted", "Unknown", "Pending", 0)))},
			gatewayAPI("Gateway", 1, nil, conditions(cond("Accepted", "True", "Accepted", 1), cond("Programmed", "True", "Programmed", 1))), "accepted, programmed"},
		"route not seen yet":   {routeObject, []runtime.Object{gatewayAPI("HTTPRoute", 2, parent, nil)}, gatewayAPI("HTTPRoute", 2, parent, routed(2, "True", "True")), "accepted by 1 parents"},
		"route seen as before": {routeObject, []runtime.Object{gatewayAPI("HTTPRoute", 2, parent, routed(1, "False", "True"))}, gatewayAPI("HTTPRoute", 2, parent, routed(2, "True", "True")), "accepted by 1 parents"},
		"definition": {crdObject, []runtime.Object{crd(conditions(cond("NamesAccepted", "True", "NoConflicts", 0), cond("Established", "False", "Installing", 0)))},
			crd(conditions(cond("NamesAccepted", "True", "NoConflicts", 0), cond("Established", "True", "InitialNamesAccepted", 0))), "established"},
		"API service": {apiService, []runtime.Object{available("False")}, available("True"), "available"},
		"custom, observedGeneration": {widgetObject, []runtime.Object{widget(2, map[string]any{"observedGeneration": int64(1), "conditions": conditions(cond("Ready", "True", "Fine", 0))["conditions"]})},
			widget(2, map[string]any{"observedGeneration": int64(2), "conditions": conditions(cond("Ready", "True", "Fine", 0))["conditions"]}), "ready"},
		"custom, condition of before": {widgetObject, []runtime.Object{widget(2, conditions(cond("Ready", "True", "Fine", 1)))}, widget(2, conditions(cond("Ready", "True", "Fine", 2))), "ready"},
		"custom, stalled before":      {widgetObject, []runtime.Object{widget(2, conditions(cond("Stalled", "True", "Broken", 1), cond("Ready", "False", "Broken", 1)))}, widget(2, conditions(cond("Ready", "True", "Fine", 2))), "ready"},
		"custom, not ready":           {widgetObject, []runtime.Object{widget(1, conditions(cond("Ready", "False", "Progressing", 1)))}, widget(1, conditions(cond("Ready", "True", "Fine", 1))), "ready"},
		"custom, reconciling":         {widgetObject, []runtime.Object{widget(1, conditions(cond("Reconciling", "True", "Progressing", 1)))}, widget(1, conditions(cond("Reconciling", "False", "Done", 1), cond("Ready", "True", "Done", 1))), "ready"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, test.before...)
				l.config = Config{AllowUnused: true, Timeout: time.Hour, IngressAddress: true}
				r := l.start(t.Context(), release(t, test.object))
				time.Sleep(30 * time.Minute)
				require.False(t, r.over(), "too early: %v", r.err)
				changed := time.Now()
				l.put(test.after)
				require.True(t, r.over())
				require.NoError(t, r.err)
				assert.Less(t, time.Since(changed), time.Second)
				require.Len(t, r.result.Checks, 1)
				assert.Equal(t, test.said, r.result.Checks[0].Message)
			})
		})
	}
}

// What is done as soon as it is seen.
func TestObjectsWithNothingToWaitFor(t *testing.T) {
	plain := balanced("")
	plain.Spec.Type = corev1.ServiceTypeClusterIP
	external := balanced("")
	external.Spec.ExternalIPs = []string{"192.0.2.7"}
	for name, test := range map[string]struct {
		object stages.Object
		there  []runtime.Object
		said   string
	}{
		"claim that waits for a consumer": {claimObject, []runtime.Object{claim("late", nil), class("late", storagev1.VolumeBindingWaitForFirstConsumer)}, "waits for its first consumer"},
		"claim that says so by an event":  {claimObject, []runtime.Object{claim("late", nil), event(claim("late", nil), "PersistentVolumeClaim", "WaitForFirstConsumer", "waiting for first consumer")}, "waits for its first consumer"},
		"service in the cluster":          {serviceObject, []runtime.Object{plain}, "1 other objects exist"},
		"service with external addresses": {serviceObject, []runtime.Object{external}, "1 other objects exist"},
		"ingress":                         {ingressObject, nil, "1 other objects exist"},
		"cron job":                        {stages.Object{APIVersion: "batch/v1", Kind: "CronJob", Name: "nightly"}, []runtime.Object{cronJob(pinnedTo(digestA))}, "1 other objects exist"},
		"custom without status":           {widgetObject, []runtime.Object{widget(1, nil)}, "1 other objects exist"},
		"custom with a status of its own": {widgetObject, []runtime.Object{widget(1, map[string]any{"phase": "Bound", "conditions": "none"})}, "1 other objects exist"},
		"custom of the whole cluster":     {stages.Object{APIVersion: "example.com/v1", Kind: "Realm", Namespace: ns, Name: "gear"}, []runtime.Object{made("example.com/v1", "Realm", "", "gear", 1, map[string]any{"status": conditions(cond("Ready", "True", "Fine", 1))})}, "ready"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, test.there...)
				l.config.AllowUnused = true
				r := l.start(t.Context(), release(t, test.object))
				require.True(t, r.over())
				require.NoError(t, r.err)
				require.Len(t, r.result.Checks, 1)
				assert.Equal(t, test.said, r.result.Checks[0].Message)
			})
		})
	}
}

// Each way for an object without pods to fail, and after how long.
func TestObjectsFail(t *testing.T) {
	parent := map[string]any{"parentRefs": []any{map[string]any{"name": "front", "sectionName": "https"}}}
	never := time.Duration(0)
	for name, test := range map[string]struct {
		object stages.Object
		there  []runtime.Object
		cause  Cause
		after  time.Duration // never: at the timeout
		text   string
	}{
		"claim lost":                 {claimObject, []runtime.Object{claim("fast", func(c *corev1.PersistentVolumeClaim) { c.Status.Phase, c.Spec.VolumeName = corev1.ClaimLost, "pv-1" })}, VolumeLost, time.Nanosecond, "its volume pv-1 is gone"},
		"claim that nobody can fill": {claimObject, []runtime.Object{claim("none", nil), event(claim("none", nil), "PersistentVolumeClaim", "ProvisioningFailed", `storageclass.storage.k8s.io "none" not found`)}, VolumeUnbound, time.Minute, `"none" not found`},
		"claim that nobody fills":    {claimObject, []runtime.Object{claim("slow", nil), event(claim("slow", nil), "PersistentVolumeClaim", "ExternalProvisioning", "waiting for a volume")}, TimedOut, never, "waiting for a volume"},
		"load balancer":              {serviceObject, []runtime.Object{balanced(""), event(balanced(""), "Service", "SyncLoadBalancerFailed", "no quota")}, TimedOut, never, "no load balancer has given it an address yet: no quota (check that a controller serves"},
		"route refused":              {routeObject, []runtime.Object{gatewayAPI("HTTPRoute", 1, parent, routed(1, "False", "True"))}, NotAccepted, time.Minute, "Gateway shop/front section https says: Accepted is False: NoMatchingParent: because of NoMatchingParent"},
		"route without backend":      {routeObject, []runtime.Object{gatewayAPI("HTTPRoute", 1, parent, routed(1, "True", "False"))}, NotAccepted, time.Minute, "BackendNotFound"},
		"gateway that nobody serves": {gatewayObject, []runtime.Object{gatewayAPI("Gateway", 1, nil, conditions(cond("Accepted", "Unknown", "Pending", 0)))}, TimedOut, never, "Accepted is Unknown: Pending"},
		"definition of a taken name": {crdObject, []runtime.Object{crd(conditions(cond("NamesAccepted", "False", "PluralConflict", 0)))}, NotAccepted, time.Minute, "PluralConflict"},
		"custom, stalled":            {widgetObject, []runtime.Object{widget(1, conditions(cond("Stalled", "True", "Broken", 1)))}, ResourceFailed, time.Nanosecond, "Stalled is True: Broken: because of Broken"},
		"custom, never ready":        {widgetObject, []runtime.Object{widget(1, conditions(cond("Ready", "False", "NoLicence", 1)))}, TimedOut, never, "Ready is False: NoLicence"},
		"custom, gone":               {widgetObject, nil, Missing, 5 * time.Second, "does not exist"},
		"custom, kind not served":    {stages.Object{APIVersion: "example.com/v9", Kind: "Widget", Name: "gear"}, nil, Missing, 5 * time.Second, "does not serve its kind"},
		"cron job of another image":  {stages.Object{APIVersion: "batch/v1", Kind: "CronJob", Name: "nightly"}, []runtime.Object{cronJob(pinnedTo(digestB))}, ImageMismatch, time.Nanosecond, "released was"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, test.there...)
				l.config = Config{AllowUnused: true, Timeout: 10 * time.Minute}
				r := l.start(t.Context(), release(t, test.object))
				f := r.failure(t)
				assert.Equal(t, test.cause, f.Cause)
				assert.Contains(t, f.Error(), test.text)
				switch test.after {
				case never:
					assert.Equal(t, 10*time.Minute, f.Elapsed)
				case time.Nanosecond:
					assert.Zero(t, f.Elapsed)
				default:
					assert.Equal(t, test.after, f.Elapsed)
				}
			})
		})
	}
}

// A kind that is not served yet, because its definition is part of the release.
func TestCustomResourceBeforeItsKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, widget(1, conditions(cond("Ready", "True", "Fine", 1))))
		l.config.AllowUnused = true
		served := l.served
		l.served = nil
		v := l.verifier()
		rel := release(t, widgetObject)
		done := make(chan error, 1)
		go func() {
			_, err := v.Verify(t.Context(), rel)
			done <- err
		}()
		time.Sleep(3 * time.Second)
		require.Empty(t, done)
		v.cluster.kinds.mu.Lock()
		v.cluster.kinds.known = served
		v.cluster.kinds.mu.Unlock()
		began := time.Now()
		require.NoError(t, <-done)
		assert.LessOrEqual(t, time.Since(began), time.Second)
	})
}

func TestDeclaredReadiness(t *testing.T) {
	rule := func(u *unstructured.Unstructured) (State, string) {
		switch phase, _, _ := unstructured.NestedString(u.Object, "status", "phase"); phase {
		case "Done":
			return StateReady, "phase Done"
		case "Broken":
			return StateFailed, "phase Broken"
		default:
			return StateWaiting, "phase " + phase
		}
	}
	config := Config{AllowUnused: true, Readiness: []Readiness{{Group: "example.com", Kind: "Widget", Check: rule}}}
	t.Run("ready", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t, widget(1, conditions(cond("Ready", "True", "Fine", 1))))
			l.config = config
			r := l.start(t.Context(), release(t, widgetObject))
			time.Sleep(4 * time.Minute)
			require.False(t, r.over())
			l.put(widget(1, map[string]any{"phase": "Done"}))
			require.True(t, r.over())
			require.NoError(t, r.err)
			assert.Equal(t, "phase Done", r.result.Checks[0].Message)
		})
	})
	t.Run("failed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t, widget(1, map[string]any{"phase": "Broken"}))
			l.config = config
			f := l.start(t.Context(), release(t, widgetObject)).failure(t)
			assert.Equal(t, ResourceFailed, f.Cause)
			assert.Equal(t, "phase Broken", f.Decisive.Message)
		})
	})
	t.Run("status of an earlier generation", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			former := map[string]any{"phase": "Done", "observedGeneration": int64(1)}
			l := newLab(t, widget(2, former))
			l.config = config
			r := l.start(t.Context(), release(t, widgetObject))
			require.False(t, r.over(), "it is about the former generation")
			former = map[string]any{"phase": "Done", "conditions": []any{cond("Ready", "True", "Fine", 1)}}
			l.put(widget(2, former))
			require.False(t, r.over(), "its conditions are about the former generation")
			l.put(widget(2, map[string]any{"phase": "Broken", "conditions": []any{cond("Seen", "True", "Old", 1)}}))
			require.False(t, r.over(), "so may a failure be")
			for _, status := range []map[string]any{{}, {"observedGeneration": int64(2)}} {
				status["phase"], status["conditions"] = "Done", []any{cond("Ready", "True", "Fine", 1), cond("Issuing", "True", "Begun", 2)}
				l.put(widget(2, status))
				require.False(t, r.over(), "it has been seen, and not yet been worked on: %v", status)
			}
			l.put(widget(2, map[string]any{"phase": "Done", "conditions": []any{cond("Ready", "True", "Fine", 2), cond("Seen", "True", "Old", 1)}}))
			require.True(t, r.over())
			require.NoError(t, r.err)
		})
	})
	t.Run("seen, with conditions that stay as they were", func(t *testing.T) { // such as a suspended object's of Flux
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t, widget(2, map[string]any{
				"phase": "Done", "observedGeneration": int64(2),
				"conditions": []any{cond("Ready", "True", "Fine", 1), cond("Healthy", "True", "Fine", 1)},
			}))
			l.config = config
			r := l.start(t.Context(), release(t, widgetObject))
			require.True(t, r.over())
			require.NoError(t, r.err)
		})
	})
	t.Run("may not be watched", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t, widget(1, map[string]any{"phase": "Done"}))
			l.config = config
			l.dynamic.PrependReactor("list", "widgets", forbid)
			r := l.start(t.Context(), release(t, widgetObject))
			require.True(t, r.over())
			assert.True(t, stages.IsPermanent(r.err))
			assert.Contains(t, r.err.Error(), "grant the verbs list and watch on widgets.example.com in namespace shop")
		})
	})
	for name, rules := range map[string][]Readiness{
		"no kind": {{Group: "x", Check: rule}}, "no check": {{Group: "x", Kind: "Y"}}, "a workload": {{Group: "apps", Kind: "Deployment", Check: rule}},
		"a secret": {{Kind: "Secret", Check: rule}}, "twice": {{Group: "x", Kind: "Y", Check: rule}, {Group: "x", Kind: "Y", Check: rule}},
	} {
		_, err := Config{Readiness: rules}.complete()
		require.ErrorIs(t, err, stages.ErrInvalid, name)
	}
}

func forbid(a k8stesting.Action) (bool, runtime.Object, error) {
	return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: a.GetResource().Resource}, "", errors.New("no"))
}

// A kind that the caller may not watch is only required to exist, and the
// verification says so.
func TestObjectsThatMayNotBeWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, balanced(""), claim("late", nil))
		l.config.AllowUnused = true
		l.client.PrependReactor("list", "services", forbid)
		l.client.PrependReactor("list", "storageclasses", forbid)
		l.client.PrependReactor("list", "events", forbid)
		v := l.verifier()
		v.cluster.kinds.known[stages.Object{APIVersion: "v1", Kind: "Service"}] = entry{corev1.SchemeGroupVersion.WithResource("services"), true}
		there := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "front"}}
		scheme := metadatafake.NewTestScheme()
		require.NoError(t, metav1.AddMetaToScheme(scheme))
		gets := metadatafake.NewSimpleMetadataClient(scheme, there)
		v.cluster.metadata = gets
		rel := release(t, serviceObject, claimObject)
		done := make(chan stages.Verification, 1)
		go func() {
			verified, err := v.Verify(t.Context(), rel)
			assert.NoError(t, err)
			done <- verified
		}()
		time.Sleep(time.Minute)
		require.Empty(t, done, "whether the claim waits for a consumer can't be known")
		l.put(claim("late", func(c *corev1.PersistentVolumeClaim) { c.Status.Phase, c.Spec.VolumeName = corev1.ClaimBound, "pv-1" }))
		verified := <-done
		assert.Len(t, gets.Actions(), 1)
		assert.Equal(t, "1 other objects exist; not known whether ready, for want of the verbs list and watch: Service shop/front", verified.Checks[1].Message)
	})
}
