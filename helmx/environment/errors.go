package environment

import (
	"errors"
	"fmt"

	"github.com/fairlead-dev/fairlead/stages"
)

// ErrNoEnvironment is a ref that no pattern matches: nothing is to be released.
var ErrNoEnvironment = errors.New("no environment takes it")

// Problem classes what is wrong with a declaration.
type Problem string

// The problems.
const (
	// Malformed: the file is not YAML, or a value is not of the right shape.
	Malformed Problem = "malformed"
	// UnknownField: nothing has that name.
	UnknownField Problem = "unknown field"
	// Duplicate: a field, name, pattern or namespace is given twice.
	Duplicate Problem = "duplicate"
	// BadPattern: a pattern can't be understood.
	BadPattern Problem = "bad pattern"
	// Overlap: two environments claim the same refs, and neither's claim is the
	// narrower one.
	Overlap Problem = "overlapping patterns"
	// BadValue: a value is missing or not allowed.
	BadValue Problem = "bad value"
	// BadFile: a values file is missing, or outside of the folder.
	BadFile Problem = "bad values file"
)

// ConfigError is one mistake in the declaration of environments. It matches
// [stages.ErrInvalid]. All mistakes of a declaration are reported, joined.
type ConfigError struct {
	// File and Line are where it is; empty and 0 for what is declared in Go.
	File string
	Line int
	// Environment names the environment, where that is known.
	Environment string
	Problem     Problem
	// Message says what is wrong and what would mend it.
	Message string
}

// Error returns "file:line: environment "name": message".
func (e *ConfigError) Error() string {
	text := e.Message
	if e.Environment != "" {
		text = fmt.Sprintf("environment %s: %s", quote(e.Environment), text)
	}
	if e.File != "" {
		text = fmt.Sprintf("%s:%d: %s", e.File, e.Line, text)
	}
	return text
}

// Unwrap returns [stages.ErrInvalid].
func (e *ConfigError) Unwrap() error { return stages.ErrInvalid }
