package stages

// FieldChange is one field that a deployment would change, or that somebody has
// changed since the last one.
type FieldChange struct {
	// Path names the field, such as spec.template.spec.containers[name=web].image
	// or data["app.yaml"].
	Path string `json:"path"`
	// From and To are the values as JSON, empty where there is none. What is secret
	// in them is replaced at the source.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// Secret says that the values are masked: that they differ is all there is to see.
	Secret bool `json:"secret,omitempty"`
	// Owner is the field manager that holds the live field where that is not the
	// deployer itself, such as "kubectl-edit" or, for what was written through a
	// subresource, "kube-controller-manager/scale".
	Owner string `json:"owner,omitempty"`
	// Overwritten says that the deployment would write the field over what its
	// owner has put there.
	Overwritten bool `json:"overwritten,omitempty"`
}

// Drift is in what a live object differs from the release that is deployed.
type Drift struct {
	Object Object `json:"object"`
	// Missing says that the object is gone.
	Missing bool `json:"missing,omitempty"`
	// Fields go from what the release says to what the cluster has.
	Fields []FieldChange `json:"fields,omitempty"`
}

// DangerClass classes what can't easily be taken back.
type DangerClass string

// The classes.
const (
	// DangerImmutable is a change of a field that can't be changed in place: the
	// object would have to be deleted and made anew.
	DangerImmutable DangerClass = "immutable-field"
	// DangerCRD is a change or deletion of a CustomResourceDefinition, with which
	// go all objects of its kind.
	DangerCRD DangerClass = "crd"
	// DangerStorage is a deletion of what holds data.
	DangerStorage DangerClass = "storage-deletion"
	// DangerHook is a hook whose delete policy removes what holds data.
	DangerHook DangerClass = "hook-deletion"
	// DangerNamespace is a change or deletion of a namespace, or an object that
	// moves from one to another.
	DangerNamespace DangerClass = "namespace"
	// DangerOwnership is an object that is taken from another release.
	DangerOwnership DangerClass = "ownership"
	// DangerRefused is a change that the cluster, or the deployer, would refuse, so
	// that the deployment would fail half way.
	DangerRefused DangerClass = "refused"
)

// DangerClasses returns all classes.
func DangerClasses() []DangerClass {
	return []DangerClass{DangerImmutable, DangerCRD, DangerStorage, DangerHook, DangerNamespace, DangerOwnership, DangerRefused}
}

// Danger is a reason to look twice.
type Danger struct {
	Class  DangerClass `json:"class"`
	Object Object      `json:"object"`
	// Why says what would happen, in a sentence without a full stop.
	Why string `json:"why"`
}

// Refusal is a denial that a deployment would meet, found without changing
// anything.
type Refusal struct {
	// Reason classes it in the deployer's words, such as "QuotaExceeded".
	Reason string `json:"reason"`
	// Message is the account of whoever refuses, with secrets masked.
	Message string `json:"message"`
	// Fields are the paths that are refused, where they are known.
	Fields []string `json:"fields,omitempty"`
}

// Kind is a kind of objects that a release defines.
type Kind struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// Resource is its plural, as in the paths of the API.
	Resource   string `json:"resource"`
	Namespaced bool   `json:"namespaced"`
	// Pending says that the cluster doesn't have it as the release defines it, or at
	// all, before the release is deployed.
	Pending bool `json:"pending,omitempty"`
}

// NoteKind classes a [Note].
type NoteKind string

// The kinds.
const (
	// NoteNotCompared: the object could not be compared with the live one, so its
	// change is the one against the last release.
	NoteNotCompared NoteKind = "not-compared"
	// NoteNamespaceMissing: the namespace doesn't exist yet, so nothing in it could
	// be tried.
	NoteNamespaceMissing NoteKind = "namespace-missing"
	// NoteKindMissing: this release, or one that goes before, has yet to define the
	// object's kind, or to change its definition, so it could not be tried.
	NoteKindMissing NoteKind = "kind-missing"
	// NoteNotTried: part of what a deployment causes, such as the pods of a
	// workload, could not be tried.
	NoteNotTried NoteKind = "not-tried"
	// NoteWarning: the API server warned.
	NoteWarning NoteKind = "warning"
	// NoteAdopted: the object exists already and becomes part of the release.
	NoteAdopted NoteKind = "adopted"
	// NoteKept: the object stays when its release is removed.
	NoteKept NoteKind = "kept"
	// NoteTakenOver: the object was written in another way before, and what of it the
	// release does not have is dropped.
	NoteTakenOver NoteKind = "taken-over"
	// NoteImageUnchecked: the object has what may be an image reference outside of
	// where those are known to be, and nobody looks at it.
	NoteImageUnchecked NoteKind = "image-unchecked"
	// NoteVolatile: the object renders differently every time, so that the fields
	// which do are not bound by the plan's digest.
	NoteVolatile NoteKind = "volatile"
)

// Note is what one must know of a plan to read it rightly.
type Note struct {
	Kind NoteKind `json:"kind"`
	// Object is what it is about; zero for the whole plan.
	Object  Object `json:"object,omitzero"`
	Message string `json:"message"`
}

// AllDangers returns the dangers of every change and those of the plan itself.
func (p Plan) AllDangers() []Danger {
	var out []Danger
	for _, c := range p.Changes {
		out = append(out, c.Dangers...)
	}
	return append(out, p.Dangers...)
}
