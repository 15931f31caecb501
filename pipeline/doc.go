// Package pipeline is the engine of fairlead: it takes a source through the
// stages of a delivery to a verified release, or takes everything back that it
// changed on the way.
//
//	build → (scan → scan gates) ∥ (plan → plan gates) → sign → verify signature
//	      → clearance → checkpoint → deploy → verify → release gates → commit
//
// What it guarantees:
//
//   - Nothing is deployed before every gate has passed and the signature has
//     verified, for the very digest that was built. A stage that answers about
//     another image stops the run with [stages.ErrSubjectMismatch].
//   - Before a side effect, a stage that is a [stages.Compensator] is asked for a
//     checkpoint, which is journalled. When the run fails later, each checkpoint
//     is restored exactly once, in reverse order, under a context of its own, and
//     after the evidence was collected. A failed restore doesn't stop the others.
//   - A release that was restored is waited for until it runs, by each verifier that
//     is a [stages.RestoreVerifier]. If it doesn't, the run isn't called rolled back
//     but matches [stages.ErrNotReady], and says why.
//   - A killed process leaves a journal from which [Pipeline.Recover] finishes
//     the work. Until then, [Pipeline.Run] refuses to start.
//   - A cancelled run is stopped: Run returns only when no stage runs any more,
//     and then with an error that matches [context.Canceled].
//   - A stage that panics fails like any other. An observer can neither stall nor
//     crash a run.
//
// What can't be undone is said so: pushed digests and signatures stay in the
// registry unless their stages are compensators, and a deployer that is none
// leaves its release where it is, see [OutcomeLeft].
//
// The engine never retries a side effect unless its stage declares itself
// idempotent, never treats missing data as a pass, and never reads a tag.
//
// The smallest use is the package's example.
package pipeline
