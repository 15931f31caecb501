// Package diff shows a [stages.Plan] to people and to programs: as text like that
// of helm-diff, as counts, as JSON, and as a fragment of HTML.
//
//	plan, err := deployer.Plan(ctx, request)
//	...
//	err = diff.Text(os.Stdout, plan, diff.TextOptions{Color: true})
//
// It adds nothing to what the plan says, and takes no secret out of it: the planner
// has done that. Names and values are taken for hostile: they can't command a
// terminal, and they are escaped in HTML.
package diff
