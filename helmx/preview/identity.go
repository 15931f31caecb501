package preview

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/fairlead-dev/fairlead/helmx/internal/slug"
	"github.com/fairlead-dev/fairlead/stages"
)

// What a preview's namespace is labelled with.
const (
	labelPrefix = "fairlead.dev/"
	// LabelManagedBy is [ManagedBy] on everything that this package makes.
	LabelManagedBy = "app.kubernetes.io/managed-by"
	// LabelRepository, LabelNumber and LabelOwner are for selecting by: the repository
	// and the author as far as they are readable, with a hash.
	LabelRepository = labelPrefix + "preview-repository"
	LabelNumber     = labelPrefix + "preview-pull-request"
	LabelOwner      = labelPrefix + "preview-owner"
	// ManagedBy is the value of LabelManagedBy.
	ManagedBy = "fairlead"
)

// What a preview's namespace is annotated with, in full.
const (
	AnnotationRepository = labelPrefix + "preview-repository"
	AnnotationBranch     = labelPrefix + "preview-branch"
	AnnotationAuthor     = labelPrefix + "preview-author"
	// AnnotationExpires is until when the preview lives, as RFC 3339.
	AnnotationExpires = labelPrefix + "preview-expires-at"
)

const podSecurityPrefix = "pod-security.kubernetes.io/"

// maxText bounds what is taken from a pull request.
const maxText = 1024

// maxDigits is as long as the number of a pull request gets, in the longest name.
const maxDigits = 10

// PullRequest is what a preview is for. Repository and Number identify it and are
// required; the rest is for people. Its texts may hold anything.
type PullRequest struct {
	// Repository is what the pull request is made to, such as "acme/shop". Upper and
	// lower case are different.
	Repository string `json:"repository"`
	// Number counts from 1.
	Number int `json:"number"`
	// Branch is what it is made from.
	Branch string `json:"branch,omitempty"`
	// Author is who made it, the owner of the preview.
	Author string `json:"author,omitempty"`
}

// String returns "repository#number".
func (pr PullRequest) String() string {
	return fmt.Sprintf("%s#%d", printable(pr.Repository), pr.Number)
}

func printable(text string) string {
	quoted := strconv.Quote(text)
	return quoted[1 : len(quoted)-1]
}

// Validate reports, with an error matching [stages.ErrInvalid], why pr can't have a
// preview.
func (pr PullRequest) Validate() error {
	switch {
	case pr.Repository == "":
		return fmt.Errorf("%w: pull request without Repository", stages.ErrInvalid)
	case pr.Number < 1 || len(strconv.Itoa(pr.Number)) > maxDigits:
		return fmt.Errorf("%w: pull request number %d", stages.ErrInvalid, pr.Number)
	}
	for name, text := range map[string]string{"Repository": pr.Repository, "Branch": pr.Branch, "Author": pr.Author} {
		if len(text) > maxText || !utf8.ValidString(text) {
			return fmt.Errorf("%w: pull request %d: %s is longer than %d bytes or not UTF-8", stages.ErrInvalid, pr.Number, name, maxText)
		}
	}
	return nil
}

// namespaceName returns the name for pr. Two pull requests never share one.
func namespaceName(prefix string, pr PullRequest) string {
	end := "-pr-" + strconv.Itoa(pr.Number)
	room := validation.DNS1123LabelMaxLength - len(prefix) - len("-") - len(end)
	return prefix + "-" + slug.Of(room, pr.Repository, pr.Repository) + end
}

func label(text string) string { return slug.Of(validation.LabelValueMaxLength, text, text) }

// mark writes into ns whose preview it is, and until when.
func (p *Previews) mark(ns *corev1.Namespace, pr PullRequest, expires time.Time) {
	labels, annotations := maps.Clone(ns.Labels), maps.Clone(ns.Annotations)
	if labels == nil {
		labels = map[string]string{}
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	maps.Copy(labels, p.cfg.Labels)
	maps.Copy(labels, map[string]string{
		LabelManagedBy:  ManagedBy,
		LabelRepository: label(pr.Repository),
		LabelNumber:     strconv.Itoa(pr.Number),
	})
	for _, mode := range []string{"enforce", "warn", "audit"} {
		labels[podSecurityPrefix+mode] = string(p.cfg.PodSecurity)
	}
	delete(labels, LabelOwner)
	if pr.Author != "" {
		labels[LabelOwner] = label(pr.Author)
	}
	maps.Copy(annotations, map[string]string{
		AnnotationRepository: pr.Repository,
		AnnotationBranch:     pr.Branch,
		AnnotationAuthor:     pr.Author,
		AnnotationExpires:    expires.UTC().Format(time.RFC3339),
	})
	ns.Labels, ns.Annotations = labels, annotations
}

// identify returns whose preview ns is, or why it is not one that this package made
// under that prefix. Labels, annotation and name must all agree, so that neither a
// label that was copied nor a name that was guessed makes it one.
func identify(prefix string, ns *corev1.Namespace) (PullRequest, error) {
	pr := PullRequest{
		Repository: ns.Annotations[AnnotationRepository],
		Branch:     ns.Annotations[AnnotationBranch],
		Author:     ns.Annotations[AnnotationAuthor],
	}
	number, err := strconv.Atoi(ns.Labels[LabelNumber])
	pr.Number = number
	switch {
	case ns.Labels[LabelManagedBy] != ManagedBy:
		return PullRequest{}, fmt.Errorf("label %s is %q", LabelManagedBy, ns.Labels[LabelManagedBy])
	case pr.Repository == "":
		return PullRequest{}, fmt.Errorf("annotation %s is missing", AnnotationRepository)
	case ns.Labels[LabelRepository] != label(pr.Repository):
		return PullRequest{}, fmt.Errorf("label %s is not that of the annotated repository %q", LabelRepository, pr.Repository)
	case err != nil || strconv.Itoa(number) != ns.Labels[LabelNumber] || number < 1:
		return PullRequest{}, fmt.Errorf("label %s is %q", LabelNumber, ns.Labels[LabelNumber])
	case ns.Name != namespaceName(prefix, pr):
		return PullRequest{}, fmt.Errorf("its name is not %s, as it would be for %s", namespaceName(prefix, pr), pr)
	}
	return pr, nil
}

// errNoExpiry is an annotation that can't be read. Nobody guesses from it.
var errNoExpiry = errors.New("annotation " + AnnotationExpires + " is missing or not a time")

func expiry(ns *corev1.Namespace) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, ns.Annotations[AnnotationExpires])
	if err != nil {
		return time.Time{}, errNoExpiry
	}
	return t, nil
}
