package helmx

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/fairlead-dev/fairlead/stages"
)

// PrivilegeError is rights that a deployment needs and the account lacks. Nothing
// was changed. It satisfies [stages.IsPermanent].
type PrivilegeError struct {
	// Subject is the account, as the API server names it, such as
	// "system:serviceaccount:ci:cd-bot"; empty if it would not say.
	Subject string
	// Missing is all that is missing, sorted.
	Missing []Right
}

// Error names every missing right, and shows the roles that grant them.
func (e *PrivilegeError) Error() string {
	subject := e.Subject
	if subject == "" {
		subject = "the deploying account"
	}
	var rights []string
	for _, r := range e.Missing {
		rights = append(rights, r.String())
	}
	return fmt.Sprintf("%s may not: %s; nothing was changed; to grant it, apply:\n%s", subject, strings.Join(rights, "; "), e.Grant())
}

// Grant returns roles that grant what is missing, bound to the subject, as YAML.
func (e *PrivilegeError) Grant() string { return grantText(e.Subject, e.Missing) }

// Unwrap marks the error as permanent.
func (e *PrivilegeError) Unwrap() error { return stages.Permanent(errPrivilege) }

var errPrivilege = errors.New("rights are missing")

// deniedUser matches what the API server says of a denied request, and of a role
// that grants more than its maker holds.
var deniedUser = regexp.MustCompile(`[Uu]ser "([^"]+)" (?:cannot |\(groups=)`)

func deniedSubject(message string) string {
	if m := deniedUser.FindStringSubmatch(message); m != nil {
		return m[1]
	}
	return ""
}

// remedy says how to get the right that was denied.
func (e *APIError) remedy() string {
	switch {
	case strings.Contains(e.Message, handsOn):
		return "an account can hand on only rights that it holds: grant it these, or the verb escalate on the role, or bind"
	case e.Subject == "":
		return "grant it to the deploying account with a Role"
	}
	right := Right{Verb: e.Verb, Group: e.Group, Resource: e.Resource, Namespace: e.Namespace, Name: e.Name}
	if e.Verb == "create" || e.Verb == "list" {
		right.Name = ""
	}
	return fmt.Sprintf("to grant it to %s, apply:\n%s", e.Subject, grantText(e.Subject, []Right{right}))
}
