package stages

import (
	"encoding/json"
	"time"
)

// Object names a Kubernetes object.
type Object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
}

// String returns "Kind namespace/name", or "Kind name" for a cluster-wide object.
func (o Object) String() string {
	if o.Namespace == "" {
		return o.Kind + " " + o.Name
	}
	return o.Kind + " " + o.Namespace + "/" + o.Name
}

// DeployRequest asks a [Deployer] for one release.
type DeployRequest struct {
	// Clearance names the image and says why it may be deployed, required.
	Clearance Clearance
	// Run identifies the run. It is recorded with the release, so that a later
	// Restore can tell its own work from somebody else's.
	Run string
	// Source is recorded with the release.
	Source Source
	// Plan, where set, is the digest of the plan that was decided on. A deployer
	// that plans refuses, with an error matching [ErrPlanStale] and before it changes
	// anything, if what it would do now is not what that plan said.
	Plan string
}

// Release is what a [Deployer] put into the cluster. Treat it as immutable.
type Release struct {
	// Image is what was released.
	Image Image `json:"image"`
	// Name and Namespace identify the release.
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	// Revision counts the release's deployments from 1.
	Revision int `json:"revision"`
	// Previous is the revision that was deployed before; 0 on a first install.
	Previous int `json:"previous,omitempty"`
	// Objects are what the release consists of.
	Objects []Object `json:"objects"`
	// Began is when the deployer began with the objects, by the same clock as Deployed:
	// which pods are of this release is told by it. Zero if the deployer doesn't say.
	Began time.Time `json:"began,omitzero"`
	// Deployed is when the deployer was done.
	Deployed time.Time `json:"deployed"`
}

// Action is what a plan would do to an object.
type Action string

// The actions.
const (
	Create Action = "create"
	Update Action = "update"
	Delete Action = "delete"
	// Recreate means that the object can't be changed in place. It would have to be
	// deleted and made anew; a deployer that doesn't do so fails on it.
	Recreate Action = "recreate"
	// Adopt means that the object exists and is not of the release yet.
	Adopt Action = "adopt"
)

// Basis is what a change was found against.
type Basis string

// The bases.
const (
	// BasisLive is the live object, and what the API server said would become of it.
	BasisLive Basis = "live"
	// BasisRelease is the manifest of the last release.
	BasisRelease Basis = "release"
)

// Change is one object that a deployment would change.
type Change struct {
	Action Action `json:"action"`
	Object Object `json:"object"`
	// Diff is the change as unified text, with secret values masked.
	Diff string `json:"diff,omitempty"`
	// Basis is what it was found against; empty if the planner doesn't say.
	Basis Basis `json:"basis,omitempty"`
	// Fields are the change field by field, ordered by path; none for objects that
	// are made or deleted.
	Fields []FieldChange `json:"fields,omitempty"`
	// Dangers are reasons to look twice.
	Dangers []Danger `json:"dangers,omitempty"`
	// Refusal is why the change would fail; nil if it wouldn't, as far as known.
	Refusal *Refusal `json:"refusal,omitempty"`
}

// PlanRequest asks a [Planner] what a deployment would do. It needs no
// clearance, because a plan changes nothing.
type PlanRequest struct {
	// Image is what would be deployed, required.
	Image Image
	// Run identifies the run.
	Run string
	// Source is what would be recorded.
	Source Source
	// Defined are kinds that other releases will have defined by then, see
	// [Plan.Defines]. The cluster may not have them yet.
	Defined []Kind
}

// Plan is what a deployment would do. Treat it as immutable.
type Plan struct {
	// Image is what would be deployed.
	Image Image `json:"image"`
	// Release names the release, "namespace/name".
	Release string `json:"release"`
	// Manifests is the rendered YAML stream, with secret values masked.
	Manifests []byte `json:"manifests"`
	// Changes are ordered as they would be applied. None means that the cluster
	// already is as the manifests say.
	Changes []Change `json:"changes"`
	// Hooks are in what the hooks differ from those of the release that is deployed:
	// what runs around the changes, and is none of the release's objects. One that is
	// deleted runs no more; what it made before may stay.
	Hooks []Change `json:"hooks,omitempty"`
	// Drift is in what the cluster differs from the release that is deployed.
	Drift []Drift `json:"drift,omitempty"`
	// Dangers are those that belong to no change, such as what hooks delete.
	Dangers []Danger `json:"dangers,omitempty"`
	// Defines are the kinds that the release defines.
	Defines []Kind `json:"defines,omitempty"`
	// Notes are what one must know to read the plan rightly.
	Notes []Note `json:"notes,omitempty"`
	// Digest identifies what would be done: image, manifests, the revision and the
	// live state that it builds on. See [DeployRequest.Plan]. Empty if the planner
	// gives none.
	Digest string `json:"digest,omitempty"`
}

// Verification is the proof that a release runs. Treat it as immutable.
type Verification struct {
	// Image is the digest that the running pods were seen with.
	Image Image `json:"image"`
	// Checks are what was verified, in order; all of them passed.
	Checks []Check `json:"checks"`
}

// Check is one thing that was verified.
type Check struct {
	// Name says what was checked, such as "rollout Deployment shop/shop".
	Name string `json:"name"`
	// Message says what was observed.
	Message string `json:"message,omitempty"`
	// Elapsed is how long it took until it held.
	Elapsed time.Duration `json:"elapsed"`
}

// CheckpointRequest tells a [Compensator] which side effect is to follow.
type CheckpointRequest struct {
	// Run identifies the run whose side effect it is.
	Run string
	// Image is what the side effect is about.
	Image Image
}

// Checkpoint is the state before a side effect, in the words of the
// [Compensator] that took it. It is journalled, so it holds no secret.
type Checkpoint struct {
	// Subject is what the checkpoint is about, such as "release shop/shop".
	Subject string `json:"subject"`
	// State is for the compensator alone, and must survive a new version of it.
	State json.RawMessage `json:"state"`
}

// RestoreOutcome is the state that a restore left behind.
type RestoreOutcome string

// The outcomes.
const (
	// Restored means that the checkpointed state is back, compared and equal.
	Restored RestoreOutcome = "restored"
	// Unchanged means that the side effect had never happened, or that its undoing
	// had been finished before.
	Unchanged RestoreOutcome = "unchanged"
	// Diverged means that the restore ran and that the state still differs.
	Diverged RestoreOutcome = "diverged"
	// Impossible means that the state can't be restored, for example because
	// somebody else has changed it since.
	Impossible RestoreOutcome = "impossible"
)

// Restoration is what a [Compensator] did.
type Restoration struct {
	// Subject is what was restored, as in the checkpoint.
	Subject string `json:"subject"`
	// Outcome is the state left behind.
	Outcome RestoreOutcome `json:"outcome"`
	// Message says what was done or why it could not be.
	Message string `json:"message"`
	// Release is what a restore has brought back, now or before, for a
	// [RestoreVerifier] to look at. It is nil where nothing is to run, as after a
	// first install, and where nothing had been changed. Its image is zero where the
	// compensator can't tell it, such as that of a release made by other means.
	Release *Release `json:"release,omitempty"`
}

// Removal is what an [Uninstaller] did. Treat it as immutable.
type Removal struct {
	// Release is "namespace/name".
	Release string `json:"release"`
	// Removed are the objects that are gone; none if the release wasn't there.
	Removed []Object `json:"removed,omitempty"`
	// Kept are the objects that the release leaves behind: what it has adopted, or
	// what is marked to be kept.
	Kept []Object `json:"kept,omitempty"`
}
