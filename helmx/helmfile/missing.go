package helmfile

import (
	"context"
	"errors"
	"log/slog"

	yaml "go.yaml.in/yaml/v3"
)

// handlerError is the handler of missing files that refuses them, as none does.
const handlerError = "Error"

// levels are those at which the other handlers say that a file was skipped.
var levels = map[string]slog.Level{"Warn": slog.LevelWarn, "Info": slog.LevelInfo, "Debug": slog.LevelDebug}

// missingError is a file that is listed and doesn't exist. Nothing else may be skipped:
// not what can't be read, nor what such a file asks for.
type missingError struct {
	*FieldError
	entry entry
	file  string
}

func (e *missingError) Unwrap() error { return e.FieldError }

// handler reads what is to be done about missing files.
func (r *reader) handler(to *string) func(*yaml.Node, string) {
	return func(n *yaml.Node, field string) {
		if isNull(target(n)) {
			return
		}
		*to = r.text(n, field)
		if _, known := levels[*to]; !known && *to != handlerError {
			r.refuse(n, field, "%q is none of Error, Warn, Info and Debug", *to)
		}
	}
}

// skipped reports whether err is about a missing file that the handler lets be
// missing, and says so.
func (l *loader) skipped(ctx context.Context, handler string, err error) bool {
	missing, ok := errors.AsType[*missingError](err)
	level, lenient := levels[handler]
	if !ok || !lenient {
		return false
	}
	l.cfg.Logger.Log(ctx, level, "skipping a file that does not exist", "file", missing.file, "listed", missing.entry.place.at(missing.entry.line))
	return true
}
