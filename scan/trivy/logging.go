package trivy

import (
	"bytes"
	"context"
	"log" //nolint:depguard // its output is what Trivy has diverted, and what is put back
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	trivylog "github.com/aquasecurity/trivy/pkg/log"
)

type loggerKey struct{}

// withLogger returns a context with which Trivy's messages go to logger.
func withLogger(ctx context.Context, logger *slog.Logger) context.Context {
	return context.WithValue(ctx, loggerKey{}, logger)
}

//nolint:gochecknoinits // what another package's init did can only be undone in one
func init() {
	// Trivy's log package makes the default logger of log/slog, and with it that
	// of package log, one that keeps every record in memory for its command line
	// to print. In another program, that swallows the log and never ends. This
	// runs after Trivy's init and before main could have set another.
	if _, hijacked := slog.Default().Handler().(*trivylog.DeferredHandler); hijacked {
		slog.SetDefault(slog.New(newStandardHandler()))
		log.SetOutput(os.Stderr)
		log.SetFlags(log.LstdFlags)
	}
	// Trivy logs through these variables. Messages that come with a context go to
	// the scan's logger; those without can't be told apart and are dropped.
	//nolint:reassign // Trivy has no other way to choose a logger
	trivylog.Debug, trivylog.Info, trivylog.Warn, trivylog.Error = drop, drop, drop, drop
	trivylog.DebugContext = forward(slog.LevelDebug)
	trivylog.InfoContext = forward(slog.LevelInfo)
	trivylog.WarnContext = forward(slog.LevelWarn)
	//nolint:reassign // as above: to this linter, it is an error of the other package
	trivylog.ErrorContext = forward(slog.LevelError)
}

func drop(string, ...any) {}

func forward(level slog.Level) func(context.Context, string, ...any) {
	return func(ctx context.Context, msg string, args ...any) {
		if logger, ok := ctx.Value(loggerKey{}).(*slog.Logger); ok {
			logger.Log(ctx, level, msg, args...)
		}
	}
}

// standardHandler writes as the default handler of log/slog does, which can't be
// had back once it was replaced: level, message and attributes, through package
// log. Records of Trivy, which get here from the few places in it that ask for
// the default logger, are left out.
type standardHandler struct {
	mu    *sync.Mutex
	buf   *bytes.Buffer
	attrs slog.Handler // writes a record's attributes, and only those, to buf
}

func newStandardHandler() *standardHandler {
	buf := new(bytes.Buffer)
	return &standardHandler{
		mu: new(sync.Mutex), buf: buf,
		attrs: slog.NewTextHandler(buf, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && (a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
				return slog.Attr{}
			}
			return a
		}}),
	}
}

func (h *standardHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo
}

func (h *standardHandler) Handle(ctx context.Context, r slog.Record) error {
	frame, _ := runtime.CallersFrames([]uintptr{r.PC}).Next()
	if strings.HasPrefix(frame.Function, "github.com/aquasecurity/trivy") {
		return nil
	}
	line := r.Level.String() + " " + r.Message
	// The text handler leaves out a zero time; package log writes its own.
	r.Time = time.Time{}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.buf.Reset()
	if err := h.attrs.Handle(ctx, r); err != nil {
		return err
	}
	if attrs := strings.TrimSpace(h.buf.String()); attrs != "" {
		line += " " + attrs
	}
	return log.Output(0, line)
}

func (h *standardHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &standardHandler{mu: h.mu, buf: h.buf, attrs: h.attrs.WithAttrs(attrs)}
}

func (h *standardHandler) WithGroup(name string) slog.Handler {
	return &standardHandler{mu: h.mu, buf: h.buf, attrs: h.attrs.WithGroup(name)}
}
