package helmx

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/opencontainers/go-digest"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/provenance"
	"sigs.k8s.io/yaml"
)

func readKeyring(data []byte) (openpgp.EntityList, error) {
	read := openpgp.ReadKeyRing
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN")) {
		read = openpgp.ReadArmoredKeyRing
	}
	keys, err := read(bytes.NewReader(data))
	if err != nil || len(keys) == 0 {
		return nil, errors.New("ChartSource.Keyring has no OpenPGP keys; export them with gpg --export")
	}
	return keys, nil
}

// checkProvenance verifies a provenance file as [provenance.Signatory] does, which
// reads from files only, and returns who signed it. The statement in it must be
// about archive.
func checkProvenance(keyring, statement, archive []byte) (signer string, err error) {
	keys, err := readKeyring(keyring)
	if err != nil {
		return "", err
	}
	block, _ := clearsign.Decode(statement)
	if block == nil {
		return "", because(ChartUntrusted, "its provenance file has no signature block")
	}
	by, err := openpgp.CheckDetachedSignature(keys, bytes.NewReader(block.Bytes), block.ArmoredSignature.Body, nil)
	if err != nil {
		return "", because(ChartUntrusted, "its provenance file is not signed by a key of the keyring: %w", err)
	}
	metadata, sums, err := parseStatement(block.Plaintext)
	if err != nil {
		return "", because(ChartUntrusted, "its provenance file is malformed: %w", err)
	}
	name := metadata.Name + "-" + metadata.Version + ".tgz"
	if want, have := sums.Files[name], digest.FromBytes(archive).String(); want != have {
		return "", because(ChartUntrusted, "its provenance file is about another archive: it says %q of %s, which is %s", want, name, have)
	}
	return signerName(by), nil
}

// parseStatement reads the two documents that the signature is about.
func parseStatement(text []byte) (*chart.Metadata, *provenance.SumCollection, error) {
	first, second, ok := bytes.Cut(text, []byte("\n...\n"))
	metadata, sums := &chart.Metadata{}, &provenance.SumCollection{}
	if !ok {
		return nil, nil, errors.New("it has no sums")
	}
	if err := errors.Join(yaml.Unmarshal(first, metadata), yaml.Unmarshal(second, sums)); err != nil {
		return nil, nil, errors.New(yamlProblem(err))
	}
	return metadata, sums, nil
}

func signerName(by *openpgp.Entity) string {
	name := fmt.Sprintf("%X", by.PrimaryKey.Fingerprint)
	if id := by.PrimaryIdentity(); id != nil {
		name = strings.TrimSpace(id.Name) + " (" + name + ")"
	}
	return name
}
