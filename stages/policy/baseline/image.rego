# Images are what was tested, not what a tag happens to mean today.
package main

import data.fairlead.workload
import rego.v1

deny_latest_tag contains msg if {
	some container in workload.all_containers
	image := object.get(container, "image", "")
	image_floats(image)
	msg := sprintf(
		"container %q uses image %q, which changes under your feet: give it a tag other than latest, or better a digest",
		[workload.name(container), image],
	)
}

warn_unpinned_image contains msg if {
	some container in workload.all_containers
	image := object.get(container, "image", "")
	not image_floats(image)
	not contains(image, "@")
	msg := sprintf(
		"container %q uses image %q by tag, which can be moved: pin it by digest",
		[workload.name(container), image],
	)
}

image_floats(image) if {
	not contains(image, "@")
	image_tag(image) in {"", "latest"}
}

# The tag is behind a colon in the last path element; any other is a port's.
image_tag(image) := tag if {
	elements := split(image, "/")
	parts := split(elements[count(elements) - 1], ":")
	tag := concat(":", array.slice(parts, 1, count(parts)))
}
