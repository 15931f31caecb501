package rollout

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// Failure is why a release does not run. It is permanent: see
// [stages.IsPermanent]. Its text and evidence are free of what [Redact] and
// [Config.Redact] mask.
type Failure struct {
	// Release is "namespace/name".
	Release string `json:"release"`
	// Workload is the released object that fails.
	Workload stages.Object `json:"workload"`
	// Cause is why, in terms of this package.
	Cause Cause `json:"cause"`
	// Decisive is the fact that decided. Its Subject is a pod, where there is one.
	Decisive stages.Evidence `json:"decisive"`
	// Role says what kind of container the fact is about: "container",
	// "init container" or "sidecar"; empty where it is about none.
	Role string `json:"role,omitempty"`
	// Signal is what ended the container's process, where that is known.
	Signal int32 `json:"signal,omitempty"`
	// Restarts is how often the container was restarted.
	Restarts int32 `json:"restarts,omitempty"`
	// Probe is the probe that failed, where one did.
	Probe *Probe `json:"probe,omitempty"`
	// Scheduling is why no node was found, where that is the cause.
	Scheduling *Scheduling `json:"scheduling,omitempty"`
	// Pending is what was still the matter at the timeout, if Cause is TimedOut.
	Pending Cause `json:"pending,omitempty"`
	// Advice is how to look closer and what usually mends it, with names filled in.
	Advice Advice `json:"advice"`
	// Others are what else was wrong at that time, at most nine facts.
	Others []stages.Evidence `json:"others,omitempty"`
	// Elapsed is how long the verification had been watching when it decided.
	Elapsed time.Duration `json:"elapsed"`
	// Collecting is how long the logs and events took after that, see
	// [Config.EvidenceTimeout].
	Collecting time.Duration `json:"collecting"`
}

var _ stages.Evidencer = (*Failure)(nil)

// Error says in one line what fails, why and what usually mends it.
func (f *Failure) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "release %s: %s", f.Release, f.Workload)
	if own := strings.ToLower(f.Workload.String()); strings.ToLower(f.Decisive.Subject) != own {
		b.WriteString(": " + f.Decisive.Subject)
	}
	if f.Decisive.Container != "" {
		fmt.Fprintf(&b, ": %s %s", orElse(f.Role, "container"), f.Decisive.Container)
	}
	b.WriteString(": " + f.Decisive.Reason)
	if f.Decisive.Message != "" {
		b.WriteString(": " + f.Decisive.Message)
	}
	if f.Decisive.Remedy != "" {
		b.WriteString(" (" + f.Decisive.Remedy + ")")
	}
	return b.String()
}

// Evidence returns the decisive fact, then the others.
func (f *Failure) Evidence() []stages.Evidence {
	return append([]stages.Evidence{f.Decisive}, f.Others...)
}

// Unwrap returns [stages.ErrSubjectMismatch] where another image runs.
func (f *Failure) Unwrap() error {
	if f.Cause == ImageMismatch || f.Pending == ImageMismatch {
		return stages.ErrSubjectMismatch
	}
	return nil
}

// MarshalJSON writes the failure with its text.
func (f *Failure) MarshalJSON() ([]byte, error) {
	type plain Failure
	return json.Marshal(struct {
		Error string `json:"error"`
		*plain
	}{f.Error(), (*plain)(f)})
}

// reconsider corrects the cause by what the logs say: a program built for another
// architecture is started, and then writes why it can't run.
func (f *Failure) reconsider() {
	if f.Cause != Crash && f.Cause != InitCrash {
		return
	}
	for _, line := range f.Decisive.Logs {
		if strings.Contains(line, "exec format error") {
			f.Cause, f.Advice.Symptom = ImageWrongPlatform, causeTable[ImageWrongPlatform].Symptom
			f.Advice.Usual, f.Advice.Remedy = causeTable[ImageWrongPlatform].Usual, ImageWrongPlatform.remedy()
			f.Decisive.Remedy = f.Advice.Remedy
			if f.Decisive.Field != "" {
				f.Decisive.Field += ".image"
			}
			return
		}
	}
}
