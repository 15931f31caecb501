package rollout

import (
	"cmp"
	"fmt"
	"time"

	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/stages"
)

// Config configures a [Verifier].
type Config struct {
	// REST is how to reach the cluster. It is copied. Without a rate limit of its
	// own it gets 50 requests per second in bursts of 100. Required, unless Cluster
	// is set.
	REST *rest.Config
	// Cluster is a connection to share with other verifiers, see [Connect]. Closing
	// the verifier leaves it open.
	Cluster *Cluster
	// Timeout bounds a verification. Default 5 minutes.
	Timeout time.Duration
	// Settle is how long a pod must have run without a restart until it counts as
	// ready, if one of its containers or sidecars has no readiness probe: without one,
	// Kubernetes calls it ready when the process has been started. Default 5 seconds,
	// none if negative.
	Settle time.Duration
	// Rules override how causes are treated; see [DefaultRule].
	Rules map[Cause]Rule
	// Reasons override Rules for what Kubernetes names so, such as
	// "ErrImagePull", "CrashLoopBackOff" or "UnexpectedAdmissionError": the Reason
	// of a [Failure]'s evidence.
	Reasons map[string]Rule
	// StrictImageID takes nothing but the image's digest in a container's imageID
	// for a proof. By default a pod that pins the digest is believed where the
	// runtime reports the same content under another name: the digest of another
	// index or manifest that it was pulled by before, or of its configuration.
	StrictImageID bool
	// AllowUnused accepts a release in which no pod runs the image, such as one
	// of nothing but a CronJob. One whose workloads name the image and are scaled to
	// zero, or keep all of their pods by a StatefulSet's partition, needs it not: the
	// verification says that nothing is to run.
	AllowUnused bool
	// Readiness says how to judge objects of kinds that this package doesn't know,
	// or knows otherwise.
	Readiness []Readiness
	// IngressAddress requires every Ingress to have been given an address. By
	// default one only has to exist: many controllers never write an address.
	IngressAddress bool
	// CronRuns waits for each CronJob that isn't suspended until a run of its current
	// template has completed, and fails if one fails. It is for schedules shorter than
	// Timeout. By default a CronJob has to exist and to name the image, and what its
	// runs do is no part of the rollout: the next one may be days away.
	CronRuns bool
	// AllowUnavailable accepts a workload as rolled out while as many of its pods
	// are missing as its own maxUnavailable permits, but not all of them: one
	// broken node then doesn't fail a DaemonSet. By default every pod must be ready.
	AllowUnavailable bool
	// Completion waits for a pod of its own until it has succeeded, not only until it
	// is ready. A pod that restarts its containers whenever they end never does.
	Completion bool
	// LogLines and LogBytes bound the log lines collected from each failing
	// container. Default 20 lines and 8 KiB.
	LogLines int
	LogBytes int
	// EvidenceTimeout bounds the collection of logs and events after the verdict, so
	// that no slow node holds it up; the evidence says what is missing. Default 750
	// milliseconds.
	EvidenceTimeout time.Duration
	// Redact masks secrets in log lines, events and messages. It is called after
	// [Redact] and must be safe for concurrent use.
	Redact func(text string) string
}

// The defaults of [Config].
const (
	DefaultTimeout         = 5 * time.Minute
	DefaultSettle          = 5 * time.Second
	DefaultLogLines        = 20
	DefaultLogBytes        = 8 << 10
	DefaultEvidenceTimeout = 750 * time.Millisecond

	defaultQPS   = 50
	defaultBurst = 100
)

// settings is a Config that was checked and completed.
type settings struct {
	Config
	rules     ruleBook
	readiness map[string]ReadinessCheck // by API group and kind
	clean     cleaner
	// drain waits, at the end, for pods that have been replaced to be gone.
	drain bool
}

func (c Config) complete() (settings, error) {
	rules, err := rulesWith(c.Rules, c.Reasons)
	if err != nil {
		return settings{}, err
	}
	checks, err := checksByKind(c.Readiness)
	switch {
	case err != nil:
		return settings{}, err
	case c.Timeout < 0 || c.LogLines < 0 || c.LogBytes < 0 || c.EvidenceTimeout < 0:
		return settings{}, fmt.Errorf("%w: Timeout, LogLines, LogBytes and EvidenceTimeout can't be negative", stages.ErrInvalid)
	}
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	c.Settle = cmp.Or(c.Settle, DefaultSettle)
	c.LogLines = cmp.Or(c.LogLines, DefaultLogLines)
	c.LogBytes = cmp.Or(c.LogBytes, DefaultLogBytes)
	c.EvidenceTimeout = cmp.Or(c.EvidenceTimeout, DefaultEvidenceTimeout)
	return settings{Config: c, rules: rules, readiness: checks, clean: cleaner{extra: c.Redact}}, nil
}
