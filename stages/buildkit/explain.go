package buildkit

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	gateway "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"

	"github.com/fairlead-dev/fairlead/stages"
)

// explain turns the error of a solve into a BuildError where the Dockerfile is
// concerned, and otherwise tells failures that a retry may mend from others.
func explain(err error, cfg Config, steps *tracker, r *redactor) error {
	cause := r.error(plain(err))
	failure := &BuildError{Dockerfile: cfg.Dockerfile, cause: cause}
	located := failure.locate(err, r)

	failed := steps.failed
	var vertex *errdefs.VertexError
	if errors.As(err, &vertex) {
		failed = vertex.Digest
	}
	failure.Output, failure.complaint = steps.tail(failed), steps.complaint(failed)
	failure.ExitCode = exitCode(err)
	if failure.ExitCode != 0 && !located {
		failure.Instruction = steps.instruction(failed)
	}
	text := strings.ToLower(err.Error())
	switch {
	case failure.ExitCode == killed:
		failure.Reason = ReasonKilled
	case failure.ExitCode != 0:
		failure.Reason = ReasonFailed
	case strings.Contains(text, "target stage"):
		failure.Reason = ReasonTarget
	case strings.Contains(text, "dockerfile parse error"), strings.Contains(text, "failed to read dockerfile"), strings.Contains(text, "no build stage in current context"):
		failure.Reason = ReasonMalformed
	case !located && errors.As(err, new(*errdefs.FrontendError)) && vertex == nil && !transient(err):
		failure.Reason = ReasonMalformed
	case !located:
		return registryFailure(cause)
	case transient(err):
		failure.Reason = ReasonUnreachable
	case strings.Contains(text, "failed to resolve source metadata"), strings.Contains(text, "failed to load metadata"):
		failure.Reason = ReasonImage
	case grpcerrors.Code(err) == codes.InvalidArgument, !errors.As(err, &vertex):
		// The frontend refused it before anything was run.
		failure.Reason = ReasonMalformed
	default:
		failure.Reason = ReasonOther
	}
	return failure
}

// killed is the exit code of a program ended by SIGKILL.
const killed = 128 + 9

// How daemons before BuildKit 0.9 tell of an exit code: in words alone.
var exitWords = regexp.MustCompile(`executor failed running .*: exit code: ([0-9]{1,3})$`)

// exitCode is the exit code of the program that failed, and 0 if none did.
func exitCode(err error) int {
	var exit *gateway.ExitError
	if errors.As(err, &exit) {
		return int(exit.ExitCode)
	}
	if words := exitWords.FindStringSubmatch(err.Error()); words != nil {
		code, _ := strconv.Atoi(words[1]) // the expression lets nothing else through
		return code
	}
	return 0
}

// locate finds the instruction that err points to, the innermost if several.
func (e *BuildError) locate(err error, r *redactor) bool {
	for _, source := range errdefs.Sources(err) {
		if source.Info == nil || len(source.Ranges) == 0 {
			continue
		}
		first, last := source.Ranges[0].Start.Line, int32(0)
		for _, part := range source.Ranges {
			first = min(first, part.Start.Line)
			last = max(last, part.Start.Line, part.End.Line)
		}
		lines := strings.Split(string(source.Info.Data), "\n")
		if first < 1 || int(last) > len(lines) {
			continue
		}
		if source.Info.Filename != "" {
			e.Dockerfile = source.Info.Filename
		}
		e.Line, e.EndLine = int(first), int(last)
		e.Instruction = r.text(oneLine(lines[first-1 : last]))
		return true
	}
	return false
}

// oneLine joins an instruction's continued lines, comments left out. Of a here-
// document it keeps the line that begins it.
func oneLine(lines []string) string {
	var words []string
	for i, line := range lines {
		line = strings.TrimSpace(line)
		if i > 0 && (line == "" || strings.HasPrefix(line, "#")) {
			continue
		}
		text, continued := strings.CutSuffix(line, "\\")
		words = append(words, strings.Fields(text)...)
		if !continued {
			break
		}
	}
	return strings.Join(words, " ")
}

// What BuildKit wraps around an error without adding to it, or with what the
// Dockerfile's line says as well.
var wrappings = regexp.MustCompile(`^(?:failed to solve: |rpc error: code = \w+ desc = |Unknown: |failed to compute cache key: |` +
	`failed to calculate checksum of ref [^:\s]+::\w+: |dockerfile parse error on line \d+: |` +
	`(?:\S+: )?failed to resolve source metadata for \S+: |` +
	`process "(?s:.*)" did not complete successfully: |executor failed running \[(?s:.*)\]: |` +
	`failed to solve with frontend \S+: |failed to create LLB definition: |failed to do request: )+`)

func shorten(text string) string { return wrappings.ReplaceAllString(text, "") }

// plain shortens an error of BuildKit's to what tells something, keeping it in
// the chain.
func plain(err error) error {
	if short := shorten(err.Error()); short != err.Error() {
		return &plainError{text: short, error: err}
	}
	return err
}

type plainError struct {
	text string
	error
}

func (e *plainError) Error() string { return e.text }
func (e *plainError) Unwrap() error { return e.error }

// registryFailure marks what a registry refuses for good, and adds what to do
// about it. Anything else may be mended by a retry.
func registryFailure(err error) error {
	text := strings.ToLower(err.Error())
	has := func(parts ...string) bool {
		for _, part := range parts {
			if strings.Contains(text, part) {
				return true
			}
		}
		return false
	}
	switch {
	case has("server gave http response to https client"):
		return stages.Permanent(fmt.Errorf("%w (the registry speaks plain HTTP: name it in Config.InsecureRegistries, and in Docker Engine's insecure-registries where that is the builder)", err))
	case has("certificate signed by unknown authority", "certificate is not valid", "x509:"):
		return stages.Permanent(fmt.Errorf("%w (give the BuildKit daemon the registry's certificate authority)", err))
	case has("401 unauthorized", "403 forbidden", "authorization failed", "authentication required", "access denied", "insufficient_scope", "no basic auth credentials", "denied:"):
		return stages.Permanent(fmt.Errorf("%w (check that Config.Auth has credentials for the registry that may push)", err))
	}
	return err
}

// transient reports whether err tells of a network or a server out of order.
func transient(err error) bool {
	switch grpcerrors.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted:
		return true
	}
	text := strings.ToLower(err.Error())
	for _, sign := range []string{
		"connection refused", "connection reset", "broken pipe", "no such host", "i/o timeout", "network is unreachable",
		"no route to host", "server misbehaving", "temporary failure", "tls handshake timeout", "timeout awaiting response",
		"unexpected eof", ": eof", "too many requests", "500 internal", "502 bad", "503 service", "504 gateway",
		"context deadline exceeded",
	} {
		if strings.Contains(text, sign) {
			return true
		}
	}
	return false
}
