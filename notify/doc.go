// Package notify tells people and machines what a run does. Each of its types
// is a [pipeline.Observer]:
//
//   - [Console] writes lines for people, coloured on a terminal.
//   - [NDJSON] writes one JSON object per line and event.
//
// The smallest use:
//
//	pipeline.New(pipeline.Config{
//		// …
//		Observers: []pipeline.Observer{notify.NewConsole(os.Stdout)},
//	})
//
// An observer never decides anything and never fails a run: what can't be
// written is kept as an error to ask for, and the run goes on. Text that comes
// from outside, such as a container's log, can't move the cursor, set a title or
// forge another line: [Console] shows control characters as what they are.
//
// Observers are safe for concurrent use, so one may serve several pipelines.
package notify
