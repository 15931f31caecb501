package trivy

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// maxDatabase bounds what an archive may unpack to. The public databases are
// around a gigabyte.
const maxDatabase = 16 << 30

// remoteOptions are those of every request. The client's own retries are off,
// because the engine that runs the scan retries.
func (s *Scanner) remoteOptions(ctx context.Context) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx),
		remote.WithAuthFromKeychain(s.cfg.Keychain),
		remote.WithTransport(s.transport),
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}),
		remote.WithRetryPredicate(func(error) bool { return false }),
		remote.WithRetryStatusCodes(),
		remote.WithUserAgent("fairlead"),
	}
}

// resolve asks each reference in turn until one answers.
func (s *Scanner) resolve(ctx context.Context, refs []name.Reference) (*remote.Descriptor, error) {
	var errs []error
	for _, ref := range refs {
		desc, err := remote.Get(ref, s.remoteOptions(ctx)...)
		if err == nil {
			return desc, nil
		}
		errs = append(errs, fmt.Errorf("read %s: %w", ref, classify(err)))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// unpack downloads the artifact's only layer and writes the wanted files of the
// archive in it to dir.
func unpack(desc *remote.Descriptor, mediaType string, wanted []string, dir string) error {
	img, err := desc.Image()
	if err != nil {
		return classify(err)
	}
	layers, err := img.Layers()
	if err != nil {
		return classify(err)
	}
	if len(layers) != 1 {
		return fmt.Errorf("%w: the artifact has %d layers, expected 1", ErrDatabaseCorrupt, len(layers))
	}
	if got, err := layers[0].MediaType(); err != nil || string(got) != mediaType {
		return fmt.Errorf("%w: the artifact's layer is of type %q, expected %q", ErrDatabaseCorrupt, got, mediaType)
	}
	return unpackLayer(layers[0], wanted, dir)
}

func unpackLayer(layer v1.Layer, wanted []string, dir string) (err error) {
	rc, err := layer.Compressed()
	if err != nil {
		return fmt.Errorf("download: %w", classify(err))
	}
	// What the archive's readers make of a broken download is not what is wrong
	// with it, so the download's own error counts first.
	body := &firstError{r: rc}
	defer func() {
		err = errors.Join(err, rc.Close())
	}()
	err = untar(body, wanted, dir)
	if err == nil {
		// The rest is read for the digest check at its end.
		_, err = io.Copy(io.Discard, body)
	}
	switch {
	case body.err != nil:
		return fmt.Errorf("download: %w", classify(body.err))
	case err != nil:
		return err
	}
	return nil
}

type firstError struct {
	r   io.Reader
	err error
}

func (f *firstError) Read(b []byte) (int, error) {
	n, err := f.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) && f.err == nil {
		f.err = err
	}
	return n, err
}

func untar(r io.Reader, wanted []string, dir string) error {
	zr, err := gzip.NewReader(r)
	if err != nil {
		return fmt.Errorf("%w: not a gzip archive: %w", ErrDatabaseCorrupt, err)
	}
	left := int64(maxDatabase)
	found := 0
	for tr := tar.NewReader(zr); ; {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: broken archive: %w", ErrDatabaseCorrupt, err)
		}
		file := path.Clean(header.Name)
		if header.Typeflag != tar.TypeReg || !slices.Contains(wanted, file) {
			continue
		}
		if left -= header.Size; left < 0 {
			return fmt.Errorf("%w: it unpacks to more than %d GiB", ErrDatabaseCorrupt, maxDatabase>>30)
		}
		if err := writeNew(corruptReader{tr}, filepath.Join(dir, file)); err != nil {
			return err
		}
		found++
	}
	if found != len(wanted) {
		return fmt.Errorf("%w: the archive holds %d of the files %v", ErrDatabaseCorrupt, found, wanted)
	}
	return nil
}

// corruptReader tells a broken archive from a disk that can't be written to.
type corruptReader struct{ io.Reader }

func (c corruptReader) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: broken archive: %w", ErrDatabaseCorrupt, err)
	}
	return n, err
}

func writeNew(r io.Reader, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err == nil {
		// The file is about to be renamed into place and trusted from then on.
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
