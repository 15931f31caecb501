package e2e_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/e2e/labtest"
	"github.com/fairlead-dev/fairlead/registry"
	"github.com/fairlead-dev/fairlead/sign"
	"github.com/fairlead-dev/fairlead/stages"
)

// TestSignaturesInteroperate has the real cosign verify what this library signs
// and the other way round. It needs no cluster.
func TestSignaturesInteroperate(t *testing.T) {
	lab := newSignLab(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *signLab)
	}{
		{"cosign accepts ours", testCosignAcceptsOurs},
		{"ours accepts cosign's", testOursAcceptsCosigns},
		{"signatures of both stand side by side", testSignaturesSideBySide},
		{"cosign reads our keys", testCosignReadsOurKeys},
		{"annotations", testSignatureAnnotations},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, lab) })
	}
}

// signLab is a registry, a cosign, and a key pair from each side.
type signLab struct {
	ctx          context.Context
	cosign, home string
	addr         string
	client       *registry.Client
	ours, theirs cosignKey
}

// cosignKey is a key pair with its password. Nothing of it is written to a file:
// cosign takes keys from its environment, too.
type cosignKey struct {
	sign.KeyPair
	password string
}

func newSignLab(t testing.TB) *signLab {
	t.Helper()
	l := &signLab{ctx: labtest.Context(t), home: t.TempDir()}
	l.cosign = tool(t, "tools", "cosign", "github.com/sigstore/cosign/v2/cmd/cosign")
	server, err := registry.Serve(l.ctx, registry.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, server.Close(context.Background())) })
	l.addr = server.Addr()
	l.client, err = registry.New(registry.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, l.client.Close()) })

	l.ours.password = "ours"
	l.ours.KeyPair, err = sign.GenerateKeyPair([]byte(l.ours.password))
	require.NoError(t, err)
	l.theirs = l.generate(t, "theirs")
	return l
}

// run runs cosign with a key in its environment and returns all it says.
func (l *signLab) run(key cosignKey, args ...string) (string, error) {
	cmd := exec.CommandContext(l.ctx, l.cosign, args...)
	cmd.Dir = l.home
	cmd.Env = append(os.Environ(), "HOME="+l.home, "COSIGN_PASSWORD="+key.password,
		"PRIVATE_KEY="+string(key.Private), "PUBLIC_KEY="+string(key.Public))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// generate has cosign make a key pair, which it can only do into files.
func (l *signLab) generate(t testing.TB, password string) cosignKey {
	t.Helper()
	out, err := l.run(cosignKey{password: password}, "generate-key-pair")
	require.NoError(t, err, out)
	key := cosignKey{password: password}
	for name, content := range map[string]*[]byte{"cosign.key": &key.Private, "cosign.pub": &key.Public} {
		path := filepath.Join(l.home, name)
		*content, err = os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.Remove(path))
	}
	return key
}

func (l *signLab) cosignSign(t testing.TB, key cosignKey, img stages.Image, args ...string) {
	t.Helper()
	args = append([]string{"sign", "--key", "env://PRIVATE_KEY", "--tlog-upload=false", "--yes", "--allow-http-registry", "--allow-insecure-registry"}, args...)
	out, err := l.run(key, append(args, img.String())...)
	require.NoError(t, err, out)
}

func (l *signLab) cosignVerify(key cosignKey, img stages.Image, args ...string) (string, error) {
	args = append([]string{"verify", "--key", "env://PUBLIC_KEY", "--insecure-ignore-tlog", "--allow-http-registry", "--allow-insecure-registry"}, args...)
	return l.run(key, append(args, img.String())...)
}

func (l *signLab) image(t testing.TB) stages.Image {
	t.Helper()
	made, err := random.Image(256, 1)
	require.NoError(t, err)
	img, err := l.client.Update(l.ctx, l.addr+"/team/app:latest", func(v1.Image) (v1.Image, error) { return made, nil })
	require.NoError(t, err)
	return img
}

func (l *signLab) signer(t testing.TB, key cosignKey, annotations map[string]string) *sign.Signer {
	t.Helper()
	private, err := sign.LoadPrivateKey(key.Private, []byte(key.password))
	require.NoError(t, err)
	s, err := sign.NewSigner(sign.SignerConfig{Key: private, Registry: l.client, Annotations: annotations})
	require.NoError(t, err)
	return s
}

