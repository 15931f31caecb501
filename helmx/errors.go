package helmx

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/resource"

	"github.com/fairlead-dev/fairlead/stages"
)

// Reason classes what an API server refused.
type Reason string

// The reasons.
const (
	// Unauthorized: the credentials are not accepted.
	Unauthorized Reason = "Unauthorized"
	// Forbidden: the account lacks a right. See Verb, Resource and Namespace.
	Forbidden Reason = "Forbidden"
	// QuotaExceeded: a ResourceQuota is used up.
	QuotaExceeded Reason = "QuotaExceeded"
	// AdmissionDenied: a webhook, policy or limit range refused the object.
	AdmissionDenied Reason = "AdmissionDenied"
	// Invalid: the object is malformed. See Fields.
	Invalid Reason = "Invalid"
	// Conflict: somebody else changed the object at the same time.
	Conflict Reason = "Conflict"
	// Terminating: the namespace is being deleted.
	Terminating Reason = "Terminating"
	// Unavailable: the API server could not be reached, or could not answer.
	Unavailable Reason = "Unavailable"
	// NotOwned: the object exists and belongs to another release, or to none.
	NotOwned Reason = "NotOwned"
	// Refused is any other refusal.
	Refused Reason = "Refused"
)

// APIError is a request that the API server refused or that did not reach it.
// Conflict, Terminating and Unavailable may pass with time; the others satisfy
// [stages.IsPermanent].
type APIError struct {
	Reason Reason
	// Verb is the right that the request needed, such as "create".
	Verb string
	// Group and Resource name the kind, such as "apps" and "deployments"; a
	// subresource follows after a slash.
	Group, Resource string
	// Namespace and Name name the object, as far as known.
	Namespace, Name string
	// Subject is the account that lacks a right, as the API server names it.
	Subject string
	// Fields are the paths of malformed fields.
	Fields []string
	// Message is the server's own account, with secrets masked.
	Message string

	err error
}

// Error says what was refused, why, and what to do.
func (e *APIError) Error() string {
	what := e.Verb + " " + e.Resource
	if e.Group != "" {
		what += "." + e.Group
	}
	if e.Name != "" {
		what += " " + e.Name
	}
	if e.Namespace != "" {
		what += " in namespace " + e.Namespace
	}
	switch e.Reason {
	case Unavailable:
		return strings.TrimSpace("the API server is unavailable: " + e.Message)
	case Forbidden:
		return fmt.Sprintf("not allowed to %s: %s; %s", what, e.Message, e.remedy())
	case Unauthorized:
		return fmt.Sprintf("the API server does not accept the credentials to %s: %s", what, e.Message)
	case QuotaExceeded:
		return fmt.Sprintf("quota exceeded by %s: %s; free some of it or raise the ResourceQuota", what, e.Message)
	case AdmissionDenied:
		return fmt.Sprintf("admission denied to %s: %s", what, e.Message)
	case Terminating:
		return fmt.Sprintf("can't %s: the namespace is being deleted: %s", what, e.Message)
	case Invalid:
		return fmt.Sprintf("invalid object, can't %s: %s; if a value of the chart's is behind it, Deployer.Provenance tells which source set it and what that overrode", what, e.Message)
	default:
		return fmt.Sprintf("can't %s: %s", what, e.Message)
	}
}

// Unwrap returns the cause, marked as permanent where it is.
func (e *APIError) Unwrap() error {
	cause := e.err
	if cause == nil {
		cause = errors.New(e.Message)
	}
	switch e.Reason {
	case Conflict, Terminating, Unavailable:
		return cause
	default:
		return stages.Permanent(cause)
	}
}

// LockedError is a release that somebody else is working on, or was when its
// process died. It matches [stages.ErrLocked].
type LockedError struct {
	Release, Namespace string
	// Holder holds the lock, in words; empty if it is Helm's own pending state that
	// stands in the way.
	Holder string
	// Revision and Status are of the revision in that state, such as 4 and
	// "pending-upgrade".
	Revision int
	Status   string
	// Since is when it was begun, by the holder's clock, Age how long ago that was.
	Since time.Time
	Age   time.Duration
	// Run is the run that holds it; empty if it is not one of this package's. URL is
	// where people find it.
	Run, URL string
	// Until is from when on the state counts as abandoned; zero for never.
	Until time.Time
}

