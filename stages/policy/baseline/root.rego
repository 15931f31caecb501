# Containers run as a user other than root.
package main

import data.fairlead.workload
import rego.v1

deny_root contains msg if {
	not workload.windows
	some container in workload.all_containers
	not root_excluded(container)
	msg := sprintf(
		"container %q may run as root: set securityContext.runAsNonRoot to true, or runAsUser to a number above 0, on the container or the pod",
		[workload.name(container)],
	)
}

# A user of 0 is root whatever else is said, and the kubelet refuses root where
# runAsNonRoot is true. The container's word outweighs the pod's.
root_excluded(container) if {
	security(container, "runAsNonRoot") == true
	not root_user(container)
}

root_excluded(container) if security(container, "runAsUser") > 0

root_user(container) if security(container, "runAsUser") == 0

# What the container says, else what the pod says. Null says nothing.
security(container, field) := value if {
	value := container.securityContext[field]
	value != null
} else := value if {
	value := workload.pod.securityContext[field]
	value != null
}
