package sign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"strings"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"

	"github.com/fairlead-dev/fairlead/stages"
)

// The PEM types of cosign's encrypted private keys: the one it writes, and the
// one it wrote before version 2.
const (
	privateType    = "ENCRYPTED SIGSTORE PRIVATE KEY"
	oldPrivateType = "ENCRYPTED COSIGN PRIVATE KEY"
)

// maxKey bounds the PEM text of a key, in bytes.
const maxKey = 64 << 10

// KeyPair is a new key, both halves as PEM text as cosign writes them.
type KeyPair struct {
	// Private is encrypted with the password that the pair was made with.
	Private []byte
	// Public may be shown to anyone.
	Public []byte
}

// Format keeps the private key out of every verb of package fmt.
func (KeyPair) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "key pair") }

// GenerateKeyPair makes an ECDSA P-256 key pair. The password encrypts the
// private key and must not be empty.
func GenerateKeyPair(password []byte) (KeyPair, error) {
	if len(password) == 0 {
		return KeyPair{}, fmt.Errorf("%w: a new key pair needs a password to encrypt the private key with", stages.ErrInvalid)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return KeyPair{}, fmt.Errorf("generate key pair: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return KeyPair{}, fmt.Errorf("generate key pair: %w", err)
	}
	sealed, err := encrypted.Encrypt(der, password)
	if err != nil {
		return KeyPair{}, fmt.Errorf("generate key pair: encrypt: %w", err)
	}
	public, err := cryptoutils.MarshalPublicKeyToPEM(key.Public())
	if err != nil {
		return KeyPair{}, fmt.Errorf("generate key pair: %w", err)
	}
	return KeyPair{
		Private: pem.EncodeToMemory(&pem.Block{Type: privateType, Bytes: sealed}),
		Public:  public,
	}, nil
}

// PrivateKey signs. It is safe for concurrent use.
type PrivateKey struct {
	signer signature.SignerVerifier
	public *PublicKey
}

// Public returns the key that verifies what this one signs.
func (k *PrivateKey) Public() *PublicKey { return k.public }

// Format keeps the key out of every verb of package fmt.
func (k *PrivateKey) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "private key "+k.public.ID())
}

// LoadPrivateKey decrypts a private key in the format that cosign writes: PEM
// text holding an ECDSA P-256 or RSA key. Errors match [stages.ErrInvalid] and
// contain neither key nor password.
func LoadPrivateKey(text, password []byte) (*PrivateKey, error) {
	invalid := func(why string) (*PrivateKey, error) {
		return nil, fmt.Errorf("%w: private key: %s", stages.ErrInvalid, why)
	}
	block, why := onlyBlock(text)
	if why != "" {
		return invalid(why)
	}
	if block.Type != privateType && block.Type != oldPrivateType {
		return invalid(whatInstead(block.Type) + "; expected is an encrypted key as made by cosign generate-key-pair or import-key-pair")
	}
	der, err := encrypted.Decrypt(block.Bytes, password)
	if err != nil {
		// The library's errors quote what they can't parse.
		if strings.HasSuffix(err.Error(), "decryption failed") {
			return invalid("the password does not open it")
		}
		return invalid("it is damaged")
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return invalid("what the password opens is no PKCS #8 key")
	}
	return newPrivateKey(key)
}

// newPrivateKey accepts the keys whose signatures every verifier reads alike.
func newPrivateKey(key crypto.PrivateKey) (*PrivateKey, error) {
	invalid := func(why string) (*PrivateKey, error) {
		return nil, fmt.Errorf("%w: private key: %s", stages.ErrInvalid, why)
	}
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		if k.Curve != elliptic.P256() {
			return invalid("its curve is " + k.Curve.Params().Name + "; use P-256, which every verifier expects")
		}
	case *rsa.PrivateKey:
	default:
		return invalid("it is neither an ECDSA nor an RSA key")
	}
	signer, err := signature.LoadDefaultSignerVerifier(key)
	if err != nil {
		return invalid("it is of a size that is not supported; use ECDSA P-256")
	}
	half, err := signer.PublicKey()
	if err != nil {
		return invalid("it has no public half")
	}
	public, err := newPublicKey(half)
	if err != nil {
		return nil, err
	}
	return &PrivateKey{signer: signer, public: public}, nil
}