func (e *LockedError) Error() string {
	name := e.Namespace + "/" + e.Release
	if e.Holder != "" {
		text := fmt.Sprintf("release %s is locked by %s for %s", name, e.Holder, e.Age.Round(time.Second))
		if e.URL != "" {
			text += ", see " + e.URL
		}
		return text + "; wait for it to end, or set a time to wait for"
	}
	holder := "an operation that is not of this library"
	if e.Run != "" {
		holder = "run " + e.Run
	}
	advice := "wait for it, or if its process is dead restore the release (helm rollback, or recover the run) first"
	if !e.Until.IsZero() {
		advice = fmt.Sprintf("wait for it, or if its process is dead run helm rollback; from %s on it counts as abandoned", e.Until.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("release %s is locked: revision %d has been %s for %s, by %s; %s", name, e.Revision, e.Status, e.Age.Round(time.Second), holder, advice)
}

// Is reports whether target is [stages.ErrLocked].
func (e *LockedError) Is(target error) bool { return target == stages.ErrLocked }

// HookError is a hook of the chart that did not succeed.
type HookError struct {
	// Hook is the Job or Pod.
	Hook stages.Object
	// Problem says what became of it.
	Problem string
	// Logs are the last lines that its pods wrote, with secrets masked.
	Logs []string

	err error
}

func (e *HookError) Error() string { return fmt.Sprintf("hook %s: %s", e.Hook, e.Problem) }

// Unwrap returns the cause.
func (e *HookError) Unwrap() error { return e.err }

// Evidence tells about the failed hook.
func (e *HookError) Evidence() []stages.Evidence {
	return []stages.Evidence{{
		Subject: e.Hook.String(), Reason: "HookFailed", Message: e.Problem, Logs: e.Logs,
		Remedy: "look at what the hook's pod wrote",
	}}
}

var verbs = map[string]string{
	http.MethodGet: "get", http.MethodPost: "create", http.MethodPut: "update",
	http.MethodPatch: "patch", http.MethodDelete: "delete",
}

// resourcePath matches /api/v1/… and /apis/group/version/… .
var resourcePath = regexp.MustCompile(`/(?:api|apis/([^/]+))/v[^/]+(?:/namespaces/([^/]+))?(?:/([^/]+)(?:/([^/]+)(?:/(.+))?)?)?$`)

// apiRequest is what a request to an API server is about.
type apiRequest struct{ verb, group, resource, namespace, name string }

func parseRequest(req *http.Request) apiRequest {
	r := apiRequest{verb: verbs[req.Method]}
	if m := resourcePath.FindStringSubmatch(req.URL.Path); m != nil {
		r.group, r.namespace, r.resource, r.name = m[1], m[2], m[3], m[4]
		if r.resource == "" && r.namespace != "" {
			r.resource, r.name, r.namespace = "namespaces", r.namespace, ""
		}
		if m[5] != "" {
			r.resource += "/" + m[5]
		}
	}
	switch {
	case r.verb == "get" && req.URL.Query().Has("watch"):
		r.verb = "watch"
	case r.verb == "get" && r.name == "" && r.resource != "":
		r.verb = "list"
	}
	return r
}

// newAPIError classes a refusal, or returns nil for one that is part of normal
// work.
func newAPIError(req *http.Request, status *metav1.Status) *APIError {
	if status.Reason == metav1.StatusReasonAlreadyExists || status.Reason == metav1.StatusReasonNotFound {
		return nil
	}
	r := parseRequest(req)
	e := &APIError{
		Reason: classify(status), Message: status.Message,
		Verb: r.verb, Group: r.group, Resource: r.resource, Namespace: r.namespace, Name: r.name,
	}
	if e.Reason == Forbidden {
		e.Subject = deniedSubject(e.Message)
	}
	if status.Details != nil {
		if e.Name == "" {
			e.Name = status.Details.Name
		}
		for _, cause := range status.Details.Causes {
			if cause.Field != "" {
				e.Fields = append(e.Fields, cause.Field)
			}
		}
	}
	return e
}

var unknownField = regexp.MustCompile(`unknown field|duplicate field|strict decoding|cannot be handled as a|unmarshal`)

func classify(status *metav1.Status) Reason {
	message := status.Message
	for _, cause := range causes(status) {
		if cause.Type == "NamespaceTerminating" {
			return Terminating
		}
	}
	switch {
	case strings.Contains(message, "exceeded quota"), strings.Contains(message, "failed quota"):
		return QuotaExceeded
	case strings.Contains(message, "admission webhook") && strings.Contains(message, "denied"),
		strings.Contains(message, "ValidatingAdmissionPolicy"), strings.Contains(message, "violates PodSecurity"),
		status.Code == http.StatusForbidden && strings.Contains(message, "usage per "):
		return AdmissionDenied
	case status.Code == http.StatusUnauthorized:
		return Unauthorized
	case status.Code == http.StatusForbidden:
		return Forbidden
	case status.Code == http.StatusConflict:
		return Conflict
	case status.Code == http.StatusUnprocessableEntity, unknownField.MatchString(message):
		return Invalid
	case status.Code == http.StatusTooManyRequests, status.Code >= http.StatusInternalServerError:
		return Unavailable
	}
	return Refused
}

func causes(status *metav1.Status) []metav1.StatusCause {
	if status.Details == nil {
		return nil
	}
	return status.Details.Causes
}

// explain returns err as what it means: the cancellation if that is the cause,
// else the refusals of the API server that its text consists of, else the text,
// with secrets masked.
func (s *session) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case s.ctx.Err() != nil:
		return s.cluster.ended(s.ctx)
	case s.hook != nil && strings.Contains(err.Error(), s.hook.Error()):
		problem, _ := redact(s.hook.Problem, s.secrets)
		if isAway(s.hook.err) {
			return s.cluster.away(problem)
		}
		return stages.Permanent(&HookError{Hook: s.hook.Hook, Problem: problem, Logs: s.hook.Logs})
	}
	if owned, ok := errors.AsType[*OwnershipError](err); ok {
		return owned
	}
	if already, ok := errors.AsType[*APIError](err); ok {
		return already
	}
	var found []error
	seen := map[string]bool{}
	for _, failure := range s.failures.all() {
		if seen[failure.Message] || failure.Message == "" || !strings.Contains(err.Error(), failure.Message) {
			continue
		}
		seen[failure.Message] = true
		failure.Message, _ = redact(failure.Message, s.secrets)
		found = append(found, failure)
	}
	switch {
	case len(found) > 0:
		return errors.Join(found...)
	case unreachable(err):
		problem, _ := redact(networkProblem(err), s.secrets)
		return s.cluster.away(problem)
	}
	text, masked := redact(err.Error(), s.secrets)
	if masked {
		err = errors.New(text)
	}
	for _, lasting := range []string{"cannot be imported into the current release", "no matches for kind", "ensure CRDs are installed first"} {
		if strings.Contains(text, lasting) {
			return stages.Permanent(err)
		}
	}
	return err
}

