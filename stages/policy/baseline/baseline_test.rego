package main_test

import data.main
import rego.v1

good_container := {
	"name": "app",
	"image": "registry.example/shop@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
	"securityContext": {"runAsNonRoot": true},
	"resources": {
		"requests": {"cpu": "200m", "memory": "256Mi"},
		"limits": {"cpu": "1", "memory": "512Mi"},
	},
	"livenessProbe": {"httpGet": {"path": "/healthz/live", "port": 3000}},
	"readinessProbe": {"httpGet": {"path": "/healthz/ready", "port": 3000}},
}

workload(kind, pod) := {"kind": kind, "spec": {"template": {"spec": pod}}}

deployment(container) := workload("Deployment", {"containers": [container]})

patched(patches) := json.patch(good_container, patches)

test_good_deployment_passes if {
	object := deployment(good_container)
	main.deny_root == set() with input as object
	main.deny_latest_tag == set() with input as object
	main.deny_missing_probes == set() with input as object
	main.deny_missing_resources == set() with input as object
	main.warn_unpinned_image == set() with input as object
}

test_objects_without_pods_pass if {
	every object in [
		{"kind": "ConfigMap", "data": {"spec": "x"}},
		{"kind": "Service", "spec": {"ports": [{"port": 80}]}},
		{"kind": "PersistentVolumeClaim", "spec": {"template": "x"}},
	] {
		main.deny_root == set() with input as object
		main.deny_latest_tag == set() with input as object
		main.deny_missing_probes == set() with input as object
		main.deny_missing_resources == set() with input as object
	}
}

# Root.

root_allowed(pod) if main.deny_root == set() with input as workload("Deployment", pod)

test_root_needs_a_word if {
	not root_allowed({"containers": [patched([{"op": "remove", "path": "/securityContext"}])]})
}

test_root_pod_speaks_for_its_containers if {
	plain := patched([{"op": "remove", "path": "/securityContext"}])
	root_allowed({"securityContext": {"runAsNonRoot": true}, "containers": [plain]})
	root_allowed({"securityContext": {"runAsUser": 1000}, "containers": [plain]})
	not root_allowed({"securityContext": {"runAsUser": 0}, "containers": [plain]})
}

test_root_container_outweighs_pod if {
	container := patched([{"op": "replace", "path": "/securityContext", "value": {"runAsNonRoot": false}}])
	not root_allowed({"securityContext": {"runAsNonRoot": true}, "containers": [container]})
}

test_root_user_zero_outweighs_non_root if {
	container := patched([{"op": "add", "path": "/securityContext/runAsUser", "value": 0}])
	not root_allowed({"containers": [container]})
}

test_root_null_means_unset if {
	container := patched([{"op": "replace", "path": "/securityContext", "value": {"runAsNonRoot": null}}])
	root_allowed({"securityContext": {"runAsNonRoot": true}, "containers": [container]})
	not root_allowed({"containers": [container]})
}

test_root_init_containers_count if {
	container := patched([{"op": "remove", "path": "/securityContext"}])
	not root_allowed({"initContainers": [container], "containers": [good_container]})
}

test_root_windows_has_none if {
	container := patched([{"op": "remove", "path": "/securityContext"}])
	root_allowed({"os": {"name": "windows"}, "containers": [container]})
}

# Images.

tagged(image) := deployment(patched([{"op": "replace", "path": "/image", "value": image}]))

test_image_floating if {
	every image in ["shop", "shop:latest", "registry.example:5000/shop", "registry.example:5000/a/shop:latest", ""] {
		count(main.deny_latest_tag) == 1 with input as tagged(image)
	}
}

test_image_missing if {
	count(main.deny_latest_tag) == 1 with input as deployment(patched([{"op": "remove", "path": "/image"}]))
}

test_image_tagged_is_warned_about if {
	every image in ["shop:1.2.3", "registry.example:5000/shop:42", "shop:latest-slim"] {
		main.deny_latest_tag == set() with input as tagged(image)
		count(main.warn_unpinned_image) == 1 with input as tagged(image)
	}
}

test_image_digest_outweighs_tag if {
	object := tagged("shop:latest@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef")
	main.deny_latest_tag == set() with input as object
	main.warn_unpinned_image == set() with input as object
}

# Probes.

test_probes_each_missing_one_counts if {
	every probe in ["livenessProbe", "readinessProbe"] {
		container := patched([{"op": "remove", "path": sprintf("/%s", [probe])}])
		msgs := main.deny_missing_probes with input as deployment(container)
		count(msgs) == 1
		some msg in msgs
		contains(msg, probe)
	}
}

test_probes_empty_is_missing if {
	container := patched([{"op": "replace", "path": "/livenessProbe", "value": {}}])
	count(main.deny_missing_probes) == 1 with input as deployment(container)
}

test_probes_not_for_what_ends if {
	container := patched([{"op": "remove", "path": "/livenessProbe"}])
	main.deny_missing_probes == set() with input as workload("Job", {"containers": [container]})
	main.deny_missing_probes == set() with input as {"kind": "Pod", "spec": {"containers": [container]}}
}

test_probes_not_for_init_containers if {
	init := patched([{"op": "remove", "path": "/livenessProbe"}])
	object := workload("StatefulSet", {"initContainers": [init], "containers": [good_container]})
	main.deny_missing_probes == set() with input as object
}

# Resources.

test_resources_all_missing if {
	container := patched([{"op": "remove", "path": "/resources"}])
	count(main.deny_missing_resources) == 4 with input as deployment(container)
}

test_resources_limit_stands_in_for_request if {
	container := patched([{"op": "remove", "path": "/resources/requests"}])
	main.deny_missing_resources == set() with input as deployment(container)
}

test_resources_request_does_not_stand_in_for_limit if {
	container := patched([{"op": "remove", "path": "/resources/limits/memory"}])
	msgs := main.deny_missing_resources with input as deployment(container)
	msgs == {`container "app" has no limit for memory: set resources.limits.memory on the container or the pod`}
}

test_resources_zero_is_none if {
	every zero in ["0", 0, "0Mi", "0.0"] {
		container := patched([{"op": "replace", "path": "/resources/limits/memory", "value": zero}])
		count(main.deny_missing_resources) == 1 with input as deployment(container)
	}
}

test_resources_pod_level if {
	container := patched([{"op": "remove", "path": "/resources"}])
	object := workload("Deployment", {"resources": good_container.resources, "containers": [container]})
	main.deny_missing_resources == set() with input as object
}

test_resources_init_containers_count if {
	init := patched([{"op": "remove", "path": "/resources"}])
	object := workload("Job", {"initContainers": [init], "containers": [good_container]})
	count(main.deny_missing_resources) == 4 with input as object
}

# Where pods are found.

test_pods_are_found_everywhere if {
	bad := {"name": "app", "image": "shop"}
	every object in [
		{"kind": "Pod", "spec": {"containers": [bad]}},
		{"kind": "PodTemplate", "template": {"spec": {"containers": [bad]}}},
		{"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [bad]}}}}}},
		workload("Job", {"containers": [bad]}),
		workload("Rollout", {"containers": [bad]}),
	] {
		count(main.deny_latest_tag) == 1 with input as object
	}
}

test_equal_containers_are_named_apart if {
	twins := workload("Deployment", {"containers": [{"name": "a", "image": "shop"}, {"name": "b", "image": "shop"}]})
	count(main.deny_latest_tag) == 2 with input as twins
}
