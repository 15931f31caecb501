package rollout

import (
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// furnished is a pod that refers to one of everything.
func furnished() *corev1.PodSpec {
	local := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	probe := func() *corev1.Probe {
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(80)}}}
	}
	return &corev1.PodSpec{
		NodeSelector:   map[string]string{"disk": "ssd"},
		InitContainers: []corev1.Container{{Name: "migrate", Image: "migrate:1"}},
		Containers: []corev1.Container{
			{
				Name: "app", Image: "shop:1", Args: []string{"serve"}, LivenessProbe: probe(), ReadinessProbe: probe(),
				Env: []corev1.EnvVar{
					{Name: "URL", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: local("settings"), Key: "url"}}},
					{Name: "PASSWORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: local("db"), Key: "password"}}},
				},
				EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local("common")}}, {SecretRef: &corev1.SecretEnvSource{LocalObjectReference: local("keys")}}},
			},
			{Name: "big", Command: []string{"big"}, Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: quantity.MustParse("8")}}},
		},
		Volumes: []corev1.Volume{
			{Name: "cfg", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: local("files")}}},
			{Name: "tls", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "tls"}}},
			{Name: "all", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{LocalObjectReference: local("part")}}}}}},
			{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "disk"}}},
			{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "model", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "models/llm:2"}}},
		},
	}
}

func TestFieldInThePod(t *testing.T) {
	unplaced := func(message string) *Scheduling {
		s, _ := parseScheduling("0/1 nodes are available: " + message)
		return &s
	}
	for want, f := range map[string]finding{
		"containers[name=app].image":                                          {cause: ImageNotFound, container: "app"},
		"volumes[name=model].image.reference":                                 {cause: ImagePullFailed, container: "app", message: `pull "models/llm:2": not found`},
		"initContainers[name=migrate]":                                        {cause: InitCrash, container: "migrate"},
		"imagePullSecrets":                                                    {cause: ImageUnauthorized, container: "app"},
		"containers[name=app].imagePullPolicy":                                {cause: ImageNeverPulled, container: "app"},
		"containers[name=app].resources.limits.memory":                        {cause: OutOfMemory, container: "app"},
		"containers[name=app].args":                                           {cause: CommandNotRunnable, container: "app"},
		"containers[name=big].command":                                        {cause: CommandNotRunnable, container: "big"},
		"containers[name=app].lifecycle.postStart":                            {cause: HookFailed, container: "app"},
		"containers[name=app].livenessProbe.httpGet.path":                     {cause: ProbeKilled, container: "app", probe: &Probe{Kind: ProbeLiveness, Response: "HTTP probe failed with statuscode: 404"}},
		"containers[name=app].readinessProbe.httpGet.port":                    {cause: NotReady, container: "app", probe: &Probe{Kind: ProbeReadiness, Response: "connection refused"}},
		"containers[name=app].readinessProbe.timeoutSeconds":                  {cause: NotReady, container: "app", probe: &Probe{Kind: ProbeReadiness, Response: "context deadline exceeded (Client.Timeout exceeded)"}},
		"containers[name=app].env[name=URL].valueFrom.configMapKeyRef.key":    {cause: ConfigMissing, container: "app", message: "couldn't find key url in ConfigMap shop/settings"},
		"containers[name=app].env[name=URL].valueFrom.configMapKeyRef.name":   {cause: ConfigMissing, container: "app", message: `configmap "settings" not found`},
		"containers[name=app].env[name=PASSWORD].valueFrom.secretKeyRef.name": {cause: ConfigMissing, container: "app", message: `secret "db" not found`},
		"containers[name=app].envFrom[0].configMapRef":                        {cause: ConfigMissing, container: "app", message: `configmap "common" not found`},
		"containers[name=app].envFrom[1].secretRef":                           {cause: ConfigMissing, container: "app", message: `secret "keys" not found`},
		"volumes[name=cfg].configMap.name":                                    {cause: ConfigMissing, message: `MountVolume.SetUp failed for volume "cfg" : configmap "files" not found`},
		"volumes[name=cfg].configMap.items":                                   {cause: ConfigMissing, message: `MountVolume.SetUp failed for volume "cfg" : references non-existent config key: a`},
		"volumes[name=tls].secret.secretName":                                 {cause: ConfigMissing, message: `MountVolume.SetUp failed for volume "tls" : secret "tls" not found`},
		"volumes[name=all].projected.sources[0].secret.name":                  {cause: ConfigMissing, message: `MountVolume.SetUp failed for volume "all" : secret "part" not found`},
		"volumes[name=data].persistentVolumeClaim.claimName":                  {cause: VolumeMissing, message: `persistentvolumeclaim "disk" not found`},
		"volumes[name=data]":                                                  {cause: VolumeMount, message: `MountVolume.MountDevice failed for volume "data" : no driver`},
		"volumes[name=tmp].emptyDir.sizeLimit":                                {cause: EphemeralStorage, message: `Usage of EmptyDir volume "tmp" exceeds the limit "1Mi". `},
		"containers[name=app].resources.limits.ephemeral-storage":             {cause: EphemeralStorage, message: `Container app exceeded its local ephemeral storage limit "1Mi". `},
		"containers[name=big].resources.requests.cpu":                         {cause: Unschedulable, scheduling: unplaced("1 Insufficient cpu.")},
		`containers[name=app].resources.requests.["example.com/gpu"]`:         {cause: Unschedulable, scheduling: unplaced("1 Insufficient example.com/gpu.")},
		"nodeSelector":             {cause: Unschedulable, scheduling: unplaced("1 node(s) didn't match Pod's node affinity/selector.")},
		"tolerations":              {cause: Unschedulable, scheduling: unplaced("1 node(s) had untolerated taint(s).")},
		"affinity.podAntiAffinity": {cause: Unschedulable, scheduling: unplaced("1 node(s) didn't match pod anti-affinity rules.")},
		"containers[name=app].securityContext.allowPrivilegeEscalation": {cause: PodSecurity, message: `violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "app" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities`},
		"securityContext.runAsNonRoot":                                  {cause: PodSecurity, message: `violates PodSecurity "restricted:latest": runAsNonRoot != true (pod or container "app" must set securityContext.runAsNonRoot=true)`},
		"serviceAccountName":                                            {cause: NoServiceAccount},
		"":                                                              {cause: Evicted},
	} {
		got := field("Deployment", f, furnished())
		if want != "" {
			want = "spec.template.spec." + want
		}
		assert.Equal(t, want, got, "%s: %s", f.cause, f.message)
	}
}

