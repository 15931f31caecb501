package slug

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"strings"
)

// HashLength is how many characters of a slug are its hash: 65 bits, so that
// nobody finds a name that collides with another one's.
const HashLength = 13

// alphabet is what DNS labels may begin and end with, in 32 lower-case characters.
const alphabet = "abcdefghijklmnopqrstuvwxyz234567"

// Of returns a DNS label of at most limit characters, which must be at least
// HashLength: what is left of text, a hyphen, and the hash of identity. The parts
// of identity are kept apart, so that ("a", "bc") and ("ab", "c") differ.
func Of(limit int, text string, identity ...string) string {
	hash := sum(identity)
	kept := sanitize(text, limit-len(hash)-1)
	if kept == "" {
		return hash
	}
	return kept + "-" + hash
}

func sum(parts []string) string {
	h := sha256.New()
	for _, part := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write([]byte(part))
	}
	return base32.NewEncoding(alphabet).EncodeToString(h.Sum(nil))[:HashLength]
}

// sanitize keeps lower-case letters and digits, with one hyphen for each run of
// anything else between them.
func sanitize(text string, limit int) string {
	var out strings.Builder
	for i := 0; i < len(text) && out.Len() < limit; i++ {
		c := text[i]
		switch {
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		default:
			c = '-'
		}
		if c == '-' && (out.Len() == 0 || strings.HasSuffix(out.String(), "-")) {
			continue
		}
		out.WriteByte(c)
	}
	return strings.TrimRight(out.String(), "-")
}