// FromEnv loads the private key whose PEM text is in the variable keyVar, and
// whose password is in passwordVar, which may be empty but must be set. Variables
// are only read through lookup, which usually is [os.LookupEnv].
func FromEnv(lookup func(string) (string, bool), keyVar, passwordVar string) (*PrivateKey, error) {
	text, ok := lookup(keyVar)
	if !ok || strings.TrimSpace(text) == "" {
		return nil, fmt.Errorf("%w: variable %s is not set; it must hold the private key's PEM text", stages.ErrInvalid, keyVar)
	}
	password, ok := lookup(passwordVar)
	if !ok {
		return nil, fmt.Errorf("%w: variable %s is not set; it must hold the password of the key in %s", stages.ErrInvalid, passwordVar, keyVar)
	}
	key, err := LoadPrivateKey([]byte(text), []byte(password))
	if err != nil {
		return nil, fmt.Errorf("variable %s: %w", keyVar, err)
	}
	return key, nil
}

// PublicKey verifies. It is safe for concurrent use.
type PublicKey struct {
	id        string
	text      []byte
	verifiers []signature.Verifier
}

// ParsePublicKey reads an ECDSA, RSA or Ed25519 public key in PEM. Errors match
// [stages.ErrInvalid].
func ParsePublicKey(text []byte) (*PublicKey, error) {
	block, why := onlyBlock(text)
	if why == "" && block.Type != "PUBLIC KEY" && block.Type != "RSA PUBLIC KEY" {
		why = whatInstead(block.Type) + "; expected is a public key as made by cosign generate-key-pair"
	}
	if why != "" {
		return nil, fmt.Errorf("%w: public key: %s", stages.ErrInvalid, why)
	}
	key, err := cryptoutils.UnmarshalPEMToPublicKey(text)
	if err != nil {
		return nil, fmt.Errorf("%w: public key: it is damaged: %w", stages.ErrInvalid, err)
	}
	return newPublicKey(key)
}

// ID returns the hexadecimal SHA-256 of the key's DER encoding.
func (k *PublicKey) ID() string { return k.id }

// PEM returns the key as text.
func (k *PublicKey) PEM() []byte { return bytes.Clone(k.text) }

// String returns the ID.
func (k *PublicKey) String() string { return k.id }

func newPublicKey(key crypto.PublicKey) (*PublicKey, error) {
	invalid := func(err error) (*PublicKey, error) {
		return nil, fmt.Errorf("%w: public key: %w", stages.ErrInvalid, err)
	}
	der, err := cryptoutils.MarshalPublicKeyToDER(key)
	if err != nil {
		return invalid(err)
	}
	sum := sha256.Sum256(der)
	k := &PublicKey{id: hex.EncodeToString(sum[:]), text: cryptoutils.PEMEncode(cryptoutils.PublicKeyPEMType, der)}
	usual, err := signature.LoadDefaultVerifier(key)
	if err != nil {
		return invalid(err)
	}
	k.verifiers = append(k.verifiers, usual)
	// What cosign signs with depends on its version: the digest that suits the
	// key, or always SHA-256; the message itself or, for Ed25519, its digest.
	switch key.(type) {
	case *ecdsa.PublicKey, *rsa.PublicKey:
		other, err := signature.LoadVerifier(key, crypto.SHA256)
		if err != nil {
			return invalid(err)
		}
		k.verifiers = append(k.verifiers, other)
	case ed25519.PublicKey:
		other, err := signature.LoadVerifierWithOpts(key, options.WithED25519ph())
		if err != nil {
			return invalid(err)
		}
		k.verifiers = append(k.verifiers, other)
	}
	return k, nil
}

// verifies reports whether sig is this key's signature of message.
func (k *PublicKey) verifies(sig, message []byte) bool {
	for _, v := range k.verifiers {
		if v.VerifySignature(bytes.NewReader(sig), bytes.NewReader(message)) == nil {
			return true
		}
	}
	return false
}

// onlyBlock returns the one PEM block of text, or why there isn't just one.
func onlyBlock(text []byte) (block *pem.Block, why string) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, "it is empty"
	}
	if len(text) > maxKey {
		return nil, "it is larger than any key"
	}
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, "it is not PEM text (does it begin with -----BEGIN, on lines of its own?)"
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, "there is something after it; give one key alone"
	}
	return block, ""
}

// whatInstead says what a PEM block is that was expected to be something else.
func whatInstead(pemType string) string {
	switch {
	case pemType == privateType, pemType == oldPrivateType:
		return "it is a private key"
	case strings.Contains(pemType, "PRIVATE KEY"):
		return "it is a private key in another format"
	case strings.Contains(pemType, "CERTIFICATE"):
		return "it is a certificate"
	case strings.Contains(pemType, "PUBLIC KEY"):
		return "it is a public key"
	}
	return "it is PEM text of another kind"
}
