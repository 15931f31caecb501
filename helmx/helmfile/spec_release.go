package helmfile

import (
	"fmt"

	yaml "go.yaml.in/yaml/v3"
)

// These are accepted where they ask for what is so anyway.
var onlyFalse = map[string]string{
	"verify":                                "verify the chart in what fetches it",
	"devel":                                 "give the version",
	"recreatePods":                          "let the pod template change with what the pods must be restarted for",
	"force":                                 "an object that can't be updated is to be deleted on its own, beforehand",
	"forceConflicts":                        byHelmx,
	"reuseValues":                           "all values are in the file, or the release depends on what was there before",
	"rollbackOnFailure":                     "the whole set is rolled back when a release fails; drop it",
	"enableDNS":                             "templates ask no network",
	"skipSchemaValidation":                  "mend the values",
	"insecureSkipTLSVerify":                 "give the repository's authority with caFile",
	"plainHttp":                             "set it at the repository",
	"syncReleaseLabels":                     "labels are for selectors",
	"suppressDiff":                          "leave it out where the plan is shown",
	"disableAutoDetectedKubeVersionForDiff": "the version is asked of the cluster",
	"resolveOCIVersions":                    "give the exact version",
}

var refusedSettings = map[string]string{
	"args": byHelmx, "diffArgs": byHelmx, "syncArgs": byHelmx, "templateArgs": byHelmx,
	"keyring": "verify the chart in what fetches it", "postRenderer": byCommand, "postRendererArgs": byCommand,
	"suppressOutputLineRegex": "filter the plan where it is shown", "serverSide": byHelmx,
	"trackMode": "give a verifier with Config.Verify", "helmStuckGrace": "no helm command is run",
	"waitRetries": "it is ignored by helmfile as well; drop it",
}

var refusedAtRelease = map[string]string{
	"directory": "only Helm charts are released", "hooks": byCommand, "unitTests": "run them beforehand",
	"updateStrategy": "a release is never uninstalled to be updated", "description": "the release record names the run, the image and the commit",
	"valuesTemplate": "write a template into values", "setTemplate": "write a template into set", "env": "use set",
	"apiVersions": "what the cluster serves is asked of the cluster", "kubeVersion": "the version is asked of the cluster",
	"valuesPathPrefix": "write the whole paths", "verifyTemplate": "drop it", "waitTemplate": "write a template into wait",
	"installedTemplate": "write a template into condition", "conditionTemplate": "write a template into condition",
	"dependencies": "add them to the chart", "jsonPatches": "change the chart", "strategicMergePatches": "change the chart",
	"transformers": "change the chart", "adopt": "adopt the object on its own, beforehand", "forceGoGetter": "fetch the chart with Config.Fetch",
	"forceNamespace": "change the chart", "missingFileHandlerConfig": onlyLocalFiles,
	"trackTimeout": "give a verifier with Config.Verify", "trackLogs": "give a verifier with Config.Verify",
	"trackFailedLogs": "give a verifier with Config.Verify", "trackKinds": "give a verifier with Config.Verify",
	"skipKinds": "give a verifier with Config.Verify", "trackResources": "give a verifier with Config.Verify",
	"kubedogQPS": "set it where the cluster is connected to", "kubedogBurst": "set it where the cluster is connected to", "trackFailOnError": "give a verifier with Config.Verify",
	"chartPath": "use chart",
}

// flag returns what reads a choice. Null, which is also what a template comes to that
// renders nothing, is none: it must not uninstall a release.
func (r *reader) flag(to **bool) func(*yaml.Node, string) {
	return func(n *yaml.Node, field string) {
		if isNull(target(n)) {
			return
		}
		v := r.boolean(n, field)
		*to = &v
	}
}

