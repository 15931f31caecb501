package cloudkms

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/getsops/sops/v3/azkv"
	"github.com/getsops/sops/v3/gcpkms"
	"github.com/getsops/sops/v3/hcvault"
	"github.com/getsops/sops/v3/kms"
	"golang.org/x/oauth2"

	"github.com/fairlead-dev/fairlead/helmx/sops"
	"github.com/fairlead-dev/fairlead/stages"
)

// Config says which services may be asked, and with which credentials. At least one
// is required; a nil one is not asked.
type Config struct {
	AWS   *AWS
	GCP   *GCP
	Azure *Azure
	Vault *Vault
}

// AWS is AWS KMS.
type AWS struct {
	// Credentials are required.
	Credentials aws.CredentialsProvider
	// Roles are the ARNs of the roles that files may have assumed.
	Roles []string
}

// GCP is Google Cloud KMS.
type GCP struct {
	// Tokens are required.
	Tokens oauth2.TokenSource
}

// Azure is Azure Key Vault.
type Azure struct {
	// VaultURLs are the key vaults that may be asked, such as
	// "https://shop.vault.azure.net"; at least one is required.
	VaultURLs []string
	// Credential is required.
	Credential azcore.TokenCredential
}

// Vault is the transit engine of HashiCorp Vault.
type Vault struct {
	// Addresses are the servers that may be asked, such as
	// "https://vault.example.com"; at least one is required.
	Addresses []string
	// Token is required.
	Token string
	// Client makes the requests; nil is one with Vault's default settings.
	Client *http.Client
}

// Source opens data keys. Its methods may be called from several goroutines at once.
type Source struct{ cfg Config }

var _ sops.KeySource = (*Source)(nil)

// New returns a source, or an error matching [stages.ErrInvalid].
func New(cfg Config) (*Source, error) {
	refuse := func(what string) (*Source, error) {
		return nil, fmt.Errorf("%w: cloudkms: %s", stages.ErrInvalid, what)
	}
	switch {
	case cfg == Config{}:
		return refuse("no service is configured")
	case cfg.AWS != nil && cfg.AWS.Credentials == nil:
		return refuse("AWS needs Credentials")
	case cfg.GCP != nil && cfg.GCP.Tokens == nil:
		return refuse("GCP needs Tokens")
	case cfg.Azure != nil && (cfg.Azure.Credential == nil || len(cfg.Azure.VaultURLs) == 0):
		return refuse("Azure needs a Credential and VaultURLs")
	case cfg.Vault != nil && (cfg.Vault.Token == "" || len(cfg.Vault.Addresses) == 0):
		return refuse("Vault needs a Token and Addresses")
	}
	return &Source{cfg: cfg}, nil
}

// DecryptDataKey implements [sops.KeySource]. A recipient of a service that is not
// configured, that names a place which is not, or a path in Vault that isn't plain,
// gives an error matching [stages.ErrInvalid].
func (s *Source) DecryptDataKey(ctx context.Context, r sops.Recipient) ([]byte, error) {
	f := r.Fields
	switch {
	case r.Type == sops.AWSKMS && s.cfg.AWS != nil:
		if role := f["role"]; role != "" && !slices.Contains(s.cfg.AWS.Roles, role) {
			return nil, foreign("role", role)
		}
		key := kms.NewMasterKey(f["arn"], f["role"], pointers(r.Context))
		key.EncryptedKey = r.EncryptedKey
		kms.NewCredentialsProvider(s.cfg.AWS.Credentials).ApplyToMasterKey(key)
		return key.DecryptContext(ctx)
	case r.Type == sops.GCPKMS && s.cfg.GCP != nil:
		key := gcpkms.NewMasterKeyFromResourceID(f["resource_id"])
		key.EncryptedKey = r.EncryptedKey
		gcpkms.NewTokenSource(s.cfg.GCP.Tokens).ApplyToMasterKey(key)
		return key.DecryptContext(ctx)
	case r.Type == sops.AzureKeyVault && s.cfg.Azure != nil:
		if !named(s.cfg.Azure.VaultURLs, f["vault_url"]) {
			return nil, foreign("key vault", f["vault_url"])
		}
		key := azkv.NewMasterKey(f["vault_url"], f["name"], f["version"])
		key.EncryptedKey = r.EncryptedKey
		azkv.NewTokenCredential(s.cfg.Azure.Credential).ApplyToMasterKey(key)
		return key.DecryptContext(ctx)
	case r.Type == sops.Vault && s.cfg.Vault != nil:
		if !named(s.cfg.Vault.Addresses, f["vault_address"]) {
			return nil, foreign("Vault server", f["vault_address"])
		}
		// The two become part of a request's path, which must stay one to decrypt.
		if !plain(f["engine_path"]) {
			return nil, misleading("engine_path", f["engine_path"])
		}
		if !plain(f["key_name"]) || strings.Contains(f["key_name"], "/") {
			return nil, misleading("key_name", f["key_name"])
		}
		key := hcvault.NewMasterKey(f["vault_address"], f["engine_path"], f["key_name"])
		key.EncryptedKey = r.EncryptedKey
		hcvault.Token(s.cfg.Vault.Token).ApplyToMasterKey(key)
		if s.cfg.Vault.Client != nil {
			hcvault.NewHTTPClient(s.cfg.Vault.Client).ApplyToMasterKey(key)
		}
		return key.DecryptContext(ctx)
	default:
		return nil, fmt.Errorf("%w: cloudkms: no service is configured for recipients of type %s", stages.ErrInvalid, r.Type)
	}
}

// named reports whether an address is one of the configured ones, exactly but for a
// slash at its end.
func named(configured []string, address string) bool {
	return slices.ContainsFunc(configured, func(c string) bool {
		return strings.TrimSuffix(c, "/") == strings.TrimSuffix(address, "/")
	})
}

// plain reports whether a part of a path is what it seems to be, however it is
// cleaned, decoded or split.
func plain(s string) bool {
	return s != "." && path.Clean(s) == s && !strings.HasPrefix(s, "/") && !strings.Contains(s, "..") && !strings.ContainsAny(s, `?#%\`) &&
		!strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func misleading(field, value string) error {
	return fmt.Errorf("%w: cloudkms: the file's %s %q is not a plain path of Vault; nothing was sent", stages.ErrInvalid, field, value)
}

func foreign(what, address string) error {
	return fmt.Errorf("%w: cloudkms: the file names the %s %q, which the configuration does not; nothing was sent to it", stages.ErrInvalid, what, address)
}

func pointers(m map[string]string) map[string]*string {
	out := map[string]*string{}
	for k, v := range m {
		out[k] = &v
	}
	return out
}
