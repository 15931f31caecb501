package sops

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// metadataKey holds the metadata in every format but dotenv.
const metadataKey = "sops"

// syntaxError is a [FileError] without the name of the file.
type syntaxError struct {
	line   int
	reason string
}

func (e *syntaxError) Error() string { return e.reason }

func malformed(reason string) error { return &syntaxError{reason: reason} }

// metadata is what a file says about how it is encrypted.
type metadata struct {
	// groups are the key groups; a file without them has one.
	groups [][]Recipient
	// threshold is how many of the groups must be opened.
	threshold int
	rule      rule
	// mac is the encrypted MAC, and modified what authenticates it.
	mac, modified string
	// macOnlyEncrypted leaves values that are not encrypted out of the MAC.
	macOnlyEncrypted bool
}

// rule says which values are encrypted. It matches keys, and then covers all
// that is below them, or comments, and then covers what follows them.
type rule struct {
	suffix   string
	pattern  *regexp.Regexp
	comments bool
	// encrypts is what a match means; everything else is the opposite.
	encrypts bool
}

func (r rule) matches(s string) bool {
	if r.pattern != nil {
		return r.pattern.MatchString(s)
	}
	return strings.HasSuffix(s, r.suffix)
}

// defaultRule is that of a file that names none.
var defaultRule = rule{suffix: "_unencrypted"}

// ruleFields are the rules by their names in the metadata.
var ruleFields = []struct {
	name  string
	regex bool
	rule  rule
}{
	{name: "unencrypted_suffix"},
	{name: "encrypted_suffix", rule: rule{encrypts: true}},
	{name: "unencrypted_regex", regex: true},
	{name: "encrypted_regex", regex: true, rule: rule{encrypts: true}},
	{name: "unencrypted_comment_regex", regex: true, rule: rule{comments: true}},
	{name: "encrypted_comment_regex", regex: true, rule: rule{comments: true, encrypts: true}},
}

// recipientFields are the strings of each type of recipient, in the order in
// which the types are tried: what needs no network comes first.
var recipientFields = []struct {
	kind   Type
	fields []string
}{
	{Age, []string{"recipient"}},
	{PGP, []string{"fp"}},
	{AWSKMS, []string{"arn", "role", "aws_profile"}},
	{GCPKMS, []string{"resource_id"}},
	{AzureKeyVault, []string{"vault_url", "name", "version"}},
	{Vault, []string{"vault_address", "engine_path", "key_name"}},
	{HuaweiKMS, []string{"key_id"}},
}

// takeMetadata removes the metadata from documents and parses it. It returns nil
// for documents that have none. Every document of a stream carries a copy; the
// first one counts.
func takeMetadata(docs []mapping, flat bool) ([]mapping, *metadata, error) {
	if len(docs) == 0 {
		return nil, nil, nil
	}
	var raw map[string]any
	if flat {
		rest, found, err := takeFlat(docs[0])
		if err != nil || found == nil {
			return nil, nil, err
		}
		docs, raw = []mapping{rest}, found
	} else {
		for i := range docs {
			rest, value, found := docs[i].take(metadataKey)
			if i == 0 {
				if !found {
					return nil, nil, nil
				}
				var ok bool
				if raw, ok = plain(value).(map[string]any); !ok {
					return nil, nil, malformed("its metadata is not a mapping")
				}
			}
			docs[i] = rest
		}
	}
	meta, err := parseMetadata(raw)
	return docs, meta, err
}

func parseMetadata(raw map[string]any) (*metadata, error) {
	modified, err := time.Parse(time.RFC3339, text(raw["lastmodified"]))
	if err != nil {
		return nil, malformed("its metadata has no valid lastmodified")
	}
	m := &metadata{
		mac:              text(raw["mac"]),
		modified:         modified.Format(time.RFC3339),
		macOnlyEncrypted: text(raw["mac_only_encrypted"]) == "true",
		rule:             defaultRule,
	}
	if err := m.parseRule(raw); err != nil {
		return nil, err
	}
	top, err := parseGroup(raw)
	if err != nil {
		return nil, err
	}
	if len(top) > 0 {
		m.groups = [][]Recipient{top}
	} else {
		groups, _ := raw["key_groups"].([]any)
		for _, g := range groups {
			fields, ok := g.(map[string]any)
			if !ok {
				return nil, malformed("a key group in its metadata is not a mapping")
			}
			group, err := parseGroup(fields)
			if err != nil {
				return nil, err
			}
			m.groups = append(m.groups, group)
		}
	}
	return m, m.parseThreshold(raw["shamir_threshold"])
}

func (m *metadata) parseThreshold(v any) error {
	if len(m.groups) == 0 {
		return malformed("its metadata names no recipient")
	}
	m.threshold = len(m.groups)
	if s := text(v); s != "" && len(m.groups) > 1 {
		n, err := strconv.Atoi(s)
		// Fewer than two shares can't be combined.
		if err != nil || n != 0 && n < 2 || n > len(m.groups) {
			return malformed("its metadata has an impossible shamir_threshold")
		}
		if n > 0 {
			m.threshold = n
		}
	}
	return nil
}

func (m *metadata) parseRule(raw map[string]any) error {
	found := false
	for _, f := range ruleFields {
		s := text(raw[f.name])
		if s == "" {
			continue
		}
		if found {
			return malformed("its metadata has more than one rule of what is encrypted")
		}
		found = true
		m.rule = f.rule
		if !f.regex {
			m.rule.suffix = s
			continue
		}
		pattern, err := regexp.Compile(s)
		if err != nil {
			return malformed("its metadata has a malformed " + f.name)
		}
		m.rule.pattern = pattern
	}
	return nil
}

func parseGroup(raw map[string]any) ([]Recipient, error) {
	var out []Recipient
	for _, t := range recipientFields {
		value := raw[string(t.kind)]
		if value == nil {
			continue
		}
		list, ok := value.([]any)
		if !ok {
			return nil, malformed("its metadata has a malformed list of recipients for " + string(t.kind))
		}
		for _, item := range list {
			fields, ok := item.(map[string]any)
			if !ok {
				return nil, malformed("its metadata has a malformed recipient for " + string(t.kind))
			}
			r := Recipient{Type: t.kind, EncryptedKey: text(fields["enc"]), Fields: map[string]string{}}
			for _, name := range t.fields {
				r.Fields[name] = text(fields[name])
			}
			if created, err := time.Parse(time.RFC3339, text(fields["created_at"])); err == nil {
				r.Created = created
			}
			if encryptionContext, ok := fields["context"].(map[string]any); ok {
				r.Context = map[string]string{}
				for k, v := range encryptionContext {
					r.Context[k] = text(v)
				}
			}
			out = append(out, r)
		}
	}
	return out, nil
}

// recipients returns those of all groups.
func (m *metadata) recipients() []Recipient { return slices.Concat(m.groups...) }

// text returns a scalar as dotenv, which knows only strings, would have it.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int:
		return strconv.Itoa(v)
	case bool:
		return strconv.FormatBool(v)
	case time.Time:
		return v.Format(time.RFC3339)
	default:
		return ""
	}
}
