package sops

import (
	"context"
	"fmt"
	"net/url"
	"time"
)

// Type is a kind of recipient, by the name that it has in SOPS metadata.
type Type string

// The types. This package opens Age and PGP; the others need a [KeySource].
const (
	Age           Type = "age"
	PGP           Type = "pgp"
	AWSKMS        Type = "kms"
	GCPKMS        Type = "gcp_kms"
	AzureKeyVault Type = "azure_kv"
	Vault         Type = "hc_vault"
	HuaweiKMS     Type = "hckms"
)

// Recipient is a master key that a file is encrypted to, as the file tells it.
// Nobody vouches for it: what wrote the file chose its addresses and names.
type Recipient struct {
	Type Type
	// EncryptedKey is the data key, or a share of it, encrypted to the recipient
	// in the notation of its type.
	EncryptedKey string
	// Created is when that was done; zero for types that don't record it.
	Created time.Time
	// Fields are the other strings of the recipient by the names of the format:
	// recipient for Age; fp for PGP; arn, role and aws_profile for AWSKMS;
	// resource_id for GCPKMS; vault_url, name and version for AzureKeyVault;
	// vault_address, engine_path and key_name for Vault; key_id for HuaweiKMS.
	Fields map[string]string
	// Context is the encryption context of AWSKMS.
	Context map[string]string
}

// String names the recipient, such as "age age1…", without key material.
func (r Recipient) String() string {
	f := r.Fields
	var id string
	switch r.Type {
	case Age:
		id = f["recipient"]
	case PGP:
		id = f["fp"]
	case AWSKMS:
		id = f["arn"]
	case GCPKMS:
		id = f["resource_id"]
	case AzureKeyVault:
		id = redacted(f["vault_url"]) + " " + f["name"]
	case Vault:
		id = redacted(f["vault_address"]) + " " + f["engine_path"] + "/" + f["key_name"]
	case HuaweiKMS:
		id = f["key_id"]
	}
	if quoted := fmt.Sprintf("%q", id); quoted != `"`+id+`"` {
		id = quoted
	}
	return string(r.Type) + " " + id
}

// redacted returns an address without a password in it.
func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "(malformed address)"
	}
	return u.Redacted()
}

// KeySource opens data keys that a service holds the master key of. Its methods
// may be called from several goroutines at once. Errors must not contain key
// material. The recipient comes from the file and so isn't to be trusted: an
// implementation must not send a credential to an address that its own
// configuration doesn't name.
type KeySource interface {
	// DecryptDataKey returns what is encrypted in r.EncryptedKey.
	DecryptDataKey(ctx context.Context, r Recipient) ([]byte, error)
}

// KeySourceFunc lets a function serve as a [KeySource].
type KeySourceFunc func(ctx context.Context, r Recipient) ([]byte, error)

// DecryptDataKey calls f.
func (f KeySourceFunc) DecryptDataKey(ctx context.Context, r Recipient) ([]byte, error) {
	return f(ctx, r)
}
