// Package releaseset releases many charts as one: it plans and shows the whole
// set at once, deploys in the order of what needs what, and when a member fails
// brings every member back that was changed.
//
//	set, err := releaseset.New(releaseset.Config{Members: []releaseset.Member{
//		{Namespace: "prod", Name: "db", Unscanned: true, Open: openDB},
//		{Namespace: "prod", Name: "shop", Needs: []string{"db"}, Clearance: cleared, Open: openShop},
//	}})
//	plan, err := set.Plan(ctx, releaseset.PlanRequest{Run: run})
//	fmt.Print(plan.Diff())
//	result, err := set.Apply(ctx, releaseset.ApplyRequest{Run: run})
//
// # All or nothing
//
// Before a member is touched, its state is recorded with [stages.Compensator].
// The first failure stops further starts. What is already being deployed is waited
// for, and then every member that may have been changed is restored, the last one
// first, under a context of its own, whatever happens on the way. What was restored
// is then waited for until it runs, where [Member.Verify] is a
// [stages.RestoreVerifier]. [Result] tells of every member what became of it, and
// [Error] keeps every cause.
//
// # Locks
//
// A deployer that is a [stages.Locker] has its member locked from before the
// checkpoint until the set has ended, so that nobody comes between a member and its
// restore. A member whose lock is refused is not touched.
//
// # Removals
//
// A member with [Member.Remove] is uninstalled, after all others are deployed and
// verified and before what it needs. It is in the plan and in the diff like any
// other, and is brought back when another member fails. Its records are given up
// when the set has succeeded.
//
// # Many members
//
// [Member.Open] makes a member's deployer when it is its turn, and the deployer is
// closed after it, so no more than [Config.Concurrency] charts are in memory,
// however many members there are. Members on one cluster should be opened on one
// shared connection.
//
// # What it never does
//
//   - It never starts a member before all that it needs is deployed, and verified
//     where [Member.Verify] says how.
//   - It never begins while a member can't be opened, has no clearance, or the needs
//     don't add up: such a set is refused with [stages.ErrInvalid] or
//     [stages.ErrNotCleared] before anything is changed.
//   - It never returns while a deployer or verifier of its own still works.
//   - It never retries.
package releaseset
