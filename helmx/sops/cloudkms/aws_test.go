package cloudkms_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/helmx/sops"
	"github.com/fairlead-dev/fairlead/helmx/sops/cloudkms"
	"github.com/fairlead-dev/fairlead/stages"
)

// The AWS of these tests: local-kms, which implements KMS, behind a check of
// signatures as AWS documents them (Signature Version 4), and a stand-in for the one
// call of STS that sops makes. The SDKs reach both by the services' own host names.

var (
	awsUser = aws.Credentials{AccessKeyID: "AKIDUSER", SecretAccessKey: "canary-secret", SessionToken: "canary-session"}
	awsRole = aws.Credentials{AccessKeyID: "ASIAROLE", SecretAccessKey: "canary-role-secret", SessionToken: "canary-role-session"}
)

const deployRole = "arn:aws:iam::111122223333:role/deploy"

func provider(c aws.Credentials) aws.CredentialsProvider {
	return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return c, nil })
}

func sum(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

// signature is what Signature Version 4 is for a request with the given credentials,
// and the canonical form of the request.
func signature(r *http.Request, body []byte, c aws.Credentials, scope, signed string) (sig, canonical string) {
	var headers strings.Builder
	for name := range strings.SplitSeq(signed, ";") {
		value := strings.Join(r.Header.Values(name), ",")
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = fmt.Sprint(r.ContentLength)
		}
		fmt.Fprintf(&headers, "%s:%s\n", name, strings.TrimSpace(value))
	}
	canonical = fmt.Sprintf("%s\n%s\n%s\n%s\n%s\n%x", r.Method, r.URL.EscapedPath(), r.URL.RawQuery, &headers, signed, sha256.Sum256(body))
	key := []byte("AWS4" + c.SecretAccessKey)
	for part := range strings.SplitSeq(scope, "/") {
		key = sum(key, part)
	}
	text := fmt.Sprintf("AWS4-HMAC-SHA256\n%s\n%s\n%x", r.Header.Get("X-Amz-Date"), scope, sha256.Sum256([]byte(canonical)))
	return hex.EncodeToString(sum(key, text)), canonical
}

// signed lets requests pass that are signed with one of the credentials for a service.
func signed(service string, next http.Handler, credentials ...aws.Credentials) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		refuse := func(code, message string) {
			w.Header().Set("Content-Type", "application/x-amz-json-1.1")
			w.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": message})
		}
		var id, scope, headers, given string
		authorization := strings.NewReplacer("AWS4-HMAC-SHA256 Credential=", "", ", SignedHeaders=", " ", ", Signature=", " ", "/", " ").Replace(r.Header.Get("Authorization"))
		var date, region, forService, end string
		if n, _ := fmt.Sscan(authorization, &id, &date, &region, &forService, &end, &headers, &given); n != 7 || forService != service {
			refuse("IncompleteSignatureException", "Authorization header has another form.")
			return
		}
		scope = strings.Join([]string{date, region, forService, end}, "/")
		for _, c := range credentials {
			if c.AccessKeyID != id || c.SessionToken != r.Header.Get("X-Amz-Security-Token") {
				continue
			}
			want, canonical := signature(r, body, c, scope, headers)
			if !hmac.Equal([]byte(want), []byte(given)) || !strings.Contains(headers, "x-amz-security-token") {
				refuse("InvalidSignatureException", "The request signature we calculated does not match the signature you provided.\n\nThe Canonical String for this request should have been\n'"+canonical+"'")
				return
			}
			next.ServeHTTP(w, r)
			return
		}
		refuse("UnrecognizedClientException", "The security token included in the request is invalid.")
	})
}

