// Package tlsalpn01 has the options of TLS challenges.
package tlsalpn01

import (
	"errors"
	"time"
)

// ACMETLS1Protocol is their protocol.
const ACMETLS1Protocol = "acme-tls/1"

// ChallengeOption is an option.
type ChallengeOption struct{}

// SetDelay is no option.
func SetDelay(time.Duration) ChallengeOption { return ChallengeOption{} }

// ChallengeBlocks fails.
func ChallengeBlocks(string, string) (certificate, key []byte, err error) {
	return nil, nil, errors.ErrUnsupported
}
