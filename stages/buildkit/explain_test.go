package buildkit

import (
	"errors"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

// at says that line of a small Dockerfile is to blame for err.
func at(line int32, err error) error {
	return errdefs.WithSource(err, &errdefs.Source{
		Info:   &pb.SourceInfo{Filename: "Dockerfile", Data: []byte("FROM base\nCOPY a b\nRUN <<EOF\nexit 5\nEOF\n")},
		Ranges: []*pb.Range{{Start: &pb.Position{Line: line}, End: &pb.Position{Line: line}}},
	})
}

func inStep(err error) error { return errdefs.WrapVertex(err, "sha256:step") }

func TestExplain(t *testing.T) {
	for _, test := range []struct {
		name               string
		err                error
		reason, text       string
		permanent, invalid bool
	}{
		{"exit code", failedRun(1), ReasonFailed, "Dockerfile:2: RUN go build ./... failed with exit code 1", true, false},
		{"killed", failedRun(137), ReasonKilled, "give the BuildKit daemon more memory", true, false},
		{
			"exit code of an old daemon", errors.New("failed to solve: executor failed running [/bin/sh -c x]: exit code: 7"),
			ReasonFailed, "Dockerfile: RUN x failed with exit code 7: last words", true, false,
		},
		{
			"target", errors.New(`failed to solve: target stage "x" could not be found`),
			ReasonTarget, `Dockerfile: target stage "x" could not be found (set Config.Target`, true, true,
		},
		{
			"syntax", at(2, errors.New("failed to solve: dockerfile parse error on line 2: unknown instruction: COPYY")),
			ReasonMalformed, "Dockerfile:2: COPY a b failed: unknown instruction: COPYY", true, true,
		},
		{
			"file to copy", at(2, inStep(errors.New(`failed to compute cache key: failed to calculate checksum of ref abc::def: "/a": not found`))),
			ReasonOther, `Dockerfile:2: COPY a b failed: "/a": not found`, true, false,
		},
		{
			"no such base image", at(1, errors.New("x.io/base: failed to resolve source metadata for x.io/base: x.io/base: not found")),
			ReasonImage, "Dockerfile:1: FROM base failed: x.io/base: not found (check the image's name", true, false,
		},
		{
			"base image's registry is away", at(1, errors.New(`x.io/base: failed to resolve source metadata for x.io/base: failed to do request: Head "https://x.io": dial tcp: lookup x.io: no such host`)),
			ReasonUnreachable, `Dockerfile:1: FROM base failed: Head "https://x.io": dial tcp: lookup x.io: no such host (check that`, false, false,
		},
		{
			"base image's registry is busy", at(1, inStep(errors.New("unexpected status from HEAD request: 429 Too Many Requests"))),
			ReasonUnreachable, "429 Too Many Requests", false, false,
		},
		{"line beyond the file", at(99, errors.New("odd")), "", "odd", false, false},
		{"push refused", errors.New("failed to solve: failed to push x.io/a: denied: no"), "", "check that Config.Auth has credentials", true, false},
		{"push to plain HTTP", errors.New("http: server gave HTTP response to HTTPS client"), "", "Config.InsecureRegistries", true, false},
		{"push to unknown certificate", errors.New("tls: x509: certificate signed by unknown authority"), "", "certificate authority", true, false},
		{"push to nobody", errors.New("failed to push: dial tcp: connection refused"), "", "connection refused", false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			redactor := new(redactor)
			steps := newTracker(func(stages.Progress) {}, redactor)
			steps.handle(&client.SolveStatus{
				Vertexes: []*client.Vertex{{Digest: "sha256:old", Name: "[a 1/1] RUN x", Started: timeAt(0), Completed: timeAt(1), Error: "exit code: 7"}},
				Logs:     []*client.VertexLog{{Vertex: "sha256:old", Data: []byte("last words\n")}},
			})
			err := explain(test.err, Config{Dockerfile: "Dockerfile"}, steps, redactor)
			assert.ErrorContains(t, err, test.text)
			assert.Equal(t, test.permanent, stages.IsPermanent(err), "%v", err)
			assert.Equal(t, test.invalid, errors.Is(err, stages.ErrInvalid))
			var failure *BuildError
			if !errors.As(err, &failure) {
				assert.Empty(t, test.reason)
				return
			}
			assert.Equal(t, test.reason, failure.Reason)
			require.Len(t, stages.EvidenceOf(err), 1)
			assert.Equal(t, test.reason, stages.EvidenceOf(err)[0].Reason)
		})
	}
}

func TestExplainKeepsNoSecret(t *testing.T) {
	redactor := new(redactor)
	redactor.add("s3cr3t-canary")
	err := explain(at(2, inStep(errors.New("bad s3cr3t-canary"))), Config{Dockerfile: "Dockerfile"}, newTracker(nil, redactor), redactor)
	for _, text := range texts(err) {
		assert.NotContains(t, text, "s3cr3t")
	}
	assert.ErrorContains(t, err, "bad [redacted]")
}

// texts are the messages of all errors in err's tree.
func texts(err error) []string {
	all := []string{err.Error()}
	//nolint:errorlint // this walks the tree itself
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			all = append(all, texts(inner)...)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			all = append(all, texts(inner)...)
		}
	}
	return all
}

func FuzzOneLine(f *testing.F) {
	f.Add("RUN a \\\n  # why\n b", int32(1), int32(3))
	f.Add("RUN <<EOF\nx\nEOF", int32(1), int32(3))
	f.Fuzz(func(t *testing.T, dockerfile string, first, last int32) {
		failure := &BuildError{Dockerfile: "Dockerfile", Reason: ReasonOther, cause: errors.New("no")}
		located := failure.locate(errdefs.WithSource(failure.cause, &errdefs.Source{
			Info:   &pb.SourceInfo{Data: []byte(dockerfile)},
			Ranges: []*pb.Range{{Start: &pb.Position{Line: first}, End: &pb.Position{Line: last}}},
		}), new(redactor))
		assert.Equal(t, located, failure.Line > 0)
		assert.LessOrEqual(t, failure.Line, failure.EndLine)
		assert.NotContains(t, failure.Instruction, "\n")
		assert.NotEmpty(t, failure.Error())
	})
}
