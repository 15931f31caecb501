package pipeline_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/pipeline"
	"github.com/fairlead-dev/fairlead/stages"
)

func TestNewRefuses(t *testing.T) {
	for want, breakIt := range map[string]func(*pipeline.Config){
		"a name of one line is required": func(c *pipeline.Config) { c.Name = " " },
		`pipeline "a\nb"`:                func(c *pipeline.Config) { c.Name = "a\nb" },
		"a Builder is required":          func(c *pipeline.Config) { c.Builder = nil },
		"a Scanner is required":          func(c *pipeline.Config) { c.Scanner = stages.ScannerFunc(nil) },
		"a Signer is required":           func(c *pipeline.Config) { c.Signer = nil },
		"a Deployer is required":         func(c *pipeline.Config) { c.Deployer = (*fake)(nil) },
		"nobody verifies signatures":     func(c *pipeline.Config) { c.SignatureVerifier = nil },
		"at least one scan gate":         func(c *pipeline.Config) { c.ScanGates = nil },
		"at least one Verifier":          func(c *pipeline.Config) { c.Verifiers = nil },
		"plan gates need a Deployer":     func(c *pipeline.Config) { c.Deployer = plain{c.Deployer} },
		"ScanGates[1] is nil":            func(c *pipeline.Config) { c.ScanGates = append(c.ScanGates, nil) },
		"PlanGates[0] is nil":            func(c *pipeline.Config) { c.PlanGates[0] = nil },
		"Verifiers[0] is nil":            func(c *pipeline.Config) { c.Verifiers = []stages.Verifier{stages.VerifierFunc(nil)} },
		"ReleaseGates[0] is nil":         func(c *pipeline.Config) { c.ReleaseGates[0] = nil },
		"Observers[0] is nil":            func(c *pipeline.Config) { c.Observers = []pipeline.Observer{nil} },
		"OnInconclusive is 7":            func(c *pipeline.Config) { c.OnInconclusive = 7 },
		"must not be negative":           func(c *pipeline.Config) { c.RollbackTimeout = -1 },
		"the journal's path is empty":    func(c *pipeline.Config) { c.Journal = pipeline.FileJournal("") },
		"deploy must not be retried":     func(c *pipeline.Config) { c.Retries.Deploy.Attempts = 2 },
		"verify must not be retried": func(c *pipeline.Config) {
			c.Verifiers = append(c.Verifiers, compensated{})
			c.Retries.Verify.Attempts = 2
		},
		"retry of scan: attempts and times must not": func(c *pipeline.Config) { c.Retries.Scan.Attempts = -1 },
		"retry of sign: multiplier 0.5":              func(c *pipeline.Config) { c.Retries.Sign.Multiplier = 0.5 },
		"retry of verify-signature: jitter 2":        func(c *pipeline.Config) { c.Retries.VerifySignature.Jitter = 2 },
	} {
		t.Run(want, func(t *testing.T) {
			c := config(newFake(t))
			breakIt(&c)
			p, err := pipeline.New(c)
			require.ErrorIs(t, err, stages.ErrInvalid)
			assert.ErrorContains(t, err, want)
			assert.Nil(t, p)
		})
	}
}

func TestNewJoinsAllProblems(t *testing.T) {
	_, err := pipeline.New(pipeline.Config{})
	for _, want := range []string{"a name", "a Builder", "a Scanner", "a Signer", "a Deployer", "nobody verifies", "one scan gate", "one Verifier"} {
		assert.ErrorContains(t, err, want)
	}
}

func TestNewAccepts(t *testing.T) {
	f := newFake(t)
	c := config(f)
	c.Signer, c.SignatureVerifier = f, nil // one that verifies, too
	c.Deployer = idempotent{f}
	c.Retries.Deploy = pipeline.Retry{Attempts: 3, Timeout: time.Minute}
	p, err := pipeline.New(c)
	require.NoError(t, err)
	c.ScanGates[0], c.Verifiers[0] = nil, nil // the pipeline has its own copy
	_, err = p.Run(t.Context(), source)
	require.NoError(t, err)
	assert.Contains(t, f.Calls(), "verify-signature")
}

// closing counts its Close.
type closing struct {
	*fake
	name   string
	closed *[]string
	err    error
}

func (c *closing) Close() error {
	*c.closed = append(*c.closed, c.name)
	if c.err == nil {
		panic("even then")
	}
	return c.err
}

func TestCloseOnceLastFirst(t *testing.T) {
	var closed []string
	failure := errors.New("still open")
	f := newFake(t)
	signer := &closing{f, "signer", &closed, failure}
	c := config(f)
	c.Signer, c.SignatureVerifier = signer, signer
	c.Deployer = &closing{f, "deployer", &closed, failure}
	c.Scanner = &closing{f, "scanner", &closed, nil}
	p := newPipeline(t, c)
	for range 2 {
		err := p.Close()
		require.ErrorIs(t, err, failure)
		require.ErrorIs(t, err, stages.ErrPanicked)
	}
	assert.Equal(t, []string{"deployer", "signer", "scanner"}, closed)
}
