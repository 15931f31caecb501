package rollout

import (
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	typedappsv1 "k8s.io/client-go/kubernetes/typed/apps/v1"
	typedbatchv1 "k8s.io/client-go/kubernetes/typed/batch/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	typednetworkingv1 "k8s.io/client-go/kubernetes/typed/networking/v1"
	typedstoragev1 "k8s.io/client-go/kubernetes/typed/storage/v1"

	"github.com/fairlead-dev/fairlead/stages"
)

// The resources that objects are judged by.
var (
	pods = newResource("pods", func(c kubernetes.Interface, ns string) typedcorev1.PodInterface { return c.CoreV1().Pods(ns) })

	events = optional(newResource("events", func(c kubernetes.Interface, ns string) typedcorev1.EventInterface { return c.CoreV1().Events(ns) }))

	deployments = newResource("deployments.apps", func(c kubernetes.Interface, ns string) typedappsv1.DeploymentInterface {
		return c.AppsV1().Deployments(ns)
	})
	replicaSets = optional(newResource("replicasets.apps", func(c kubernetes.Interface, ns string) typedappsv1.ReplicaSetInterface {
		return c.AppsV1().ReplicaSets(ns)
	}))
	replicationControllers = newResource("replicationcontrollers", func(c kubernetes.Interface, ns string) typedcorev1.ReplicationControllerInterface {
		return c.CoreV1().ReplicationControllers(ns)
	})
	statefulSets = newResource("statefulsets.apps", func(c kubernetes.Interface, ns string) typedappsv1.StatefulSetInterface {
		return c.AppsV1().StatefulSets(ns)
	})
	daemonSets = newResource("daemonsets.apps", func(c kubernetes.Interface, ns string) typedappsv1.DaemonSetInterface {
		return c.AppsV1().DaemonSets(ns)
	})
	jobs = newResource("jobs.batch", func(c kubernetes.Interface, ns string) typedbatchv1.JobInterface { return c.BatchV1().Jobs(ns) })

	cronJobs = optional(newResource("cronjobs.batch", func(c kubernetes.Interface, ns string) typedbatchv1.CronJobInterface { return c.BatchV1().CronJobs(ns) }))
	services = optional(newResource("services", func(c kubernetes.Interface, ns string) typedcorev1.ServiceInterface { return c.CoreV1().Services(ns) }))

	ingresses = optional(newResource("ingresses.networking.k8s.io", func(c kubernetes.Interface, ns string) typednetworkingv1.IngressInterface {
		return c.NetworkingV1().Ingresses(ns)
	}))
	claims = optional(newResource("persistentvolumeclaims", func(c kubernetes.Interface, ns string) typedcorev1.PersistentVolumeClaimInterface {
		return c.CoreV1().PersistentVolumeClaims(ns)
	}))
	storageClasses = optional(clusterScoped(newResource("storageclasses.storage.k8s.io", func(c kubernetes.Interface, _ string) typedstoragev1.StorageClassInterface {
		return c.StorageV1().StorageClasses()
	})))

	crds = optional(newDynamicResource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}, false))

	apiServices = optional(newDynamicResource(schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"}, false))
)

// kind is one kind of object that a verification can judge.
type kind struct {
	// needs are the resources to watch; of a kind with judge, the first is the
	// object's own. Where that is optional and the caller may not watch it, the
	// object is only required to exist.
	needs []resource
	// self is the index of a workload's own resource.
	self int
	// discover says that the object's own resource has to be asked for.
	discover bool
	// declared says that the configuration demands a judgement, so that the caller
	// must be allowed to watch the object.
	declared bool
	// assess is for a workload, which is judged by its pods.
	assess func(*inspector, stages.Object, time.Time) assessment
	// judge is for any other object, which says itself how far it is.
	judge func(*inspector, *assessment, metav1.Object)
}

// workload reports whether objects of the kind run pods.
func (k kind) workload() bool { return k.assess != nil }

// kinds are what is known of a kind, by API group and kind.
var kinds = map[string]kind{
	"apps/Deployment":                   {needs: []resource{pods, events, deployments, replicaSets}, self: 2, assess: (*inspector).deployment},
	"apps/StatefulSet":                  {needs: []resource{pods, events, statefulSets}, self: 2, assess: (*inspector).statefulSet},
	"apps/DaemonSet":                    {needs: []resource{pods, events, daemonSets}, self: 2, assess: (*inspector).daemonSet},
	"apps/ReplicaSet":                   {needs: []resource{pods, events, required(replicaSets)}, self: 2, assess: (*inspector).replicaSet},
	"/ReplicationController":            {needs: []resource{pods, events, replicationControllers}, self: 2, assess: (*inspector).replicationController},
	"batch/Job":                         {needs: []resource{pods, events, jobs}, self: 2, assess: (*inspector).job},
	"/Pod":                              {needs: []resource{pods, events}, assess: (*inspector).barePod},
	"batch/CronJob":                     {needs: []resource{cronJobs}, judge: (*inspector).cronJob},
	"/PersistentVolumeClaim":            {needs: []resource{claims, events, storageClasses}, judge: (*inspector).claim},
	"/Service":                          {needs: []resource{services, events}, judge: (*inspector).service},
	"apiregistration.k8s.io/APIService": {needs: []resource{apiServices}, judge: (*inspector).apiService},
	"apiextensions.k8s.io/CustomResourceDefinition": {needs: []resource{crds}, judge: (*inspector).definition},

	gatewayGroup + "/GatewayClass": {discover: true, judge: accepted("Accepted")},
	gatewayGroup + "/Gateway":      {needs: []resource{events}, discover: true, judge: accepted("Accepted", "Programmed")},
	gatewayGroup + "/ListenerSet":  {discover: true, judge: accepted("Accepted", "Programmed")},
	gatewayGroup + "/HTTPRoute":    {discover: true, judge: (*inspector).route},
	gatewayGroup + "/GRPCRoute":    {discover: true, judge: (*inspector).route},
	gatewayGroup + "/TLSRoute":     {discover: true, judge: (*inspector).route},
	gatewayGroup + "/TCPRoute":     {discover: true, judge: (*inspector).route},
	gatewayGroup + "/UDPRoute":     {discover: true, judge: (*inspector).route},
}

const gatewayGroup = "gateway.networking.k8s.io"

// builtIn are the API groups of Kubernetes itself. What is in one of them and
// not in the table above has nothing to wait for.
var builtIn = map[string]bool{
	"": true, "apps": true, "autoscaling": true, "batch": true, "extensions": true, "policy": true,
	"admissionregistration.k8s.io": true, "apiextensions.k8s.io": true, "apiregistration.k8s.io": true,
	"authentication.k8s.io": true, "authorization.k8s.io": true, "certificates.k8s.io": true, "coordination.k8s.io": true,
	"discovery.k8s.io": true, "events.k8s.io": true, "flowcontrol.apiserver.k8s.io": true, "internal.apiserver.k8s.io": true,
	"networking.k8s.io": true, "node.k8s.io": true, "rbac.authorization.k8s.io": true, "resource.k8s.io": true,
	"scheduling.k8s.io": true, "storage.k8s.io": true, "storagemigration.k8s.io": true,
}

func groupOf(o stages.Object) string {
	group, _, found := strings.Cut(o.APIVersion, "/")
	if !found {
		return ""
	}
	return group
}

// kindOf returns how to judge o. Without a kind, it is only required to exist.
func (s settings) kindOf(o stages.Object) (kind, bool) {
	group := groupOf(o)
	id := group + "/" + o.Kind
	if check, declared := s.readiness[id]; declared {
		return kind{needs: []resource{events}, discover: true, declared: true, judge: declaredBy(check)}, true
	}
	if id == "networking.k8s.io/Ingress" && s.IngressAddress {
		return kind{needs: []resource{ingresses, events}, judge: (*inspector).ingress}, true
	}
	if id == "batch/CronJob" && s.CronRuns {
		return kind{needs: []resource{pods, events, required(cronJobs), jobs}, self: 2, assess: (*inspector).cronRuns}, true
	}
	if k, known := kinds[id]; known {
		return k, true
	}
	if !builtIn[group] {
		return kind{needs: []resource{events}, discover: true, judge: (*inspector).custom}, true
	}
	return kind{}, false
}