// The messages are those of the API server, Pod Security, Kyverno and the kubelet.
func TestFieldThatARefusalNames(t *testing.T) {
	const violates = `pods "shop-1" is forbidden: violates PodSecurity "baseline:latest": `
	pod := "spec.template.spec."
	for _, test := range []struct {
		want string
		f    finding
	}{
		{pod + "containers[name=big].resources.requests.cpu", finding{cause: QuotaExceeded, message: `pods "shop-1" is forbidden: exceeded quota: small, requested: cpu=8, used: cpu=1, limited: cpu=2`}},
		{pod + "containers[name=app].resources.limits.memory", finding{cause: QuotaExceeded, message: "exceeded quota: small, requested: limits.memory=1Gi,requests.cpu=8, used: limits.memory=0, limited: limits.memory=1"}},
		{pod + "containers[name=big].resources.limits.cpu", finding{cause: QuotaExceeded, message: "failed quota: small: must specify limits.cpu for: big; limits.memory for: app,big"}},
		{pod + `containers[name=app].resources.requests.["example.com/gpu"]`, finding{cause: QuotaExceeded, message: "exceeded quota: gpus, requested: requests.example.com/gpu=1, used: requests.example.com/gpu=0, limited: requests.example.com/gpu=0"}},
		{"", finding{cause: QuotaExceeded, message: "exceeded quota: few, requested: count/pods=1, used: count/pods=3, limited: count/pods=3"}},
		{pod + "containers[name=app].resources.limits.memory", finding{cause: LimitRange, message: "maximum memory usage per Container is 64Mi, but limit is 1Gi"}},
		{pod + "containers[name=app].resources.limits.memory", finding{cause: LimitRange, message: "maximum memory usage per Container is 64Mi.  No limit is specified"}},
		{pod + "containers[name=big].resources.requests.cpu", finding{cause: LimitRange, message: "maximum cpu usage per Pod is 2, but request is 8"}},
		{"", finding{cause: LimitRange, message: "cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000"}},
		{pod + "hostNetwork", finding{cause: PodSecurity, message: violates + `host namespaces (hostNetwork=true, hostPID=true)`}},
		{pod + "volumes[name=data]", finding{cause: PodSecurity, message: violates + `hostPath volumes (volume "data"), privileged (container "app" must not set securityContext.privileged=true)`}},
		{pod + "containers[name=app].ports", finding{cause: PodSecurity, message: violates + `hostPort (container "app" uses hostPort 80)`}},
		{pod + "initContainers[name=migrate].securityContext.privileged", finding{cause: PodSecurity, message: violates + `privileged (container "migrate" must not set securityContext.privileged=true)`}},
		{pod + "containers[name=app].securityContext.capabilities.add", finding{cause: PodSecurity, message: violates + `non-default capabilities (container "app" must not include "NET_ADMIN", "SYS_ADMIN" in securityContext.capabilities.add)`}},
		{pod + "securityContext.runAsUser", finding{cause: PodSecurity, message: violates + `runAsUser=0 (pod must not set runAsUser=0)`}},
		{pod + "securityContext.runAsUser", finding{cause: PodSecurity, message: violates + `runAsUser=0 (pod and containers "app", "big" must not set runAsUser=0)`}},
		{pod + "containers[name=big].securityContext.runAsUser", finding{cause: PodSecurity, message: violates + `runAsUser=0 (container "big" must not set runAsUser=0)`}},
		{pod + "containers[name=app].securityContext.capabilities.drop", finding{cause: PodSecurity, message: violates + `unrestricted capabilities (containers "app", "big" must set securityContext.capabilities.drop=["ALL"])`}},
		{pod + "containers[name=app].ports", finding{cause: PodSecurity, message: violates + `hostPort (containers "app", "big" use hostPorts 10, 20)`}},
		{pod + "securityContext.sysctls", finding{cause: PodSecurity, message: violates + `forbidden sysctls (kernel.msgmax)`}},

		{pod + "containers[name=big].image", finding{cause: PodRefused, message: `Pod "shop-1" is invalid: spec.containers[1].image: Required value`}},
		{pod + "containers[name=app].securityContext.runAsNonRoot", finding{cause: AdmissionDenied, message: `admission webhook "validate.kyverno.svc-fail" denied the request: policy Pod/shop/shop-1 for resource violation: require-run-as-nonroot: rule autogen-x failed at path /spec/containers/0/securityContext/runAsNonRoot/`}},
		{"spec.template.metadata.labels", finding{cause: PolicyDenied, message: `ValidatingAdmissionPolicy 'team' with binding 'team' denied request: failed expression: 'team' in object.metadata.labels`}},
		{pod + "containers", finding{cause: PolicyDenied, message: `ValidatingAdmissionPolicy 'tags' with binding 'tags' denied request: failed expression: object.spec.containers.all(c, !c.image.endsWith(':latest'))`}},
		{pod + "hostNetwork", finding{cause: PolicyDenied, message: `failed expression: !has(object.spec.hostNetwork) || !object.spec.hostNetwork`}},
		{"", finding{cause: PolicyDenied, message: `ValidatingAdmissionPolicy 'owner' with binding 'owner' denied request: name an owner`}},
		{"", finding{cause: AdmissionDenied, message: `admission webhook "sidecars.example.com" denied the request: spec.containers[7].image is not allowed`}},
		{"", finding{cause: AdmissionDenied, message: `admission webhook "x.example.com" denied the request: spec.template.spec.containers[0].image, or the spec.colour`}},
		{"", finding{cause: WebhookFailed, message: `failed calling webhook "x.example.com": spec.containers[0].image`}},

		{pod + "containers[name=big].resources.requests.cpu", finding{cause: NodeRefused, reason: "OutOfcpu", message: "Node didn't have enough resource: cpu, requested: 8000, used: 950, capacity: 2000"}},
		{"", finding{cause: NodeRefused, reason: "OutOfpods"}},
		{pod + `containers[name=app].resources.requests.["example.com/gpu"]`, finding{cause: NodeRefused, reason: "UnexpectedAdmissionError", message: "Allocate failed due to requested number of devices unavailable for example.com/gpu. Requested: 1, Available: 0, which is unexpected"}},
		{"", finding{cause: NodeRefused, reason: "UnexpectedAdmissionError", message: "Allocate failed due to rpc error"}},
		{pod + "nodeSelector", finding{cause: NodeRefused, reason: "NodeAffinity"}},
		{pod + "securityContext.sysctls", finding{cause: NodeRefused, reason: "SysctlForbidden"}},
		{"", finding{cause: NodeRefused, reason: "TopologyAffinityError", message: "Resources cannot be allocated with Topology locality"}},
		{"", finding{cause: Unschedulable, scheduling: &Scheduling{Predicates: []Predicate{{Kind: PredicateResource, Nodes: 1, Message: "Too many pods"}}}}},
	} {
		assert.Equal(t, test.want, field("Deployment", test.f, furnished()), "%s: %s: %s", test.f.cause, test.f.reason, test.f.message)
	}
	assert.Equal(t, "metadata.labels.team", field("Pod", finding{cause: AdmissionDenied, message: "denied: metadata.labels.team is missing"}, furnished()))
}

