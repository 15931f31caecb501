package registry

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// abandoned is how long an upload may rest before its space is reclaimed.
const abandoned = time.Hour

var (
	errDigest = errors.New("content does not have the digest that was promised")
	errBody   = errors.New("the request's body broke off")
	errBusy   = errors.New("another request is writing to this upload")
)

// uploads are the blobs that clients are pushing.
type uploads struct {
	store *store
	mu    sync.Mutex
	open  map[string]*upload
	swept bool
}

// upload is one blob being pushed. It holds no file open between requests.
type upload struct {
	id, path string
	// writing is held by the request that writes, and guards what follows.
	writing sync.Mutex
	sum     hash.Hash
	size    int64
	gone    bool
	used    time.Time
}

func newUploads(s *store) *uploads { return &uploads{store: s, open: map[string]*upload{}} }

// begin starts an upload, after reclaiming those that nobody finished.
func (u *uploads) begin() (*upload, error) {
	u.sweep()
	f, err := u.store.temp()
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, errors.Join(err, os.Remove(f.Name()))
	}
	up := &upload{id: strings.ToLower(rand.Text()), path: f.Name(), sum: sha256.New(), used: time.Now()}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.open[up.id] = up
	return up, nil
}

// find returns an upload for the caller alone; release it when done.
func (u *uploads) find(id string) (*upload, error) {
	u.mu.Lock()
	up := u.open[id]
	u.mu.Unlock()
	if up == nil {
		return nil, errAbsent
	}
	if !up.writing.TryLock() {
		return nil, errBusy
	}
	if up.gone {
		up.writing.Unlock()
		return nil, errAbsent
	}
	return up, nil
}

func (u *uploads) release(up *upload) {
	up.used = time.Now()
	up.writing.Unlock()
}

// write appends content. If that breaks off, which gives an error matching
// [errBody], what has arrived stays, so that the client can go on from there.
// After any other error the upload is gone.
func (u *uploads) write(up *upload, content io.Reader) error {
	f, err := os.OpenFile(up.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return errors.Join(err, u.cancel(up))
	}
	n, err := io.Copy(f, io.TeeReader(bodyReader{content}, up.sum))
	up.size += n
	closed := f.Close()
	if closed != nil || err != nil && !errors.Is(err, errBody) {
		return errors.Join(err, closed, u.cancel(up))
	}
	return err
}

// bodyReader marks what goes wrong with reading a request, as against writing
// it to the disk.
type bodyReader struct{ io.Reader }

func (b bodyReader) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", errBody, err)
	}
	return n, err
}

// finish makes the upload a blob if its content is what want says; it is gone
// either way.
func (u *uploads) finish(up *upload, want stages.Digest) error {
	defer u.forget(up)
	if got := fmt.Sprintf("sha256:%x", up.sum.Sum(nil)); got != want.String() {
		return errors.Join(errDigest, os.Remove(up.path))
	}
	if err := u.store.rename(up.path, u.store.blob(want)); err != nil {
		return errors.Join(err, os.Remove(up.path))
	}
	return nil
}

func (u *uploads) cancel(up *upload) error {
	u.forget(up)
	return os.Remove(up.path)
}

func (u *uploads) forget(up *upload) {
	up.gone = true
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.open, up.id)
}

// sweep reclaims abandoned uploads: those of this process and, once, those
// that a killed one left behind.
func (u *uploads) sweep() {
	limit := time.Now().Add(-abandoned)
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, up := range u.open {
		if !up.writing.TryLock() {
			continue
		}
		if up.used.Before(limit) {
			up.gone = true
			delete(u.open, id)
			_ = os.Remove(up.path) // the next process tries again
		}
		up.writing.Unlock()
	}
	if u.swept {
		return
	}
	u.swept = true
	left, _ := os.ReadDir(u.store.uploads()) // the next process tries again
	for _, e := range left {
		if info, err := e.Info(); err == nil && info.ModTime().Before(limit) {
			_ = os.Remove(filepath.Join(u.store.uploads(), e.Name()))
		}
	}
}
