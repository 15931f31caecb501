package helmx

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
)

// What a packaged chart may hold, its packaged dependencies included. Helm has
// limits of the same size for what is unpacked, but starts anew for each packaged
// dependency.
const (
	maxArchive  = 32 << 20
	maxUnpacked = 100 << 20
	maxFile     = 5 << 20
	maxFiles    = 10_000
	maxNesting  = 8
)

// unpack returns the files of a packaged chart, or refuses the archive.
func unpack(archive []byte) ([]*loader.BufferedFile, error) {
	if len(archive) > maxArchive {
		return nil, because(ChartMalformed, "the archive is larger than %d MiB", maxArchive>>20)
	}
	if err := (&inspection{}).archive(archive, 0); err != nil {
		return nil, err
	}
	files, err := loader.LoadArchiveFiles(bytes.NewReader(archive))
	if err != nil {
		return nil, because(ChartMalformed, "%w", err)
	}
	return files, nil
}

// inspection adds up what an archive and the archives in it hold.
type inspection struct {
	files    int
	unpacked int64
}

var (
	packagedDependency = regexp.MustCompile(`^[^/]+/(?:charts/[^/]+/)*charts/[^/]+\.tgz$`)
	windowsDrive       = regexp.MustCompile(`(^|/)[A-Za-z]:`)
)

// archive reads through a chart archive without keeping it.
func (i *inspection) archive(data []byte, depth int) error {
	if depth > maxNesting {
		return because(ChartMalformed, "dependencies are packed into each other more than %d deep", maxNesting)
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return because(ChartMalformed, "it is not a packaged chart: %w", err)
	}
	defer unzipped.Close() //nolint:errcheck // What matters has been read.
	// The reader of tar skips what is asked for by nobody, at full length: what is
	// unpacked has to be counted below it.
	counted := &countingReader{from: unzipped, i: i}
	for tr := tar.NewReader(counted); ; {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return malformedArchive(err)
		}
		if i.files++; i.files > maxFiles {
			return because(ChartMalformed, "it has more than %d files", maxFiles)
		}
		if err := checkEntry(header); err != nil {
			return err
		}
		if !packagedDependency.MatchString(header.Name) {
			continue
		}
		nested, err := io.ReadAll(io.LimitReader(tr, maxFile))
		if err != nil {
			return malformedArchive(err)
		}
		if err := i.archive(nested, depth+1); err != nil {
			return err
		}
	}
}

func malformedArchive(err error) error {
	if r, ok := errors.AsType[*reasonError](err); ok {
		return r
	}
	return because(ChartMalformed, "the archive is damaged: %w", err)
}

// checkEntry refuses what is neither file nor folder, is too big, or has a name
// that leads out of the chart.
func checkEntry(header *tar.Header) error {
	switch header.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeXGlobalHeader:
	default:
		return because(ChartMalformed, "%q is neither a file nor a folder", header.Name)
	}
	name := strings.ReplaceAll(header.Name, `\`, "/")
	switch {
	case path.IsAbs(name), slices.Contains(strings.Split(name, "/"), ".."), windowsDrive.MatchString(name), strings.ContainsRune(name, 0):
		return because(ChartMalformed, "%q leads out of the chart", header.Name)
	case header.Size > maxFile:
		return because(ChartMalformed, "%q is larger than %d MiB", header.Name, maxFile>>20)
	}
	return nil
}

// countingReader ends the reading of an archive that unpacks to too much.
type countingReader struct {
	from io.Reader
	i    *inspection
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	if r.i.unpacked += int64(n); r.i.unpacked > maxUnpacked {
		return 0, because(ChartMalformed, "it unpacks to more than %d MiB", maxUnpacked>>20)
	}
	return n, err
}

// filesDigest identifies the files of a chart folder.
func filesDigest(files []*loader.BufferedFile) string {
	sorted := slices.SortedFunc(slices.Values(files), func(a, b *loader.BufferedFile) int { return strings.Compare(a.Name, b.Name) })
	sum := sha256.New()
	part := func(data []byte) {
		// The lengths keep one file's end from passing for another's beginning.
		_ = binary.Write(sum, binary.BigEndian, int64(len(data))) // A hash can't fail to write.
		sum.Write(data)
	}
	for _, f := range sorted {
		part([]byte(f.Name))
		part(f.Data)
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil))
}