// sts answers AssumeRole with the credentials of a role.
func sts(t *testing.T) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.NoError(t, r.ParseForm())
		w.Header().Set("Content-Type", "text/xml")
		if r.Form.Get("Action") != "AssumeRole" || r.Form.Get("RoleArn") != deployRole {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not authorized to perform: sts:AssumeRole</Message></Error></ErrorResponse>`)
			return
		}
		fmt.Fprintf(w, `<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`,
			awsRole.AccessKeyID, awsRole.SecretAccessKey, awsRole.SessionToken)
	})
}

// startAWS returns a client with the right to all, and a key.
func startAWS(t *testing.T) (admin *kms.Client, arn string) {
	t.Helper()
	address, err := url.Parse(start(t, "./awskms", t.TempDir()).Address)
	require.NoError(t, err)
	internet.serve(t, awsHost, signed("kms", httputil.NewSingleHostReverseProxy(address), awsUser, awsRole))
	internet.serve(t, stsHost, signed("sts", sts(t), awsUser))
	admin = kms.New(kms.Options{Region: "eu-west-2", Credentials: provider(awsUser)})
	key, err := admin.CreateKey(t.Context(), &kms.CreateKeyInput{})
	require.NoError(t, err)
	return admin, *key.KeyMetadata.Arn
}

func awsSeal(t *testing.T, key string) sealed {
	t.Helper()
	env := []string{"AWS_ACCESS_KEY_ID=" + awsUser.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + awsUser.SecretAccessKey, "AWS_SESSION_TOKEN=" + awsUser.SessionToken}
	return seal(t, env, "--kms", key, "--encryption-context", "app:shop")
}

func TestAWS(t *testing.T) {
	admin, key := startAWS(t)
	file := awsSeal(t, key)
	cfg := cloudkms.Config{AWS: &cloudkms.AWS{Credentials: provider(awsUser)}}
	requireOpens(t, cfg, file)
	assert.Subset(t, []string{awsHost, stsHost}, internet.connections())

	t.Run("wrong secret", func(t *testing.T) {
		wrong := awsUser
		wrong.SecretAccessKey = "canary-wrong"
		cfg := cloudkms.Config{AWS: &cloudkms.AWS{Credentials: provider(wrong)}}
		requireRefused(t, cfg, file.file, true, "InvalidSignatureException", "AWS KMS", "does not match", "kms:Decrypt")
	})
	t.Run("unknown credentials", func(t *testing.T) {
		cfg := cloudkms.Config{AWS: &cloudkms.AWS{Credentials: provider(aws.Credentials{AccessKeyID: "AKIDNOBODY", SecretAccessKey: "canary"})}}
		requireRefused(t, cfg, file.file, true, "UnrecognizedClientException", "token included in the request is invalid", "kms:Decrypt")
	})
	t.Run("another encryption context", func(t *testing.T) {
		changed := strings.Replace(string(file.file), "app: shop", "app: bank", 1)
		requireRefused(t, cfg, []byte(changed), true, "InvalidCiphertextException", "encrypt the file anew")
	})
	t.Run("another key", func(t *testing.T) {
		other, err := admin.CreateKey(t.Context(), &kms.CreateKeyInput{})
		require.NoError(t, err)
		changed := strings.Replace(string(file.file), key, *other.KeyMetadata.Arn, 1)
		requireRefused(t, cfg, []byte(changed), true, "InvalidCiphertextException")
	})
	t.Run("no such key", func(t *testing.T) {
		changed := strings.Replace(string(file.file), key, "arn:aws:kms:eu-west-2:111122223333:key/gone", 1)
		requireRefused(t, cfg, []byte(changed), true, "NotFoundException", "does not exist", "encrypt the file anew")
	})
	t.Run("disabled key", func(t *testing.T) {
		_, err := admin.DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: &key})
		require.NoError(t, err)
		requireRefused(t, cfg, file.file, true, "DisabledException", "is disabled", "may still decrypt")
		_, err = admin.EnableKey(t.Context(), &kms.EnableKeyInput{KeyId: &key})
		require.NoError(t, err)
		requireOpens(t, cfg, file)
	})
}

func TestAWSRoles(t *testing.T) {
	_, key := startAWS(t)
	file := awsSeal(t, key+"+"+deployRole)
	require.Contains(t, string(file.file), "role: "+deployRole)
	requireOpens(t, cloudkms.Config{AWS: &cloudkms.AWS{Credentials: provider(awsUser), Roles: []string{deployRole}}}, file)
	assert.Contains(t, internet.connections(), stsHost)

	const another = "arn:aws:iam::111122223333:role/another"
	changed := strings.Replace(string(file.file), deployRole, another, 1)
	requireRefused(t, cloudkms.Config{AWS: &cloudkms.AWS{Credentials: provider(awsUser), Roles: []string{another}}}, []byte(changed), true, "AccessDenied", "AWS STS", "sts:AssumeRole")

	internet.serve(t, stsHost, http.NotFoundHandler()) // which forgets earlier connections
	_, err := open(t, cloudkms.Config{AWS: &cloudkms.AWS{Credentials: provider(awsUser)}}, file.file)
	require.ErrorIs(t, err, stages.ErrInvalid)
	assert.ErrorContains(t, err, deployRole)
	assert.Empty(t, internet.connections())
}

// TestAWSRegionIsNoHost has files name regions that would lead elsewhere.
func TestAWSRegionIsNoHost(t *testing.T) {
	internet.serve(t, awsHost, http.NotFoundHandler())
	source, err := cloudkms.New(cloudkms.Config{AWS: &cloudkms.AWS{Credentials: provider(awsUser)}})
	require.NoError(t, err)
	for _, region := range []string{"evil.example.com/", "evil.example.com#", "evil.example.com?", "x@evil.example.com:443/", "evil.example.com", "a.b"} {
		_, err := source.DecryptDataKey(t.Context(), sops.Recipient{Type: sops.AWSKMS, EncryptedKey: "eA==", Fields: map[string]string{"arn": "arn:aws:kms:" + region + ":111122223333:key/x"}})
		require.Error(t, err)
		assert.NotContains(t, err.Error(), "canary")
	}
	assert.Empty(t, internet.connections())
}