// away returns the error for an API server that gives no answer.
func (c *Cluster) away(problem string) *APIError {
	return &APIError{Reason: Unavailable, Message: c.host + ": " + problem}
}

// isAway reports that the API server can't be reached, or couldn't for so long that
// the lock was lost meanwhile.
func isAway(err error) bool {
	if err == nil {
		return false
	}
	if e, ok := errors.AsType[*APIError](err); ok {
		return e.Reason == Unavailable
	}
	return errors.Is(err, stages.ErrLockLost) || apierrors.IsInternalError(err) || unreachable(err)
}

func unreachable(err error) bool {
	_, isNet := errors.AsType[net.Error](err)
	_, isURL := errors.AsType[*url.Error](err)
	return isNet || isURL || noAnswer.MatchString(err.Error())
}

// noAnswer matches what client-go and Helm make of answers that are not the API
// server's, such as a proxy's that doesn't reach it, or that end half way.
var noAnswer = regexp.MustCompile(`Kubernetes cluster unreachable|has prevented the request from succeeding|unexpected error when reading response body|` +
	`the server is currently unable to handle the request|the server was unable to return a response in the time allotted|the server has received too many requests`)

// networkProblem leaves out the URL, which names a request that nobody asked about.
func networkProblem(err error) string {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}

func infoID(info *resource.Info) stages.Object {
	gvk := info.Mapping.GroupVersionKind
	return stages.Object{APIVersion: gvk.GroupVersion().String(), Kind: gvk.Kind, Namespace: info.Namespace, Name: info.Name}
}

func describeInfo(info *resource.Info) string { return infoID(info).String() }
