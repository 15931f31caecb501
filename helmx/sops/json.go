package sops

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// readJSON parses an object, keeping the order of its keys.
func readJSON(data []byte) ([]mapping, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	v, err := readJSONValue(dec, 0)
	if err != nil {
		return nil, jsonError(data, dec, err)
	}
	m, ok := v.(mapping)
	if !ok {
		return nil, jsonError(data, dec, &syntaxError{reason: "its top level is not an object"})
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, jsonError(data, dec, errors.New("something follows the object"))
	}
	return []mapping{m}, nil
}

// jsonError says where, and leaves out what the decoder quotes from the file.
func jsonError(data []byte, dec *json.Decoder, err error) error {
	line := 1 + bytes.Count(data[:min(int(dec.InputOffset()), len(data))], []byte("\n"))
	if known, ok := errors.AsType[*syntaxError](err); ok {
		known.line = line
		return known
	}
	return &syntaxError{line: line, reason: "it is not a JSON object"}
}

func readJSONValue(dec *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, &syntaxError{reason: "it nests too deeply"}
	}
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case json.Delim:
		if t == '{' {
			return readJSONObject(dec, depth)
		}
		out := sequence{}
		for dec.More() {
			item, err := readJSONValue(dec, depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, item)
		}
		_, err := dec.Token()
		return out, err
	case json.Number:
		if i, err := t.Int64(); err == nil {
			return int(i), nil
		}
		return t.Float64()
	default:
		return token, nil
	}
}

func readJSONObject(dec *json.Decoder, depth int) (mapping, error) {
	out := mapping{}
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key, ok := token.(string)
		if !ok || seen[key] {
			return nil, &syntaxError{reason: "a key occurs twice in one object"}
		}
		seen[key] = true
		value, err := readJSONValue(dec, depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, entry{key: key, value: value})
	}
	_, err := dec.Token()
	return out, err
}

// writeJSON writes what sops does: indented by tabs, without comments.
func writeJSON(docs []mapping) ([]byte, error) {
	var flat, out bytes.Buffer
	if err := writeJSONValue(&flat, docs[0]); err != nil {
		return nil, err
	}
	if err := json.Indent(&out, flat.Bytes(), "", "\t"); err != nil {
		return nil, fmt.Errorf("indenting JSON: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

func writeJSONValue(out *bytes.Buffer, v any) error {
	switch v := v.(type) {
	case mapping:
		out.WriteByte('{')
		first := true
		for _, e := range v {
			if e.comment != nil {
				continue
			}
			if !first {
				out.WriteByte(',')
			}
			first = false
			if err := writeJSONValue(out, e.key); err != nil {
				return err
			}
			out.WriteByte(':')
			if err := writeJSONValue(out, e.value); err != nil {
				return err
			}
		}
		out.WriteByte('}')
	case sequence:
		out.WriteByte('[')
		first := true
		for _, item := range v {
			if _, isComment := item.(*comment); isComment {
				continue
			}
			if !first {
				out.WriteByte(',')
			}
			first = false
			if err := writeJSONValue(out, item); err != nil {
				return err
			}
		}
		out.WriteByte(']')
	default:
		text, err := json.Marshal(v)
		if err != nil {
			return errTyped // the cause would quote the value, which is a float such as +Inf
		}
		out.Write(text)
	}
	return nil
}

// writeBinary returns the one value that a binary file is wrapped in.
func writeBinary(docs []mapping) ([]byte, error) {
	_, value, _ := docs[0].take("data")
	text, ok := value.(string)
	if !ok {
		return nil, errTyped
	}
	return []byte(text), nil
}
