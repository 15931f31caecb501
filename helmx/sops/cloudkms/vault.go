package cloudkms

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/vault/api"

	"github.com/fairlead-dev/fairlead/helmx/sops"
	"github.com/fairlead-dev/fairlead/stages"
)

// vaultTimeout is that of Vault's own client.
const vaultTimeout = time.Minute

// transit asks the transit engines of Vault. It calls Vault's client itself, because
// that of sops lets the environment choose the server, and follows a redirect to any
// other, each time with the token.
type transit struct {
	cfg    Vault
	client *http.Client
}

func newTransit(cfg Vault) (*transit, error) {
	if cfg.Token == "" || len(cfg.Addresses) == 0 {
		return nil, errors.New("Vault needs a Token and Addresses")
	}
	if strings.ContainsFunc(cfg.Token, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return nil, errors.New("Vault's Token holds white space or control characters, such as the end of a line")
	}
	for _, address := range cfg.Addresses {
		u, err := url.Parse(address)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.TrimSuffix(address, "/") != u.Scheme+"://"+u.Host {
			return nil, errors.New("Vault's Addresses must be like https://vault.example.com:8200")
		}
	}
	given := cfg.Client
	if given == nil {
		defaults := api.DefaultConfig()
		if defaults.Error != nil {
			return nil, fmt.Errorf("the environment's settings of Vault: %w", defaults.Error)
		}
		given = defaults.HttpClient
	}
	cfg.Addresses = slices.Clone(cfg.Addresses)
	client := *given
	if client.Transport == nil {
		client.Transport = http.DefaultTransport
	}
	client.Transport = confined{cfg.Addresses, client.Transport}
	// Vault's client follows the one redirect that a standby gives.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &transit{cfg, &client}, nil
}

func (t *transit) decrypt(ctx context.Context, r sops.Recipient) ([]byte, error) {
	address, engine, key := r.Fields["vault_address"], r.Fields["engine_path"], r.Fields["key_name"]
	if !named(t.cfg.Addresses, address) {
		return nil, foreign("Vault server", address)
	}
	// The two become part of a request's path, which must stay one to decrypt.
	if !plain(engine) {
		return nil, misleading("engine_path", engine)
	}
	if !plain(key) || strings.Contains(key, "/") {
		return nil, misleading("key_name", key)
	}
	client, err := api.NewClient(&api.Config{Address: strings.TrimSuffix(address, "/"), HttpClient: t.client, Timeout: vaultTimeout})
	if err != nil {
		return nil, fmt.Errorf("%w: cloudkms: the environment's settings of Vault: %w", stages.ErrInvalid, err)
	}
	client.SetToken(t.cfg.Token)
	client.SetNamespace(t.cfg.Namespace)
	endpoint := path.Join(engine, "decrypt", key)
	secret, err := client.Logical().WriteWithContext(ctx, endpoint, map[string]any{"ciphertext": r.EncryptedKey})
	if err != nil {
		return nil, failed(ctx, vaultFailure(endpoint, err))
	}
	var plaintext string
	if secret != nil {
		plaintext, _ = secret.Data["plaintext"].(string)
	}
	data, err := base64.StdEncoding.DecodeString(plaintext)
	if err != nil || len(data) == 0 {
		return nil, &Error{Service: "Vault", Code: "without a data key", Reason: "the answer holds none", Remedy: "check that " + endpoint + " is of a transit engine"}
	}
	return data, nil
}

// confined makes requests to the named servers only, wherever redirects lead.
type confined struct {
	addresses []string
	next      http.RoundTripper
}

func (c confined) RoundTrip(r *http.Request) (*http.Response, error) {
	if address := r.URL.Scheme + "://" + r.URL.Host; !named(c.addresses, address) {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, fmt.Errorf("%w: cloudkms: Vault redirects to %q, which the configuration does not name; nothing was sent to it", stages.ErrInvalid, address)
	}
	return c.next.RoundTrip(r)
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
