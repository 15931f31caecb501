package rollout

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// Cause is why a workload does not come up. Kubernetes reports the same cause
// under several reasons, and several causes under one reason; a Cause is the
// stable name that rules and programs go by. See [AdviceFor] for what each of
// them looks like, comes from and is mended by.
type Cause string

// The causes that lie in an image.
const (
	ImageNotFound      Cause = "ImageNotFound"
	ImageUnauthorized  Cause = "ImageUnauthorized"
	ImageRateLimited   Cause = "ImageRateLimited"
	ImageUnreachable   Cause = "ImageUnreachable"
	ImageWrongPlatform Cause = "ImageWrongPlatform"
	ImageNameInvalid   Cause = "ImageNameInvalid"
	ImageNeverPulled   Cause = "ImageNeverPulled"
	ImageUnsigned      Cause = "ImageUnsigned"
	ImagePullFailed    Cause = "ImagePullFailed"
	ImageVolume        Cause = "ImageVolume"
	ImageMismatch      Cause = "ImageMismatch"
)

// The causes that lie in a container.
const (
	Crash              Cause = "Crash"
	InitCrash          Cause = "InitCrash"
	OutOfMemory        Cause = "OutOfMemory"
	ProbeKilled        Cause = "ProbeKilled"
	StartupKilled      Cause = "StartupKilled"
	HookFailed         Cause = "HookFailed"
	CommandNotRunnable Cause = "CommandNotRunnable"
	StartFailed        Cause = "StartFailed"
	ConfigMissing      Cause = "ConfigMissing"
	RunsAsRoot         Cause = "RunsAsRoot"
	CreateFailed       Cause = "CreateFailed"
)

// The causes that keep a pod from being placed or prepared.
const (
	Unschedulable    Cause = "Unschedulable"
	SchedulingGated  Cause = "SchedulingGated"
	VolumeUnbound    Cause = "VolumeUnbound"
	VolumeMissing    Cause = "VolumeMissing"
	VolumeLost       Cause = "VolumeLost"
	VolumeAttach     Cause = "VolumeAttach"
	VolumeMount      Cause = "VolumeMount"
	DeviceUnprepared Cause = "DeviceUnprepared"
	SandboxFailed    Cause = "SandboxFailed"
	UserNamespace    Cause = "UserNamespace"
	ResizeImpossible Cause = "ResizeImpossible"
	NoRuntimeClass   Cause = "NoRuntimeClass"
)

// The causes that end a pod from outside.
const (
	Evicted          Cause = "Evicted"
	EphemeralStorage Cause = "EphemeralStorage"
	Preempted        Cause = "Preempted"
	NodeLost         Cause = "NodeLost"
	NodeShutdown     Cause = "NodeShutdown"
	NodeRefused      Cause = "NodeRefused"
	PodFailed        Cause = "PodFailed"
)

// The causes for which the API server refuses pods.
const (
	QuotaExceeded       Cause = "QuotaExceeded"
	LimitRange          Cause = "LimitRange"
	PodSecurity         Cause = "PodSecurity"
	AdmissionDenied     Cause = "AdmissionDenied"
	PolicyDenied        Cause = "PolicyDenied"
	WebhookFailed       Cause = "WebhookFailed"
	NoServiceAccount    Cause = "NoServiceAccount"
	NoPriorityClass     Cause = "NoPriorityClass"
	ControllerForbidden Cause = "ControllerForbidden"
	PodRefused          Cause = "PodRefused"
)

// The causes that lie in the workload itself.
const (
	DeadlineExceeded Cause = "DeadlineExceeded"
	JobFailed        Cause = "JobFailed"
	Paused           Cause = "Paused"
	ManualUpdate     Cause = "ManualUpdate"
	Missing          Cause = "Missing"
	GateClosed       Cause = "GateClosed"
	NotReady         Cause = "NotReady"
	Starting         Cause = "Starting"
	TimedOut         Cause = "TimedOut"
	SmokeFailed      Cause = "SmokeFailed"

	NoAddress      Cause = "NoAddress"
	NotAccepted    Cause = "NotAccepted"
	NotReconciled  Cause = "NotReconciled"
	ResourceFailed Cause = "ResourceFailed"
)

// Class says what a cause means for a rollout.
type Class int

