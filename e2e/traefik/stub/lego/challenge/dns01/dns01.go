// Package dns01 has the options of DNS challenges.
package dns01

import (
	"strings"
	"time"
)

// ChallengeOption is an option.
type ChallengeOption struct{}

// Options are a client's.
type Options struct{ RecursiveNameservers []string }

// NewClient returns what SetDefaultClient takes.
func NewClient(*Options) struct{} { return struct{}{} }

// SetDefaultClient does nothing.
func SetDefaultClient(struct{}) {}

// LazyCondOption is no option.
func LazyCondOption(bool, func() ChallengeOption) ChallengeOption { return ChallengeOption{} }

// CombineOptions is no option.
func CombineOptions(...ChallengeOption) ChallengeOption { return ChallengeOption{} }

// CondOptions is no option.
func CondOptions(bool, ...ChallengeOption) ChallengeOption { return ChallengeOption{} }

// PropagationWait is no option.
func PropagationWait(time.Duration, bool) ChallengeOption { return ChallengeOption{} }

// DisableAuthoritativeNssPropagationRequirement is no option.
func DisableAuthoritativeNssPropagationRequirement() ChallengeOption { return ChallengeOption{} }

// DisableRecursiveNSsPropagationRequirement is no option.
func DisableRecursiveNSsPropagationRequirement() ChallengeOption { return ChallengeOption{} }

// UnFqdn removes a name's last dot.
func UnFqdn(name string) string { return strings.TrimSuffix(name, ".") }