func (l *signLab) verifier(t *testing.T, key cosignKey, annotations map[string]string) *sign.Verifier {
	t.Helper()
	public, err := sign.ParsePublicKey(key.Public)
	require.NoError(t, err)
	v, err := sign.NewVerifier(sign.VerifierConfig{Keys: []*sign.PublicKey{public}, Registry: l.client, Annotations: annotations})
	require.NoError(t, err)
	return v
}

func testCosignAcceptsOurs(t *testing.T, l *signLab) {
	for _, key := range []cosignKey{l.ours, l.theirs} {
		img := l.image(t)
		out, err := l.cosignVerify(key, img)
		require.Error(t, err, "not signed yet")
		require.Contains(t, out, "no signatures found")
		_, err = l.signer(t, key, nil).Sign(l.ctx, img)
		require.NoError(t, err)
		out, err = l.cosignVerify(key, img)
		require.NoError(t, err, out)
		require.Contains(t, out, img.Digest().String())
	}
	img := l.image(t)
	_, err := l.signer(t, l.ours, nil).Sign(l.ctx, img)
	require.NoError(t, err)
	out, err := l.cosignVerify(l.theirs, img)
	require.Error(t, err, out)
}

func testOursAcceptsCosigns(t *testing.T, l *signLab) {
	for _, key := range []cosignKey{l.ours, l.theirs} {
		img := l.image(t)
		_, err := l.verifier(t, key, nil).VerifySignature(l.ctx, img)
		require.ErrorIs(t, err, stages.ErrSignature)
		l.cosignSign(t, key, img)
		found, err := l.verifier(t, key, nil).VerifySignature(l.ctx, img)
		require.NoError(t, err)
		assert.Equal(t, img, found.Image)
	}
	img := l.image(t)
	l.cosignSign(t, l.theirs, img)
	_, err := l.verifier(t, l.ours, nil).VerifySignature(l.ctx, img)
	require.ErrorIs(t, err, stages.ErrSignature)
}

func testSignaturesSideBySide(t *testing.T, l *signLab) {
	img := l.image(t)
	_, err := l.signer(t, l.ours, nil).Sign(l.ctx, img)
	require.NoError(t, err)
	l.cosignSign(t, l.theirs, img)
	before, err := l.verifier(t, l.theirs, nil).VerifySignature(l.ctx, img)
	require.NoError(t, err)
	again, err := l.signer(t, l.ours, nil).Sign(l.ctx, img)
	require.NoError(t, err)
	assert.Equal(t, before.Reference, again.Reference, "what is there is not signed again")
	for _, key := range []cosignKey{l.ours, l.theirs} {
		out, err := l.cosignVerify(key, img)
		require.NoError(t, err, out)
		_, err = l.verifier(t, key, nil).VerifySignature(l.ctx, img)
		require.NoError(t, err)
	}
	// The other way round: cosign finds our signature and makes no second one.
	l.cosignSign(t, l.ours, img)
	after, err := l.verifier(t, l.ours, nil).VerifySignature(l.ctx, img)
	require.NoError(t, err)
	assert.Equal(t, again.Reference, after.Reference)
}

func testCosignReadsOurKeys(t *testing.T, l *signLab) {
	out, err := l.run(l.ours, "public-key", "--key", "env://PRIVATE_KEY")
	require.NoError(t, err, out)
	assert.Contains(t, out, string(l.ours.Public))
}

func testSignatureAnnotations(t *testing.T, l *signLab) {
	want, other := map[string]string{"env": "prod"}, map[string]string{"env": "staging"}
	img := l.image(t)
	_, err := l.signer(t, l.ours, want).Sign(l.ctx, img)
	require.NoError(t, err)
	out, err := l.cosignVerify(l.ours, img, "-a", "env=prod")
	require.NoError(t, err, out)
	out, err = l.cosignVerify(l.ours, img, "-a", "env=staging")
	require.Error(t, err, out)

	img = l.image(t)
	l.cosignSign(t, l.theirs, img, "-a", "env=prod")
	_, err = l.verifier(t, l.theirs, want).VerifySignature(l.ctx, img)
	require.NoError(t, err)
	_, err = l.verifier(t, l.theirs, other).VerifySignature(l.ctx, img)
	require.ErrorIs(t, err, stages.ErrSignature)
}
