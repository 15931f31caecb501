package rollout

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// Cause is why a workload does not come up. Kubernetes reports the same cause
// under several reasons, and several causes under one reason; a Cause is the
// stable name that rules and programs go by.
type Cause string

// The causes.
const (
	ImageNotFound      Cause = "ImageNotFound"
	ImageUnauthorized  Cause = "ImageUnauthorized"
	ImageRateLimited   Cause = "ImageRateLimited"
	ImageUnreachable   Cause = "ImageUnreachable"
	ImageWrongPlatform Cause = "ImageWrongPlatform"
	ImageNameInvalid   Cause = "ImageNameInvalid"
	ImageNeverPulled   Cause = "ImageNeverPulled"
	ImagePullFailed    Cause = "ImagePullFailed"
	ImageMismatch      Cause = "ImageMismatch"

	Crash              Cause = "Crash"
	OutOfMemory        Cause = "OutOfMemory"
	ProbeKilled        Cause = "ProbeKilled"
	CommandNotRunnable Cause = "CommandNotRunnable"
	StartFailed        Cause = "StartFailed"
	ConfigMissing      Cause = "ConfigMissing"
	RunsAsRoot         Cause = "RunsAsRoot"
	CreateFailed       Cause = "CreateFailed"

	Unschedulable    Cause = "Unschedulable"
	VolumeUnbound    Cause = "VolumeUnbound"
	VolumeMount      Cause = "VolumeMount"
	SandboxFailed    Cause = "SandboxFailed"
	PodFailed        Cause = "PodFailed"
	QuotaExceeded    Cause = "QuotaExceeded"
	LimitRange       Cause = "LimitRange"
	PodSecurity      Cause = "PodSecurity"
	AdmissionDenied  Cause = "AdmissionDenied"
	WebhookFailed    Cause = "WebhookFailed"
	NoServiceAccount Cause = "NoServiceAccount"
	PodRefused       Cause = "PodRefused"

	DeadlineExceeded Cause = "DeadlineExceeded"
	JobFailed        Cause = "JobFailed"
	Paused           Cause = "Paused"
	ManualUpdate     Cause = "ManualUpdate"
	Missing          Cause = "Missing"
	NotReady         Cause = "NotReady"
	Starting         Cause = "Starting"
	TimedOut         Cause = "TimedOut"
	SmokeFailed      Cause = "SmokeFailed"

	VolumeLost     Cause = "VolumeLost"
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
	// of one container, failed pulls of one image, failed pods. 0 is no limit.
	Count int
	// After is for how long the cause must hold without a break under
	// [TerminalAfter]. 0 is no limit.
	After time.Duration
}

func (r Rule) validate(c Cause) error {
	switch {
	case r.Class < Transient || r.Class > Terminal:
		return fmt.Errorf("%w: rule for %s: unknown class %d", stages.ErrInvalid, c, int(r.Class))
	case r.Count < 0 || r.After < 0:
		return fmt.Errorf("%w: rule for %s: Count and After can't be negative", stages.ErrInvalid, c)
	case r.Class == TerminalAfter && r.Count == 0 && r.After == 0:
		return fmt.Errorf("%w: rule for %s: TerminalAfter needs Count or After", stages.ErrInvalid, c)
	}
	return nil
}

// cause is one row of the table: the default rule, and what usually mends it.
type causeRow struct {
	rule   Rule
	remedy string
}

func never() Rule                              { return Rule{} }
func atOnce() Rule                             { return Rule{Class: Terminal} }
func after(d time.Duration) Rule               { return Rule{Class: TerminalAfter, After: d} }
func times(n int) Rule                         { return Rule{Class: TerminalAfter, Count: n} }
func timesOrAfter(n int, d time.Duration) Rule { return Rule{Class: TerminalAfter, Count: n, After: d} }

