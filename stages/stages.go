package stages

import "context"

// Builder makes an image from source and pushes it.
type Builder interface {
	// Build returns the image by the digest that the registry holds it under.
	// Building the same source again is harmless.
	Build(ctx context.Context, src Source) (Image, error)
}

// Scanner looks for vulnerabilities.
type Scanner interface {
	// Scan reports on exactly img, read by digest. Findings are no error: what
	// they mean is for a [Gate] to decide.
	Scan(ctx context.Context, img Image) (Report, error)
}

// Signer signs images.
type Signer interface {
	// Sign stores a signature of img where verifiers look for it. Signing again
	// is harmless.
	Sign(ctx context.Context, img Image) (Signature, error)
}

// SignatureVerifier proves that an image is signed by a trusted key. The engine
// asks it before every deployment, whoever signed.
type SignatureVerifier interface {
	// VerifySignature returns a signature of img that verifies, or an error
	// matching [ErrSignature] that names the signatures that didn't and why.
	VerifySignature(ctx context.Context, img Image) (Signature, error)
}

// Deployer releases an image.
type Deployer interface {
	// Deploy refuses a request without a valid clearance with an error matching
	// [ErrNotCleared]. It returns when the cluster has accepted the release, not
	// when the release runs, which is for a [Verifier] to watch. When it fails, it
	// leaves the cluster for [Compensator.Restore]; it doesn't roll back itself.
	Deploy(ctx context.Context, req DeployRequest) (Release, error)
}

// Verifier proves that a release runs.
type Verifier interface {
	// Verify waits until rel is seen to run with its image's digest, or returns
	// an error as soon as it is seen that it can't. Such an error carries
	// evidence, see [EvidenceOf].
	Verify(ctx context.Context, rel Release) (Verification, error)
}

// RestoreVerifier is the optional ability of a [Verifier] to prove that a release
// runs again which a [Compensator] has brought back. The engine asks it after a
// restore, and reports what it finds. Verifiers that try a release out, such as
// smoke tests, don't have it: what ran before needs no trial.
type RestoreVerifier interface {
	// VerifyRestored waits, as [Verifier] does, until rel is seen to run, and for as
	// long as is reasonable until what it replaces has ended. Where rel names no
	// image, anything may run. It doesn't outlast a deadline of ctx: what is missing
	// then is told with evidence, like any other failure.
	VerifyRestored(ctx context.Context, rel Release) (Verification, error)
}

// Examiner is the optional ability of a [Verifier] to tell what the pods of a release
// say of themselves, where something else has noticed that it fails: a smoke test, or a
// gate on metrics. The engine asks those that have proved the release before, ahead of
// any restore.
type Examiner interface {
	// Examine returns what is seen of rel now, such as the last lines that its
	// containers wrote. It doesn't wait for anything to happen.
	Examine(ctx context.Context, rel Release) ([]Evidence, error)
}

// Planner is the optional ability of a [Deployer] to tell what it would change.
type Planner interface {
	// Plan changes nothing.
	Plan(ctx context.Context, req PlanRequest) (Plan, error)
}

// Compensator is the optional ability of a stage to undo its side effect.
type Compensator interface {
	// Checkpoint records the state before the side effect that req announces.
	Checkpoint(ctx context.Context, req CheckpointRequest) (Checkpoint, error)
	// Restore brings the state of cp back. It looks first and acts only on what
	// differs, so it can be called again, by another process too, and after a
	// side effect that never happened. The run is the one that cp was taken for:
	// what others have done since is not undone but reported as [Impossible].
	// It returns an error only where the outcome is not known; the other three
	// outcomes of a restore are in the Restoration.
	Restore(ctx context.Context, run string, cp Checkpoint) (Restoration, error)
}

// Uninstaller is the optional ability of a [Deployer] to remove its release.
type Uninstaller interface {
	// Uninstall removes the release and what it consists of, and waits until the
	// objects are gone. A release that isn't there is no error, so the call can be
	// repeated. Like Deploy it is done under the lock of run, where the deployer is
	// a [Locker].
	Uninstall(ctx context.Context, run string) (Removal, error)
}

// FailureRecorder is the optional ability of a [Deployer] to keep, with a release
// that it made, why the release failed, so that whoever looks at the release's
// history finds the cause. The engine calls it after a failure and before Restore;
// of a run whose process was killed, in the recovery.
type FailureRecorder interface {
	// RecordFailure changes nothing but the record. A run that has released nothing
	// is no error.
	RecordFailure(ctx context.Context, run string, cause error) error
}

// Idempotent is the optional ability of a mutating stage to be repeated. Only
// such stages are retried; building, scanning and signing always are.
type Idempotent interface {
	// Idempotent reports whether repeating a failed call is harmless.
	Idempotent() bool
}

// Closer is the optional ability of a stage to release what it holds.
type Closer interface {
	// Close is called once, after the last call of any other method.
	Close() error
}

// Locker is the optional ability of a [Deployer] to keep others off what it
// deploys to, from before the checkpoint until the release is verified or undone.
type Locker interface {
	// Lock takes the lock for a run, whose Checkpoint, Deploy and Restore are then
	// done under it. It waits as its configuration says, and refuses with an error
	// matching [ErrLocked] that names the holder. The lock of a holder that died is
	// taken over, and what the dead left half done is put right by the next Deploy.
	Lock(ctx context.Context, run string) (Unlock, error)
}

// Unlock gives a lock back. It is harmless to call it again. A lock that it fails
// to give back expires by itself.
type Unlock func(ctx context.Context) error
