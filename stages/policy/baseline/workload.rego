# What the rules need to know of pods, wherever they are written down.
package fairlead.workload

import rego.v1

# The pod that the object is, or will make.
pod := input.spec if input.kind == "Pod"

pod := input.template.spec if input.kind == "PodTemplate"

pod := input.spec.jobTemplate.spec.template.spec if input.kind == "CronJob"

pod := input.spec.template.spec if {
	not input.kind in {"Pod", "PodTemplate", "CronJob"}
	is_array(input.spec.template.spec.containers)
}

# Containers that run while the pod does.
containers contains container if some container in pod.containers

# Containers that run before, including sidecars.
init_containers contains container if some container in pod.initContainers

all_containers := containers | init_containers

# Workloads whose pods are meant to go on running.
long_running if input.kind in {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Rollout"}

windows if pod.os.name == "windows"

name(container) := object.get(container, "name", "(unnamed)")