var causeTable = map[Cause]causeRow{
	ImageNotFound:      {atOnce(), "push the image, or correct the repository or digest"},
	ImageUnauthorized:  {atOnce(), "give the pods an imagePullSecret that may read the repository, and check that the repository exists"},
	ImageRateLimited:   {after(2 * time.Minute), "pull with credentials, or through a mirror, to raise the registry's rate limit"},
	ImageUnreachable:   {timesOrAfter(3, time.Minute), "check that the nodes reach the registry: name, port, proxy, TLS"},
	ImageWrongPlatform: {atOnce(), "build the image for the nodes' architecture too"},
	ImageNameInvalid:   {atOnce(), "correct the image reference in the manifest"},
	ImageNeverPulled:   {atOnce(), "set imagePullPolicy to IfNotPresent, or load the image onto the nodes"},
	ImagePullFailed:    {timesOrAfter(3, time.Minute), "see the message of the container runtime"},
	ImageMismatch:      {atOnce(), "make the chart use the delivered image by digest"},

	Crash:              {times(2), "see the logs; check arguments, environment and dependencies"},
	OutOfMemory:        {times(2), "raise resources.limits.memory or lower the program's use of memory"},
	ProbeKilled:        {times(2), "give a slow start a startupProbe with a larger failureThreshold, or correct the probe's path and port"},
	CommandNotRunnable: {atOnce(), "correct command and args; the file must exist in the image, be executable and fit the platform"},
	StartFailed:        {timesOrAfter(3, 30*time.Second), "see the message of the container runtime"},
	ConfigMissing:      {after(10 * time.Second), "create the ConfigMap, Secret or key that the pod refers to, or mark it optional"},
	RunsAsRoot:         {atOnce(), "set a numeric non-root USER in the image or runAsUser in the pod"},
	CreateFailed:       {after(30 * time.Second), "see the message of the container runtime"},

	Unschedulable:    {after(30 * time.Second), "lower the requests, add nodes, or relax node selectors, affinities and tolerations"},
	VolumeUnbound:    {after(time.Minute), "check that the StorageClass exists and that its provisioner works"},
	VolumeMount:      {after(2 * time.Minute), "check the volume, its driver, and whether another node still holds it"},
	SandboxFailed:    {after(time.Minute), "check the nodes' network plugin and container runtime"},
	PodFailed:        {times(3), "see why the pods failed: eviction, node pressure or a refusing node"},
	QuotaExceeded:    {after(5 * time.Second), "raise the ResourceQuota or lower requests, limits or replicas"},
	LimitRange:       {after(5 * time.Second), "bring requests and limits within the namespace's LimitRange"},
	PodSecurity:      {after(5 * time.Second), "meet the namespace's Pod Security level: see the fields that the message names"},
	AdmissionDenied:  {after(5 * time.Second), "meet the policy that the admission webhook enforces"},
	WebhookFailed:    {after(time.Minute), "bring the admission webhook's service back, or correct its configuration"},
	NoServiceAccount: {after(10 * time.Second), "create the service account that the pods name"},
	PodRefused:       {after(30 * time.Second), "see the message of the API server"},

	DeadlineExceeded: {atOnce(), "see why the pods don't become ready, or raise progressDeadlineSeconds"},
	JobFailed:        {atOnce(), "see the logs of the job's pods"},
	Paused:           {atOnce(), "resume it: spec.paused or spec.suspend is set, so nothing is rolled out"},
	ManualUpdate:     {atOnce(), "delete the old pods, or use the RollingUpdate strategy: OnDelete replaces nothing by itself"},
	Missing:          {after(5 * time.Second), "check whether somebody deleted it"},
	NotReady:         {never(), "see the probe's response: path, port, dependencies, and how long the start takes"},
	Starting:         {never(), "see the pod's events"},
	TimedOut:         {never(), "see what is not ready, or raise the timeout"},
	SmokeFailed:      {atOnce(), "see the response: service, port, path and network policies"},

	VolumeLost:     {atOnce(), "restore the PersistentVolume, or delete the claim and restore its data"},
	NoAddress:      {never(), "check that a controller serves objects of this class, its quota, and its events"},
	NotAccepted:    {after(time.Minute), "see the controller's message: names, references and what it allows"},
	NotReconciled:  {never(), "see the object's conditions and the logs of its controller"},
	ResourceFailed: {atOnce(), "see the object's conditions and the logs of its controller"},
}

// Causes returns all causes in alphabetical order.
func Causes() []Cause { return slices.Sorted(maps.Keys(causeTable)) }

// DefaultRule returns how c is treated unless [Config.Rules] says otherwise.
// An unknown cause is transient.
func DefaultRule(c Cause) Rule { return causeTable[c].rule }

func (c Cause) remedy() string { return causeTable[c].remedy }

// rulesWith returns the default rules with overrides applied.
func rulesWith(overrides map[Cause]Rule) (map[Cause]Rule, error) {
	rules := make(map[Cause]Rule, len(causeTable))
	for c, row := range causeTable {
		rules[c] = row.rule
	}
	for _, c := range slices.Sorted(maps.Keys(overrides)) {
		if _, known := causeTable[c]; !known {
			return nil, fmt.Errorf("%w: rule for unknown cause %q; see Causes", stages.ErrInvalid, c)
		}
		if err := overrides[c].validate(c); err != nil {
			return nil, err
		}
		rules[c] = overrides[c]
	}
	return rules, nil
}
