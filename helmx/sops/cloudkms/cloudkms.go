package cloudkms

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/getsops/sops/v3/azkv"
	"github.com/getsops/sops/v3/gcpkms"
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
	// Namespace is that of the engines, in Vault Enterprise.
	Namespace string
	// Client makes the requests; nil is one with Vault's default settings. It is
	// where a certificate authority is given.
	Client *http.Client
}

// Source opens data keys. Its methods may be called from several goroutines at once.
type Source struct {
	cfg   Config
	vault *transit
}

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
	}
	s := &Source{cfg: cfg}
	if cfg.Vault != nil {
		engine, err := newTransit(*cfg.Vault)
		if err != nil {
			return refuse(err.Error())
		}
		s.vault = engine
	}
	return s, nil
}

// regional are ARNs whose region is a plain word. The SDK makes a host name of it.
var regional = regexp.MustCompile(`^arn:[a-z-]+:kms:[a-z0-9-]+:`)

// DecryptDataKey implements [sops.KeySource]. A recipient of a service that is not
// configured, that names a place which is not, or a path in Vault that isn't plain,
// gives an error matching [stages.ErrInvalid]; a service that doesn't open the data
// key gives an [Error]. Once ctx ends, so does DecryptDataKey, with an error matching
// its cause.
func (s *Source) DecryptDataKey(ctx context.Context, r sops.Recipient) ([]byte, error) {
	f := r.Fields
	switch {
	case r.Type == sops.AWSKMS && s.cfg.AWS != nil:
		if role := f["role"]; role != "" && !slices.Contains(s.cfg.AWS.Roles, role) {
			return nil, foreign("role", role)
		}
		if !regional.MatchString(f["arn"]) {
			return nil, fmt.Errorf("%w: cloudkms: %q is no ARN with a region: check the file's recipient", stages.ErrInvalid, f["arn"])
		}
		key := kms.NewMasterKey(f["arn"], f["role"], pointers(r.Context))
		key.EncryptedKey = r.EncryptedKey
		kms.NewCredentialsProvider(s.cfg.AWS.Credentials).ApplyToMasterKey(key)
		return opened(ctx, key, awsFailure)
	case r.Type == sops.GCPKMS && s.cfg.GCP != nil:
		key := gcpkms.NewMasterKeyFromResourceID(f["resource_id"])
		key.EncryptedKey = r.EncryptedKey
		gcpkms.NewTokenSource(s.cfg.GCP.Tokens).ApplyToMasterKey(key)
		return opened(ctx, key, gcpFailure)
	case r.Type == sops.AzureKeyVault && s.cfg.Azure != nil:
		if !named(s.cfg.Azure.VaultURLs, f["vault_url"]) {
			return nil, foreign("key vault", f["vault_url"])
		}
		key := azkv.NewMasterKey(f["vault_url"], f["name"], f["version"])
		key.EncryptedKey = r.EncryptedKey
		azkv.NewTokenCredential(s.cfg.Azure.Credential).ApplyToMasterKey(key)
		return opened(ctx, key, azureFailure)
	case r.Type == sops.Vault && s.vault != nil:
		return s.vault.decrypt(ctx, r)
	default:
		return nil, fmt.Errorf("%w: cloudkms: no service is configured for recipients of type %s", stages.ErrInvalid, r.Type)
	}
}

// masterKey is a key of one of the services.
type masterKey interface {
	DecryptContext(ctx context.Context) ([]byte, error)
}

func opened(ctx context.Context, key masterKey, failure func(error) *Error) ([]byte, error) {
	data, err := key.DecryptContext(ctx)
	if err != nil {
		return nil, failed(ctx, failure(err))
	}
	return data, nil
}

// named reports whether an address is one of the configured ones, exactly but for a
// slash at its end.
func named(configured []string, address string) bool {
	return slices.ContainsFunc(configured, func(c string) bool {
		return strings.TrimSuffix(c, "/") == strings.TrimSuffix(address, "/")
	})
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