func TestFieldOfTheObject(t *testing.T) {
	for want, c := range map[string]struct {
		kind string
		f    finding
	}{
		"spec.progressDeadlineSeconds":                           {"Deployment", finding{cause: DeadlineExceeded}},
		"spec.activeDeadlineSeconds":                             {"Job", finding{cause: DeadlineExceeded}},
		"spec.backoffLimit":                                      {"Job", finding{cause: JobFailed, reason: "BackoffLimitExceeded"}},
		"spec.podFailurePolicy":                                  {"Job", finding{cause: JobFailed, reason: "PodFailurePolicy"}},
		"spec.jobTemplate.spec.backoffLimit":                     {"CronJob", finding{cause: JobFailed}},
		"spec.jobTemplate.spec.template.spec.serviceAccountName": {"CronJob", finding{cause: NoServiceAccount}},
		"spec.paused":                                            {"Deployment", finding{cause: Paused}},
		"spec.suspend":                                           {"Job", finding{cause: Paused}},
		"spec.updateStrategy.type":                               {"DaemonSet", finding{cause: ManualUpdate}},
		"spec.replicas":                                          {"Deployment", finding{cause: QuotaExceeded, message: "exceeded quota: q, requested: pods=1, used: pods=0"}},
		"spec.volumeClaimTemplates[name=data].spec.resources.requests.storage": {"StatefulSet", finding{cause: QuotaExceeded,
			message: `create Claim data-shop-0 for Pod shop-0 in StatefulSet shop failed error: persistentvolumeclaims "data-shop-0" is forbidden: exceeded quota: q, requested: requests.storage=1Gi, used: requests.storage=0, limited: requests.storage=1Mi`}},
		"spec.volumeClaimTemplates[name=data]": {"StatefulSet", finding{cause: QuotaExceeded,
			message: `create Claim data-shop-0 for Pod shop-0 in StatefulSet shop failed error: persistentvolumeclaims "data-shop-0" is forbidden: exceeded quota: q, requested: persistentvolumeclaims=1, used: persistentvolumeclaims=0, limited: persistentvolumeclaims=0`}},
		"spec.volumeClaimTemplates": {"StatefulSet", finding{cause: QuotaExceeded,
			message: `persistentvolumeclaims "data-shop-0" is forbidden: exceeded quota: q, requested: gold.storageclass.storage.k8s.io/requests.storage=1Gi, used: 0`}},
		"spec.parallelism":                {"Job", finding{cause: QuotaExceeded, message: "exceeded quota: q, requested: pods=1, used: pods=0"}},
		"spec.containers[name=app].image": {"Pod", finding{cause: ImageNotFound, container: "app"}},
		"":                                {"Widget", finding{cause: ImageNotFound, container: "app"}},
	} {
		assert.Equal(t, want, field(c.kind, c.f, furnished()), "%s %s", c.kind, c.f.cause)
	}
	assert.Empty(t, field("Deployment", finding{cause: ImageNotFound, container: "app"}, nil), "no template, no field")
}

// A claim is nothing of a container's, nor of a workload's that makes none.
func TestFieldOfAClaimThatNoTemplateMakes(t *testing.T) {
	template := podTemplate(pinnedTo(digestA))
	f := finding{cause: QuotaExceeded, message: `persistentvolumeclaims "x" is forbidden: exceeded quota: q, requested: requests.storage=1Gi, used: requests.storage=0`}
	for _, kind := range []string{"Deployment", "Job", "Pod"} {
		assert.Empty(t, field(kind, f, &template.Spec), kind)
	}
}
