package sops

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"time"
)

// nonceSize is what every implementation of SOPS uses.
const nonceSize = 32

const dataKeySize = 32

// valuePrefix begins every encrypted value.
const valuePrefix = "ENC[AES256_GCM,"

var (
	errNotValue = errors.New("it is not a value encrypted by SOPS")
	errAuth     = errors.New("it does not authenticate: it was changed, moved to another key, or encrypted with another data key")
	errTyped    = errors.New("what is encrypted does not have the type that it claims")
)

func newAEAD(dataKey []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(dataKey)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithNonceSize(block, nonceSize)
}

// encryptedValue is ENC[AES256_GCM,data:…,iv:…,tag:…,type:…] taken apart.
type encryptedValue struct {
	iv     []byte
	sealed []byte // data and tag
	kind   string
}

// parseValue is strict, so that there is one notation for one value: nothing may
// follow the bracket, and base64 has no stray bits or line breaks.
func parseValue(s string) (encryptedValue, error) {
	rest, ok := strings.CutPrefix(s, valuePrefix)
	rest, closed := strings.CutSuffix(rest, "]")
	fields := strings.Split(rest, ",")
	if !ok || !closed || len(fields) != 4 {
		return encryptedValue{}, errNotValue
	}
	var parts [3][]byte
	for i, name := range []string{"data:", "iv:", "tag:"} {
		text, ok := strings.CutPrefix(fields[i], name)
		if !ok || strings.ContainsAny(text, "\r\n") {
			return encryptedValue{}, errNotValue
		}
		raw, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil {
			return encryptedValue{}, errNotValue // the cause would quote the text
		}
		parts[i] = raw
	}
	kind, ok := strings.CutPrefix(fields[3], "type:")
	if !ok || len(parts[1]) != nonceSize || len(parts[2]) != aes.BlockSize {
		return encryptedValue{}, errNotValue
	}
	return encryptedValue{iv: parts[1], sealed: append(parts[0], parts[2]...), kind: kind}, nil
}

// decryptValue returns a string, int, float64, bool, time.Time or *comment.
func decryptValue(aead cipher.AEAD, s, additional string) (any, error) {
	v, err := parseValue(s)
	if err != nil {
		return nil, err
	}
	raw, err := aead.Open(nil, v.iv, v.sealed, []byte(additional))
	if err != nil {
		return nil, errAuth
	}
	text := string(raw)
	var out any
	switch v.kind {
	case "str", "bytes": // bytes was written by SOPS in Python
		return text, nil
	case "comment":
		return &comment{text: text}, nil
	case "int":
		out, err = strconv.Atoi(text)
	case "float":
		out, err = strconv.ParseFloat(text, 64)
	case "bool":
		out, err = strconv.ParseBool(text)
	case "time":
		out, err = time.Parse(time.RFC3339Nano, text)
	default:
		return nil, errNotValue
	}
	if err != nil {
		return nil, errTyped // the cause would quote the plaintext
	}
	return out, nil
}
