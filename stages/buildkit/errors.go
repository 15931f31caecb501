package buildkit

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/stages"
)

// The reasons of a [BuildError], which are also those of its evidence.
const (
	// ReasonFailed is an instruction whose program ended with an exit code.
	ReasonFailed = "InstructionFailed"
	// ReasonKilled is an instruction whose program was killed, for which a lack of
	// memory is the usual cause.
	ReasonKilled = "InstructionKilled"
	// ReasonMalformed is a Dockerfile that can't be read, or makes no sense.
	ReasonMalformed = "MalformedDockerfile"
	// ReasonTarget is a stage to build that the Dockerfile does not have.
	ReasonTarget = "UnknownTarget"
	// ReasonImage is a base image that doesn't exist, or may not be read.
	ReasonImage = "BaseImageUnavailable"
	// ReasonUnreachable is a registry that can't be reached, or is out of order.
	ReasonUnreachable = "RegistryUnreachable"
	// ReasonOther is an instruction that failed without running a program, such
	// as a COPY of a file that isn't there.
	ReasonOther = "InstructionRefused"
)

// BuildError is a build that failed on account of its Dockerfile or of one of the
// instructions in it. Match it with [errors.As]. All text in it has secrets
// replaced.
type BuildError struct {
	// Reason is one of the Reason constants.
	Reason string
	// Dockerfile is the file's path below the source folder.
	Dockerfile string
	// Line and EndLine are where the instruction begins and ends, counted from 1;
	// 0 where no single instruction is to blame.
	Line, EndLine int
	// Instruction is the instruction's text, on one line.
	Instruction string
	// ExitCode is the exit status of the instruction's program, and 0 if it ran
	// none.
	ExitCode int
	// Output is what the instruction printed last, in the order of its arrival: lines
	// of its standard output and standard error may have changed places.
	Output []string

	complaint string
	cause     error
}

var _ stages.Evidencer = (*BuildError)(nil)

// Error returns a line such as "Dockerfile:12: RUN go build ./... failed with
// exit code 1: main.go:7: undefined: x".
func (e *BuildError) Error() string {
	var text strings.Builder
	text.WriteString(e.place())
	text.WriteString(": ")
	if e.Instruction != "" {
		text.WriteString(clip(e.Instruction, 160))
	}
	switch {
	case e.ExitCode != 0:
		fmt.Fprintf(&text, " failed with exit code %d", e.ExitCode)
		if e.complaint != "" {
			text.WriteString(": " + clip(e.complaint, 300))
		}
	case e.Instruction != "":
		text.WriteString(" failed: " + e.cause.Error())
	default:
		text.WriteString(e.cause.Error())
	}
	if remedy := e.remedy(); remedy != "" {
		text.WriteString(" (" + remedy + ")")
	}
	return text.String()
}

// Unwrap returns what BuildKit said, and the class of the failure.
func (e *BuildError) Unwrap() []error {
	switch e.Reason {
	case ReasonMalformed, ReasonTarget:
		return []error{stages.ErrInvalid, e.cause}
	case ReasonUnreachable:
		return []error{e.cause}
	}
	return []error{stages.Permanent(e.cause)}
}

// Evidence returns the failure as one fact.
func (e *BuildError) Evidence() []stages.Evidence {
	fact := stages.Evidence{
		Subject: e.place(),
		Reason:  e.Reason,
		Message: e.cause.Error(),
		Logs:    slices.Clone(e.Output),
		Remedy:  e.remedy(),
	}
	if e.Instruction != "" {
		fact.Message = e.Instruction + ": " + fact.Message
	}
	if e.ExitCode != 0 {
		code := int32(e.ExitCode)
		fact.ExitCode = &code
	}
	return []stages.Evidence{fact}
}

func (e *BuildError) place() string {
	if e.Line == 0 {
		return e.Dockerfile
	}
	return fmt.Sprintf("%s:%d", e.Dockerfile, e.Line)
}

func (e *BuildError) remedy() string {
	switch e.Reason {
	case ReasonKilled:
		return "give the BuildKit daemon more memory, or the build less to do at once"
	case ReasonTarget:
		return "set Config.Target to a stage that the Dockerfile names, or to none"
	case ReasonImage:
		return "check the image's name, and that Config.Auth has credentials for its registry"
	case ReasonUnreachable:
		return "check that the BuildKit daemon reaches the registry"
	}
	return ""
}

// error returns err with secrets replaced. An error without any is wrapped
// unchanged; of one with any nothing but its replaced text and its class is kept.
func (r *redactor) error(err error) error {
	text := err.Error()
	if safe := r.text(text); safe != text {
		if stages.IsPermanent(err) {
			return stages.Permanent(errors.New(safe))
		}
		return errors.New(safe)
	}
	return err
}
