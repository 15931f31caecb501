package stages

import "errors"

// Evidence is one observed fact about why something failed, collected before a
// rollback can destroy it, and free of secrets. Empty fields are unknown.
type Evidence struct {
	// Subject is what the fact is about, such as "pod shop/shop-7d9f-x2x".
	Subject string `json:"subject"`
	// Owners is the chain from the subject up to the released object, such as
	// ["ReplicaSet shop/shop-7d9f", "Deployment shop/shop"].
	Owners []string `json:"owners,omitempty"`
	// Container is the container concerned, where there is one.
	Container string `json:"container,omitempty"`
	// Reason is the machine-readable cause, such as "ImagePullBackOff".
	Reason string `json:"reason"`
	// Message is the cause in words, as the system that saw it put it.
	Message string `json:"message,omitempty"`
	// Field is the path, in the manifest of the released object that the subject
	// belongs to, of what is responsible, such as
	// "spec.template.spec.containers[name=app].image".
	Field string `json:"field,omitempty"`
	// ExitCode is the exit status of a terminated container.
	ExitCode *int32 `json:"exitCode,omitempty"`
	// Logs are the last lines that the container, or a build step, wrote.
	Logs []string `json:"logs,omitempty"`
	// Events are the related cluster events, oldest first.
	Events []string `json:"events,omitempty"`
	// Command shows more of it, such as "kubectl describe pod shop-7d9f -n shop".
	Command string `json:"command,omitempty"`
	// Remedy is what usually mends it.
	Remedy string `json:"remedy,omitempty"`
}

// Evidencer is implemented by errors that carry evidence.
type Evidencer interface {
	error
	Evidence() []Evidence
}

// EvidenceOf returns the evidence carried by the first error in err's tree that
// has any.
func EvidenceOf(err error) []Evidence {
	if e, ok := errors.AsType[Evidencer](err); ok {
		return e.Evidence()
	}
	return nil
}