// The classes.
const (
	// Transient never fails a rollout by itself; it is reported at the timeout.
	Transient Class = iota
	// TerminalAfter fails it once the cause was seen Count times in one pod, or has
	// held for After, whichever comes first.
	TerminalAfter
	// Terminal fails it at once.
	Terminal
)

// Rule is how a cause is treated.
type Rule struct {
	Class Class
	// Count is how many occurrences fail the rollout under [TerminalAfter]: crashes
	// of one container, failed pulls of one image, pods that ended from outside,
	// for each pod that is wanted. Crashes of before the release don't count: a pod
	// that is older may be what it mends. 0 is no limit.
	Count int
	// Grace is how many occurrences more than Count are tolerated while another
	// workload of the release, for which the program may wait, is on its way: too few
	// of its pods are ready yet, and it fails of nothing. Once it is ready, they are
	// counted anew; if it fails itself, that is the failure.
	Grace int
	// After is for how long the cause must hold without a break under
	// [TerminalAfter]. 0 is no limit.
	After time.Duration
}

func (r Rule) validate(what string) error {
	switch {
	case r.Class < Transient || r.Class > Terminal:
		return fmt.Errorf("%w: rule for %s: unknown class %d", stages.ErrInvalid, what, int(r.Class))
	case r.Count < 0 || r.Grace < 0 || r.After < 0:
		return fmt.Errorf("%w: rule for %s: Count, Grace and After can't be negative", stages.ErrInvalid, what)
	case r.Grace > 0 && (r.Class != TerminalAfter || r.Count == 0):
		return fmt.Errorf("%w: rule for %s: Grace needs TerminalAfter and Count", stages.ErrInvalid, what)
	case r.Class == TerminalAfter && r.Count == 0 && r.After == 0:
		return fmt.Errorf("%w: rule for %s: TerminalAfter needs Count or After", stages.ErrInvalid, what)
	}
	return nil
}

// patientTimes is how many crashes are tolerated of a program that may wait for another
// workload: the kubelet's back-off makes that two and a half minutes.
const patientTimes = 6

func never() Rule                              { return Rule{} }
func atOnce() Rule                             { return Rule{Class: Terminal} }
func after(d time.Duration) Rule               { return Rule{Class: TerminalAfter, After: d} }
func times(n int) Rule                         { return Rule{Class: TerminalAfter, Count: n} }
func timesWithGrace(n int) Rule                { return Rule{Class: TerminalAfter, Count: n, Grace: patientTimes - n} }
func timesOrAfter(n int, d time.Duration) Rule { return Rule{Class: TerminalAfter, Count: n, After: d} }

// Causes returns all causes in alphabetical order.
func Causes() []Cause { return slices.Sorted(maps.Keys(causeTable)) }

// DefaultRule returns how c is treated unless [Config.Rules] says otherwise.
// An unknown cause is transient.
func DefaultRule(c Cause) Rule { return causeTable[c].rule }

// ruleBook is the rules of one verifier.
type ruleBook struct {
	causes  map[Cause]Rule
	reasons map[string]Rule
}

// of returns the rule for a finding: the one for its reason, where there is one.
func (b ruleBook) of(f finding) Rule {
	if r, own := b.reasons[f.reason]; own {
		return r
	}
	return b.causes[cmp.Or(f.judgedAs, f.cause)]
}

// rulesWith returns the default rules with overrides applied.
func rulesWith(overrides map[Cause]Rule, reasons map[string]Rule) (ruleBook, error) {
	rules := make(map[Cause]Rule, len(causeTable))
	for c, row := range causeTable {
		rules[c] = row.rule
	}
	for _, c := range slices.Sorted(maps.Keys(overrides)) {
		if _, known := causeTable[c]; !known {
			return ruleBook{}, fmt.Errorf("%w: rule for unknown cause %q; see Causes", stages.ErrInvalid, c)
		}
		if err := overrides[c].validate(string(c)); err != nil {
			return ruleBook{}, err
		}
		rules[c] = overrides[c]
	}
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		if reason == "" {
			return ruleBook{}, fmt.Errorf("%w: rule for a reason without a name", stages.ErrInvalid)
		}
		if err := reasons[reason].validate("reason " + reason); err != nil {
			return ruleBook{}, err
		}
	}
	return ruleBook{causes: rules, reasons: reasons}, nil
}
