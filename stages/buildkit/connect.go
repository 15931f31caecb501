package buildkit

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/moby/buildkit/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"

	// These make the addresses of the same names work.
	_ "github.com/moby/buildkit/client/connhelper/dockercontainer"
	_ "github.com/moby/buildkit/client/connhelper/kubepod"
	_ "github.com/moby/buildkit/client/connhelper/npipe"
	_ "github.com/moby/buildkit/client/connhelper/podmancontainer"
	_ "github.com/moby/buildkit/client/connhelper/ssh"
)

// mobyExporter keeps an image in Docker Engine's own store.
const mobyExporter = "moby"

// daemon is one build's connection to BuildKit.
type daemon struct {
	client *client.Client
	engine *engine // nil unless the daemon is Docker Engine
}

// connect dials the daemon and makes sure that it answers, because a build that
// can't reach it fails in several places at once, none of which says so well.
func (b *Builder) connect(ctx context.Context) (_ *daemon, err error) {
	d := new(daemon)
	address := b.cfg.Address
	// A daemon that was away for a moment should be seen to be back, and one on a
	// busy machine be given time to answer: without a minimum, an attempt gets no
	// more than the backoff.
	options := []client.ClientOpt{client.WithGRPCDialOption(grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, MaxDelay: time.Second},
		MinConnectTimeout: 20 * time.Second,
	}))}
	host, docker := strings.CutPrefix(address, dockerScheme)
	switch {
	case docker:
		if d.engine, err = newEngine(host, b.cfg.TLS); err != nil {
			return nil, err
		}
		// The name is for nobody: the dialer below knows where to go.
		address = "passthrough:///docker"
		options = append(options, client.WithContextDialer(d.engine.dialGRPC), client.WithSessionDialer(d.engine.dialSession))
	case b.cfg.TLS != nil:
		options = append(options, client.WithGRPCDialOption(grpc.WithTransportCredentials(credentials.NewTLS(b.cfg.TLS))))
	}
	if d.client, err = client.New(ctx, address, options...); err != nil {
		d.close()
		return nil, fmt.Errorf("connect to BuildKit at %s: %w", displayAddress(b.cfg.Address), err)
	}
	if _, err = d.client.ListWorkers(ctx); err != nil {
		d.close()
		return nil, fmt.Errorf("connect to BuildKit at %s: %w; is it running, and may this user talk to it?", displayAddress(b.cfg.Address), err)
	}
	return d, nil
}

// exporter is the name of what takes the finished image.
func (d *daemon) exporter() string {
	if d.engine != nil {
		return mobyExporter
	}
	return client.ExporterImage
}

// close hangs up. What it could report no longer matters to anybody.
func (d *daemon) close() {
	if d.client != nil {
		_ = d.client.Close()
	}
	if d.engine != nil {
		d.engine.close()
	}
}

// displayAddress is the address without a password that it may hold.
func displayAddress(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "the configured address"
	}
	return u.Redacted()
}
