// Package http01 has the options of HTTP challenges.
package http01

import "time"

// PathPrefix is where challenges are answered.
const PathPrefix = "/.well-known/acme-challenge/"

// ChallengeOption is an option.
type ChallengeOption struct{}

// SetDelay is no option.
func SetDelay(time.Duration) ChallengeOption { return ChallengeOption{} }

// ChallengePath is where a challenge is answered.
func ChallengePath(token string) string { return PathPrefix + token }
