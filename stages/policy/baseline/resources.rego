# Requests let the scheduler find room, and limits protect the neighbours.
package main

import data.fairlead.workload
import rego.v1

deny_missing_resources contains msg if {
	some container in workload.all_containers
	some field in {"requests", "limits"}
	some resource in {"cpu", "memory"}
	not has_resource(container, field, resource)
	msg := sprintf(
		"container %q has no %s for %s: set resources.%s.%s on the container or the pod",
		[workload.name(container), resource_word[field], resource, field, resource],
	)
}

resource_word := {"requests": "request", "limits": "limit"}

has_resource(container, field, resource) if resource_set(container.resources[field][resource])

has_resource(_, field, resource) if resource_set(workload.pod.resources[field][resource])

# Kubernetes takes a limit for the request where there is none.
has_resource(container, "requests", resource) if {
	not container.resources.requests[resource]
	resource_set(container.resources.limits[resource])
}

# Zero means unlimited.
resource_set(quantity) if {
	quantity != null
	not regex.match(`^[0.]+[a-zA-Z]*$`, sprintf("%v", [quantity]))
}
