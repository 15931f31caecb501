package stages

import "context"

// Progress is one step of a stage's work, told while it runs.
type Progress struct {
	// ID is the same for all records about one piece of work, such as a build
	// step; empty where there is only one.
	ID string `json:"id,omitempty"`
	// Message is one line of text, free of secrets.
	Message string `json:"message"`
}

type progressKey struct{}

// WithProgress returns a context whose stages report progress to sink. The
// engine sets it; sink must be safe for concurrent use and must not block.
func WithProgress(ctx context.Context, sink func(Progress)) context.Context {
	return context.WithValue(ctx, progressKey{}, sink)
}

// ReportProgress hands p to the sink of ctx, if it has one.
func ReportProgress(ctx context.Context, p Progress) {
	if sink, ok := ctx.Value(progressKey{}).(func(Progress)); ok {
		sink(p)
	}
}
