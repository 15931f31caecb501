package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// Options configure [Serve]. The zero value serves a temporary registry on a
// free loopback port.
type Options struct {
	// Dir keeps the content, see [Handler]. Empty means a temporary folder that
	// is removed when the server has stopped.
	Dir string
	// Listen are the addresses to serve at, by default "127.0.0.1:0". Port 0 is a
	// free port, the same one for all addresses that ask for one.
	Listen []string
	// Logger is told about requests (debug) and failures; nil means nobody is.
	Logger *slog.Logger
}

// Server is a registry that runs until its context ends or it is closed.
type Server struct {
	http      *http.Server
	addrs     []string
	temporary string
	stopWatch func() bool
	// running counts the listeners and connections that are served.
	running sync.WaitGroup
	mu      sync.Mutex
	// fresh are the connections on which nothing has been asked yet.
	fresh   map[net.Conn]struct{}
	closing bool
	remove  sync.Once
	removed error
}

// Serve starts a registry and returns when it can be reached. It runs until ctx
// ends, which breaks off the requests under way, or until [Server.Close].
//
// Whoever reaches one of the addresses may read and write.
func Serve(ctx context.Context, opts Options) (*Server, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start registry: %w", context.Cause(ctx))
	}
	log := opts.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	listeners, err := listenAll(ctx, opts.Listen)
	if err != nil {
		return nil, fmt.Errorf("start registry: %w", err)
	}
	s := &Server{fresh: map[net.Conn]struct{}{}}
	dir := opts.Dir
	if dir == "" {
		dir, err = os.MkdirTemp("", "fairlead-registry-")
		s.temporary = dir
	} else {
		err = os.MkdirAll(dir, 0o750)
	}
	if err != nil {
		closeAll(listeners)
		return nil, fmt.Errorf("start registry: content folder: %w", err)
	}
	s.http = &http.Server{
		Handler:           newHandler(dir, log),
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ConnState:         s.count,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	for _, l := range listeners {
		s.addrs = append(s.addrs, l.Addr().String())
		s.running.Go(func() {
			if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				log.Error("registry stopped serving", "address", l.Addr().String(), "error", err)
			}
		})
	}
	s.stopWatch = context.AfterFunc(ctx, func() {
		if err := errors.Join(s.http.Close(), s.join()); err != nil {
			log.Error("registry did not stop cleanly", "error", err)
		}
	})
	return s, nil
}

// Addr returns the first address as host:port, which begins the name of every
// image in the registry.
func (s *Server) Addr() string { return s.addrs[0] }

// Addrs returns all addresses, in the order of [Options.Listen].
func (s *Server) Addrs() []string { return append([]string(nil), s.addrs...) }

// Close stops the server: it lets requests under way finish until ctx ends and
// then breaks them off. Nothing of the server runs when it returns. It may be
// called more than once, and also after the server's context has ended.
func (s *Server) Close(ctx context.Context) error {
	s.stopWatch()
	s.dropFresh()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = fmt.Errorf("stop registry: requests were broken off: %w", errors.Join(err, s.http.Close()))
	}
	return errors.Join(err, s.join())
}

// count has join wait for the requests too that were broken off. A connection is
// announced by a listener's goroutine, so the count can't leave zero again.
func (s *Server) count(conn net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.fresh, conn)
	switch state {
	case http.StateNew:
		s.running.Add(1)
		s.fresh[conn] = struct{}{}
		if s.closing {
			_ = conn.Close() // as dropFresh does
		}
	case http.StateClosed, http.StateHijacked:
		s.running.Done()
	}
}

// dropFresh closes connections that clients opened in advance: a graceful
// shutdown would wait five seconds for a first request on them.
func (s *Server) dropFresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	for conn := range s.fresh {
		_ = conn.Close() // nothing has been asked on it
	}
}

// join waits until nothing is served and removes a temporary folder.
func (s *Server) join() error {
	s.running.Wait()
	s.remove.Do(func() {
		if s.temporary != "" {
			s.removed = os.RemoveAll(s.temporary)
		}
	})
	return s.removed
}

// listenAll opens all addresses or none.
func listenAll(ctx context.Context, addrs []string) ([]net.Listener, error) {
	if len(addrs) == 0 {
		addrs = []string{"127.0.0.1:0"}
	}
	// A port that is free at the first address may be taken at the second.
	const attempts = 10
	var err error
	for range attempts {
		var listeners []net.Listener
		var chosen bool
		if listeners, chosen, err = tryListen(ctx, addrs); err == nil {
			return listeners, nil
		}
		if !chosen || errors.Is(err, stages.ErrInvalid) || ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// tryListen opens all addresses or none; chosen says that a port was picked.
func tryListen(ctx context.Context, addrs []string) (listeners []net.Listener, chosen bool, err error) {
	defer func() {
		if err != nil {
			closeAll(listeners)
			listeners = nil
		}
	}()
	var config net.ListenConfig
	free := "0"
	for _, addr := range addrs {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return listeners, chosen, fmt.Errorf("%w: address %q must be host:port: %w", stages.ErrInvalid, addr, err)
		}
		if port == "0" {
			port = free
		}
		l, err := config.Listen(ctx, "tcp", net.JoinHostPort(host, port))
		if err != nil {
			return listeners, chosen, err
		}
		listeners = append(listeners, l)
		if port == "0" {
			_, free, err = net.SplitHostPort(l.Addr().String())
			if err != nil {
				return listeners, chosen, err
			}
			chosen = true
		}
	}
	return listeners, chosen, nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		_ = l.Close() // never served, so there is nothing to lose
	}
}
