package cloudkms_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"strings"
	"testing"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/fairlead-dev/fairlead/helmx/sops/cloudkms"
)

const (
	gcpKey   = "projects/shop/locations/global/keyRings/ring/cryptoKeys/shop"
	gcpToken = "canary-gcp-token"
)

// cloudKMS stands in for Google Cloud KMS, with its gRPC protocol, its check of the
// token, and real cryptography. Nobody has compared it with the service.
type cloudKMS struct {
	kmspb.UnimplementedKeyManagementServiceServer
	aead cipher.AEAD
}

func startGCP(t *testing.T) {
	t.Helper()
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	block, err := aes.NewCipher(key)
	require.NoError(t, err)
	aead, err := cipher.NewGCM(block)
	require.NoError(t, err)
	server := grpc.NewServer()
	kmspb.RegisterKeyManagementServiceServer(server, &cloudKMS{aead: aead})
	t.Cleanup(server.Stop)
	internet.serve(t, gcpHost, server)
}

// allow is nil for a request with the token and a key that there is.
func (*cloudKMS) allow(ctx context.Context, key string) error {
	md, _ := metadata.FromIncomingContext(ctx)
	switch token := strings.Join(md.Get("authorization"), ","); {
	case token == "Bearer canary-gcp-reader":
		return status.Errorf(codes.PermissionDenied, "Permission 'cloudkms.cryptoKeyVersions.useToDecrypt' denied on resource '%s' (or it may not exist).", key)
	case token != "Bearer "+gcpToken:
		return status.Error(codes.Unauthenticated, "Request had invalid authentication credentials.")
	case key != gcpKey:
		return status.Errorf(codes.NotFound, "CryptoKey %s not found.", key)
	}
	return nil
}

func (k *cloudKMS) Encrypt(ctx context.Context, r *kmspb.EncryptRequest) (*kmspb.EncryptResponse, error) {
	if err := k.allow(ctx, r.GetName()); err != nil {
		return nil, err
	}
	nonce := make([]byte, k.aead.NonceSize())
	_, _ = rand.Read(nonce)
	return &kmspb.EncryptResponse{Name: gcpKey + "/cryptoKeyVersions/1", Ciphertext: k.aead.Seal(nonce, nonce, r.GetPlaintext(), nil)}, nil
}

func (k *cloudKMS) Decrypt(ctx context.Context, r *kmspb.DecryptRequest) (*kmspb.DecryptResponse, error) {
	if err := k.allow(ctx, r.GetName()); err != nil {
		return nil, err
	}
	sealed := r.GetCiphertext()
	if n := k.aead.NonceSize(); len(sealed) > n {
		if plain, err := k.aead.Open(nil, sealed[:n], sealed[n:], nil); err == nil {
			return &kmspb.DecryptResponse{Plaintext: plain}, nil
		}
	}
	return nil, status.Error(codes.InvalidArgument, "Decryption failed: verify that 'name' refers to the correct CryptoKey.")
}

func TestGCP(t *testing.T) {
	startGCP(t)
	file := seal(t, []string{"GOOGLE_OAUTH_ACCESS_TOKEN=" + gcpToken}, "--gcp-kms", gcpKey)
	with := func(token string) cloudkms.Config {
		return cloudkms.Config{GCP: &cloudkms.GCP{Tokens: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: token})}}
	}
	requireOpens(t, with(gcpToken), file)
	requireRefused(t, with("canary-wrong"), file.file, true, "Unauthenticated", "invalid authentication credentials", "cryptoKeyDecrypter")
	requireRefused(t, with("canary-gcp-reader"), file.file, true, "PermissionDenied", "useToDecrypt", "cryptoKeyDecrypter")
	gone := strings.Replace(string(file.file), gcpKey, gcpKey+"-gone", 1)
	requireRefused(t, with(gcpToken), []byte(gone), true, "NotFound", "shop-gone not found", "encrypt the file anew")

	startGCP(t) // with another key
	requireRefused(t, with(gcpToken), file.file, true, "InvalidArgument", "Decryption failed")
}
