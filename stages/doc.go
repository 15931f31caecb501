// Package stages is the contract of fairlead: the interfaces that a delivery is
// composed of and the values that flow between them. It imports only the
// standard library, holds no policy and touches nothing outside the process.
//
// # The digest spine
//
// An [Image] can only be made from a digest-pinned reference. Every later value
// names the image it is about, and [Clearance], which a [Deployer] demands, can
// only be issued by the engine after scan, policy and signature have passed for
// that very digest. Code that wants to deploy without them must say so with
// [BypassGates] and give a reason that ends up in the release record.
//
// # Writing a stage
//
// Implement one of [Builder], [Scanner], [Signer], [SignatureVerifier],
// [Deployer], [Verifier] or [Gate], and, where it applies, the optional
// abilities [Planner], [Compensator], [RestoreVerifier], [SeriesGate], [Idempotent]
// and [Closer], which are found by type assertion. The rules that hold for every stage:
//
//   - Methods may be called from several goroutines at once.
//   - A cancelled context stops the work. A method returns only when nothing it
//     started still runs, and its error then matches [context.Cause].
//   - Bad input is refused with an error matching [ErrInvalid] before anything
//     is changed. An error that a retry can't mend is wrapped by [Permanent].
//   - Errors, progress and evidence never contain a secret.
//
// Package stagestest turns these rules into a suite that an implementation's
// own test can run in five lines.
package stages
