package policy

import (
	"embed"
	"io/fs"
)

//go:embed baseline/*.rego
var baseline embed.FS

// Baseline returns policies that suit almost every application, in package
// [DefaultPackage], with their tests:
//
//   - deny_root: containers run as a user other than root
//   - deny_latest_tag: images have a tag other than latest, or a digest
//   - deny_missing_probes: containers of long-running workloads can tell whether
//     they are alive and ready
//   - deny_missing_resources: containers request processor time and memory, and
//     are limited in both
//   - warn_unpinned_image: images are pinned by digest
//
// They apply to pods and to whatever has a pod template.
func Baseline() fs.FS { return baseline }
