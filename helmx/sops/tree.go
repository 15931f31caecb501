package sops

import (
	"strconv"
	"time"
)

// A document is a mapping whose values are nil, string, int, float64, bool,
// time.Time, mapping or sequence. Order and comments are kept, the first for the
// MAC and the second for the reader.
type (
	mapping []entry
	// entry is either a comment or a key with its value.
	entry struct {
		comment *comment
		key     string
		value   any
	}
	// sequence holds values and *comment.
	sequence []any
	comment  struct {
		text   string // without the leading #
		inline bool
	}
)

// maxDepth bounds how deep documents may nest; they are walked recursively.
const maxDepth = 1000

// take removes the entry of a key and returns its value.
func (m mapping) take(key string) (rest mapping, value any, found bool) {
	for i, e := range m {
		if e.comment == nil && e.key == key {
			return append(m[:i:i], m[i+1:]...), e.value, true
		}
	}
	return m, nil, false
}

// plain returns v with maps and slices for mappings and sequences, and without
// comments.
func plain(v any) any {
	switch v := v.(type) {
	case mapping:
		out := make(map[string]any, len(v))
		for _, e := range v {
			if e.comment == nil {
				out[e.key] = plain(e.value)
			}
		}
		return out
	case sequence:
		out := make([]any, 0, len(v))
		for _, item := range v {
			if _, isComment := item.(*comment); !isComment {
				out = append(out, plain(item))
			}
		}
		return out
	default:
		return v
	}
}

// macBytes returns the form in which a scalar enters the MAC.
func macBytes(v any) []byte {
	switch v := v.(type) {
	case string:
		return []byte(v)
	case int:
		return strconv.AppendInt(nil, int64(v), 10)
	case float64:
		return strconv.AppendFloat(nil, v, 'f', -1, 64)
	case bool:
		if v { // as Python wrote it
			return []byte("True")
		}
		return []byte("False")
	case time.Time:
		return v.AppendFormat(nil, time.RFC3339Nano)
	default:
		return nil
	}
}
