package pipeline

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// Pipeline delivers sources, one at a time. Its methods may be called from
// several goroutines; a run or recovery that finds the journal in use by another
// is refused with [ErrBusy].
type Pipeline struct {
	config Config

	mu     sync.Mutex
	active sync.WaitGroup
	closed bool
	once   sync.Once
	err    error // of Close
}

// New returns the pipeline that config composes, or one error that joins
// everything that is wrong with it, matching [stages.ErrInvalid]. It touches
// nothing.
func New(config Config) (*Pipeline, error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	return &Pipeline{config: config}, nil
}

// enter keeps Close waiting until the returned function is called.
func (p *Pipeline) enter() (leave func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("%w: %s", ErrClosed, p.config.Name)
	}
	p.active.Add(1)
	return p.active.Done, nil
}

// Close waits for what runs, and then closes, once each, the stages, gates and
// verifiers that are a [stages.Closer], last first. It joins their errors.
// Afterwards nothing can be run.
func (p *Pipeline) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.active.Wait()
	p.once.Do(func() {
		var errs []error
		closers := p.config.closers()
		for i := len(closers) - 1; i >= 0; i-- {
			if err := protect(closers[i].Close); err != nil {
				errs = append(errs, fmt.Errorf("close %T: %w", closers[i], err))
			}
		}
		p.err = errors.Join(errs...)
	})
	return p.err
}

// closers lists each stage that can be closed once, even if it serves twice.
func (c Config) closers() (closers []stages.Closer) {
	seen := map[stages.Closer]bool{}
	add := func(v any) {
		closer, ok := v.(stages.Closer)
		if !ok {
			return
		}
		if reflect.ValueOf(closer).Comparable() {
			if seen[closer] {
				return
			}
			seen[closer] = true
		}
		closers = append(closers, closer)
	}
	add(c.Builder)
	add(c.Scanner)
	for _, g := range c.ScanGates {
		add(g)
	}
	for _, g := range c.PlanGates {
		add(g)
	}
	add(c.Signer)
	add(c.SignatureVerifier)
	add(c.Deployer)
	for _, v := range c.Verifiers {
		add(v)
	}
	for _, g := range c.ReleaseGates {
		add(g)
	}
	return closers
}

// newRunID sorts by time and is valid as a Kubernetes label.
func newRunID() string {
	var chance [4]byte
	rand.Read(chance[:]) // never fails, see crypto/rand
	return time.Now().UTC().Format("20060102-150405-") + hex.EncodeToString(chance[:])
}
