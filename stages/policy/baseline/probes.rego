# Without probes, a rollout can't tell a release that works from one that
# doesn't. A startup probe is optional: it only gives slow starters time.
package main

import data.fairlead.workload
import rego.v1

deny_missing_probes contains msg if {
	workload.long_running
	some container in workload.containers
	some probe in {"livenessProbe", "readinessProbe"}
	not has_probe(container, probe)
	msg := sprintf(
		"container %q has no %s: the cluster can't tell whether it works; add one",
		[workload.name(container), probe],
	)
}

has_probe(container, probe) if {
	some kind in {"httpGet", "tcpSocket", "exec", "grpc"}
	is_object(container[probe][kind])
}
