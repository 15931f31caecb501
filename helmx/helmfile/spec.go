package helmfile

import (
	"fmt"

	yaml "go.yaml.in/yaml/v3"

	"github.com/fairlead-dev/fairlead/helmx"
)

// document is what one document of a helmfile says.
type document struct {
	place
	values       []entry
	environments map[string]environment
	bases        []string
	defaults     settings
	namespace    string
	kubeContext  located
	repositories []Repository
	commonLabels map[string]string
	templates    map[string]release
	releases     []release
	hasReleases  int
	missing      string
}

// located is a string with its line.
type located struct {
	text string
	line int
}

// entry is one of a list of values: a file, or a map.
type entry struct {
	located
	place
	file bool
	node *yaml.Node
}

type environment struct {
	values, secrets []entry
	kubeContext     located
	missing         string
}

// settings are what helmDefaults and a release have in common. Nil is not set.
type settings struct {
	wait, waitForJobs, createNamespace, skipCRDs, takeOwnership *bool

	timeout, deleteTimeout, historyMax *int

	kubeContext located
}

// crds is what becomes of the crds folder: the helm command makes what is missing.
func (s settings) crds() helmx.CRDs {
	if s.skipCRDs != nil && *s.skipCRDs {
		return helmx.CRDsSkip
	}
	return helmx.CRDsCreate
}

type release struct {
	place
	settings
	line                            int
	field                           string
	name, namespace, chart, version string
	condition                       located
	missing                         string
	installed                       *bool
	needs                           []located
	labels                          map[string]string
	values, secrets                 []entry
	set, setString                  []assignment
	inherit                         []inheritance
}

type assignment struct {
	line        int
	field, name string
	value, file string
	values      []string
}

type inheritance struct {
	located
	except []string
}

const (
	byCommand = "it runs a command; do that before, in a stage of its own"
	byHelmx   = "it is an option of the helm command"

	onlyLocalFiles = "it is about branches of git, and only local files are read"
)

var refusedAtRoot = map[string]string{
	"helmfiles":                "load every file as a set of its own, or put the releases into one file",
	"hooks":                    byCommand,
	"helmBinary":               "no helm command is run",
	"kustomizeBinary":          "no kustomize command is run",
	"lockFilePath":             "give exact versions",
	"apiVersions":              "what the cluster serves is asked of the cluster",
	"kubeVersion":              "the version is asked of the cluster",
	"missingFileHandlerConfig": onlyLocalFiles,
	"defaultInherit":           "write inherit into the releases",
	"chart":                    "write the chart into the releases",
	"llm":                      "there is no such command here",
}

func (r *reader) document(n *yaml.Node) document {
	d := document{place: r.place, environments: map[string]environment{}, commonLabels: map[string]string{}, templates: map[string]release{}}
	r.object(n, "", known{
		"values": func(n *yaml.Node, f string) { d.values = r.entries(n, f) },
		"environments": func(n *yaml.Node, f string) {
			for _, p := range r.pairs(n, f, 0) {
				d.environments[p.key.Value] = r.environment(p.value, f+"."+p.key.Value)
			}
		},
		"missingFileHandler": r.handler(&d.missing),
		"bases":              func(n *yaml.Node, f string) { d.bases = r.texts(n, f) },
		"helmDefaults":       func(n *yaml.Node, f string) { d.defaults = r.helmDefaults(n, f) },
		"namespace":          func(n *yaml.Node, f string) { d.namespace = r.text(n, f) },
		"kubeContext":        func(n *yaml.Node, f string) { d.kubeContext = located{r.text(n, f), n.Line} },
		"repositories": func(n *yaml.Node, f string) {
			for i, item := range r.list(n, f) {
				d.repositories = append(d.repositories, r.repository(item, fmt.Sprintf("%s[%d]", f, i)))
			}
		},
		"commonLabels": func(n *yaml.Node, f string) { d.commonLabels = r.textMap(n, f) },
		"templates": func(n *yaml.Node, f string) {
			for _, p := range r.pairs(n, f, 0) {
				d.templates[p.key.Value] = r.release(p.value, f+"."+p.key.Value)
			}
		},
		"releases": func(n *yaml.Node, f string) {
			d.hasReleases = n.Line
			for i, item := range r.list(n, f) {
				d.releases = append(d.releases, r.release(item, fmt.Sprintf("%s[%d]", f, i)))
			}
		},
	}, refusedAtRoot)
	return d
}

func (r *reader) environment(n *yaml.Node, field string) environment {
	var e environment
	r.object(n, field, known{
		"values":      func(n *yaml.Node, f string) { e.values = r.entries(n, f) },
		"secrets":     func(n *yaml.Node, f string) { e.secrets = r.files(n, f) },
		"kubeContext": func(n *yaml.Node, f string) { e.kubeContext = located{r.text(n, f), n.Line} },
		"mergeStrategy": func(n *yaml.Node, f string) {
			if r.text(n, f) != "override" {
				r.refuse(n, f, "only override is supported: list the files the other way round")
			}
		},
		"missingFileHandler": r.handler(&e.missing),
	}, map[string]string{"missingFileHandlerConfig": onlyLocalFiles})
	return e
}

// entries reads a list of files and maps.
func (r *reader) entries(n *yaml.Node, field string) []entry {
	var out []entry
	for i, item := range r.list(n, field) {
		e := entry{located: located{line: item.Line}, place: r.place, node: target(item)}
		switch {
		case e.node.Kind == yaml.MappingNode:
		case e.node.Kind == yaml.ScalarNode && e.node.Value != "":
			e.file, e.text = true, e.node.Value
		default:
			r.refuse(item, fmt.Sprintf("%s[%d]", field, i), "must be the path of a file, or a map")
			continue
		}
		out = append(out, e)
	}
	return out
}

func (r *reader) files(n *yaml.Node, field string) []entry {
	var out []entry
	for i, e := range r.entries(n, field) {
		if !e.file {
			r.refuse(e.node, fmt.Sprintf("%s[%d]", field, i), "must be the path of a file")
			continue
		}
		out = append(out, e)
	}
	return out
}

func (r *reader) repository(n *yaml.Node, field string) Repository {
	var repo Repository
	r.object(n, field, known{
		"name":      func(n *yaml.Node, f string) { repo.Name = r.text(n, f) },
		"url":       func(n *yaml.Node, f string) { repo.URL = r.text(n, f) },
		"oci":       func(n *yaml.Node, f string) { repo.OCI = r.boolean(n, f) },
		"plainHttp": func(n *yaml.Node, f string) { repo.PlainHTTP = r.boolean(n, f) },
		"username":  func(n *yaml.Node, f string) { repo.Username = r.text(n, f) },
		"password":  func(n *yaml.Node, f string) { repo.Password = r.text(n, f) },
		"caFile":    func(n *yaml.Node, f string) { repo.CAFile = r.text(n, f) },
	}, map[string]string{
		"certFile": "give the client certificate to what fetches the chart", "keyFile": "give the client certificate to what fetches the chart",
		"registryConfig": "give the credentials to what fetches the chart", "managed": "it logs in with a command of a cloud provider",
		"verify": "verify the chart in what fetches it", "keyring": "verify the chart in what fetches it",
		"passCredentials": "credentials are never passed on to another host", "skipTLSVerify": "give the repository's authority with caFile",
	})
	if repo.Name == "" || repo.URL == "" {
		r.refuse(n, field, "needs a name and a url")
	}
	return repo
}