// settings adds the fields that helmDefaults and releases have in common.
func (r *reader) settings(into *settings, fields known) known {
	number := func(to **int) func(*yaml.Node, string) {
		return func(n *yaml.Node, f string) { v := r.integer(n, f); *to = &v }
	}
	fields["wait"], fields["waitForJobs"] = r.flag(&into.wait), r.flag(&into.waitForJobs)
	fields["createNamespace"], fields["skipCRDs"] = r.flag(&into.createNamespace), r.flag(&into.skipCRDs)
	fields["takeOwnership"] = r.flag(&into.takeOwnership)
	fields["timeout"], fields["deleteTimeout"] = number(&into.timeout), number(&into.deleteTimeout)
	fields["cascade"] = func(n *yaml.Node, f string) {
		if how := r.text(n, f); how != "background" {
			r.refuse(n, f, "%q is not supported: removed is in the background; drop it", how)
		}
	}
	fields["historyMax"] = func(n *yaml.Node, f string) {
		number(&into.historyMax)(n, f)
		if *into.historyMax < 2 {
			r.refuse(n, f, "at least 2 revisions are needed to have one to go back to")
		}
	}
	fields["kubeContext"] = func(n *yaml.Node, f string) { into.kubeContext = located{r.text(n, f), n.Line} }
	// A set is all or nothing, and charts come with their dependencies.
	// A removal waits until all is gone. Nothing is validated but by the API server, and
	// kinds that a release before defines are known.
	for _, name := range []string{
		"atomic", "cleanupOnFail", "skipDeps", "skipRefresh", "deleteWait",
		"disableValidation", "disableValidationOnInstall", "disableOpenAPIValidation",
	} {
		fields[name] = func(n *yaml.Node, f string) { r.boolean(n, f) }
	}
	for name, advice := range onlyFalse {
		fields[name] = func(n *yaml.Node, f string) {
			if r.boolean(n, f) {
				r.refuse(n, f, "is not supported: %s", advice)
			}
		}
	}
	return fields
}

func (r *reader) helmDefaults(n *yaml.Node, field string) settings {
	var s settings
	r.object(n, field, r.settings(&s, known{}), refusedSettings)
	return s
}

func (r *reader) release(n *yaml.Node, field string) release {
	rel := release{place: r.place, line: n.Line, field: field}
	text := func(to *string) func(*yaml.Node, string) {
		return func(n *yaml.Node, f string) { *to = r.text(n, f) }
	}
	fields := r.settings(&rel.settings, known{
		"name":      text(&rel.name),
		"namespace": text(&rel.namespace),
		"chart":     text(&rel.chart),
		"version":   text(&rel.version),
		"condition": func(n *yaml.Node, f string) { rel.condition = located{r.text(n, f), n.Line} },
		"installed": r.flag(&rel.installed),
		"labels":    func(n *yaml.Node, f string) { rel.labels = r.textMap(n, f) },
		"needs": func(n *yaml.Node, f string) {
			for i, item := range r.list(n, f) {
				rel.needs = append(rel.needs, located{r.text(item, fmt.Sprintf("%s[%d]", f, i)), item.Line})
			}
		},
		"values":             func(n *yaml.Node, f string) { rel.values = r.entries(n, f) },
		"secrets":            func(n *yaml.Node, f string) { rel.secrets = r.files(n, f) },
		"set":                func(n *yaml.Node, f string) { rel.set = r.assignments(n, f, true) },
		"setString":          func(n *yaml.Node, f string) { rel.setString = r.assignments(n, f, false) },
		"inherit":            func(n *yaml.Node, f string) { rel.inherit = r.inherit(n, f) },
		"missingFileHandler": r.handler(&rel.missing),
	})
	refused := make(map[string]string, len(refusedSettings)+len(refusedAtRelease))
	for _, m := range []map[string]string{refusedSettings, refusedAtRelease} {
		for name, advice := range m {
			refused[name] = advice
		}
	}
	r.object(n, field, fields, refused)
	return rel
}

// assignments reads set, where a value may come from a file, or setString.
func (r *reader) assignments(n *yaml.Node, field string, files bool) []assignment {
	var out []assignment
	for i, item := range r.list(n, field) {
		a := assignment{line: item.Line, field: fmt.Sprintf("%s[%d]", field, i)}
		fields := known{
			"name":   func(n *yaml.Node, f string) { a.name = r.text(n, f) },
			"value":  func(n *yaml.Node, f string) { a.value = r.text(n, f) },
			"values": func(n *yaml.Node, f string) { a.values = r.texts(n, f) },
		}
		if files {
			fields["file"] = func(n *yaml.Node, f string) { a.file = r.text(n, f) }
		}
		r.object(item, a.field, fields, nil)
		given := 0
		for _, is := range []bool{a.value != "", a.file != "", len(a.values) > 0} {
			if is {
				given++
			}
		}
		switch {
		case a.name == "":
			r.refuse(item, a.field, "has no name")
		case given != 1:
			r.refuse(item, a.field, "needs one of value, values and file, and not empty; for an empty value use values")
		}
		out = append(out, a)
	}
	return out
}

func (r *reader) inherit(n *yaml.Node, field string) []inheritance {
	var out []inheritance
	for i, item := range r.list(n, field) {
		in := inheritance{located: located{line: item.Line}}
		r.object(item, fmt.Sprintf("%s[%d]", field, i), known{
			"template": func(n *yaml.Node, f string) { in.text = r.text(n, f) },
			"except":   func(n *yaml.Node, f string) { in.except = r.texts(n, f) },
		}, nil)
		out = append(out, in)
	}
	return out
}
