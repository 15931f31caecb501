package sops

import (
	"context"
	"crypto/cipher"
	"crypto/sha512"
	"crypto/subtle"
	"fmt"
	"hash"
	"strings"
)

// macOnlyEncryptedSeed begins a MAC over encrypted values only, so that it
// differs from one over all values. It is the SHA-256 of "sops".
const macOnlyEncryptedSeed = "\x8a\x3f\xd2\xad\x54\xce\x66\x52\x7b\x10\x34\xf3\xd1\x47\xbe\x0b\x0b\x97\x5b\x3b\xf4\x4f\x72\xc6\xfd\xad\xec\x81\x76\xf2\x7d\x69"

// walker decrypts documents in place and sums their values up for the MAC.
type walker struct {
	file string
	meta *metadata
	aead cipher.AEAD
	mac  hash.Hash
}

// decryptDocuments decrypts all documents of a file, and then holds their values
// against the file's MAC.
func decryptDocuments(ctx context.Context, file string, docs []mapping, meta *metadata, dataKey []byte) error {
	aead, err := newAEAD(dataKey)
	if err != nil {
		return fmt.Errorf("decrypting %q: %w", file, err)
	}
	w := &walker{file: file, meta: meta, aead: aead, mac: sha512.New()}
	if meta.macOnlyEncrypted {
		w.mac.Write([]byte(macOnlyEncryptedSeed))
	}
	for _, doc := range docs {
		if err := w.mapping(ctx, doc, "", false); err != nil {
			return err
		}
	}
	want, err := decryptValue(aead, meta.mac, meta.modified)
	if err != nil {
		return w.fail(ErrTampered, metadataKey+":mac:", err.Error())
	}
	text, _ := want.(string)
	if subtle.ConstantTimeCompare([]byte(text), fmt.Appendf(nil, "%X", w.mac.Sum(nil))) != 1 {
		return w.fail(ErrTampered, "", "its MAC does not match: values were added, removed, changed or moved; restore the file, or encrypt it anew after a review")
	}
	return nil
}

// fail makes an error about the value that path, in the form of its additional
// data, leads to.
func (w *walker) fail(class error, path, reason string) error {
	return &FileError{File: w.file, Path: strings.TrimSuffix(path, ":"), Reason: reason, Class: class}
}

// scope tracks whether the rule of a file has matched a key above, or a comment
// above or right before, the place that the walk is at.
type scope struct {
	rule    rule
	outer   bool
	comment bool
}

// enter returns whether a key, with all that is below it, is matched.
func (s *scope) enter(key string) bool {
	hit := s.outer || s.comment || !s.rule.comments && s.rule.matches(key)
	s.comment = false
	return hit
}

// note takes a comment in, and returns whether the comment itself is matched. The
// one that turns encryption on stays readable.
func (s *scope) note(c *comment) bool {
	before := s.outer || s.comment
	if s.rule.comments {
		s.comment = s.comment || s.rule.matches(c.text)
	}
	return before || s.comment && !s.rule.encrypts
}

func (w *walker) mapping(ctx context.Context, m mapping, path string, matched bool) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	at := scope{rule: w.meta.rule, outer: matched}
	for i := range m {
		e := &m[i]
		if e.comment != nil {
			e.comment = w.comment(e.comment, path, at.note(e.comment))
			continue
		}
		var err error
		if e.value, err = w.value(ctx, e.value, path+e.key+":", at.enter(e.key)); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) sequence(ctx context.Context, s sequence, path string, matched bool) error {
	at := scope{rule: w.meta.rule, outer: matched}
	for i, item := range s {
		if c, ok := item.(*comment); ok {
			s[i] = w.comment(c, path, at.note(c))
			continue
		}
		hit := at.outer || at.comment
		at.comment = false
		v, err := w.value(ctx, item, path, hit)
		if err != nil {
			return err
		}
		s[i] = v // an encrypted comment becomes one again
	}
	return nil
}

func (w *walker) value(ctx context.Context, v any, path string, matched bool) (any, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil // neither encrypted nor in the MAC
	case mapping:
		return v, w.mapping(ctx, v, path, matched)
	case sequence:
		return v, w.sequence(ctx, v, path, matched)
	}
	encrypted := matched == w.meta.rule.encrypts
	if encrypted {
		text, ok := v.(string)
		if !ok {
			return nil, w.fail(ErrTampered, path, "it is not encrypted, although the file's rule says so")
		}
		if text != "" { // sops leaves empty strings alone
			var err error
			if v, err = decryptValue(w.aead, text, path); err != nil {
				return nil, w.fail(ErrTampered, path, err.Error())
			}
		}
	}
	if encrypted || !w.meta.macOnlyEncrypted {
		w.mac.Write(macBytes(v))
	}
	return v, nil
}

// comment decrypts a comment. One that can't be is kept as it is: older versions
// of sops did not encrypt them, a YAML parser may take one for its neighbour's,
// and no comment is in the MAC.
func (w *walker) comment(c *comment, path string, matched bool) *comment {
	if path == "" {
		path = ":" // what sops makes of no keys at all
	}
	if matched == w.meta.rule.encrypts {
		if v, err := decryptValue(w.aead, c.text, path); err == nil {
			if plain, ok := v.(*comment); ok {
				return plain
			}
		}
	}
	return c
}
