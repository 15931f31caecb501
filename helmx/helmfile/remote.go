package helmfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"

	"github.com/fairlead-dev/fairlead/helmx"
	"github.com/fairlead-dev/fairlead/helmx/internal/address"
)

// remote fetches a chart once, and pins the release to what was found: whenever the
// chart is fetched again, it is that one or none.
func (l *loader) remote(ctx context.Context, rel release, far Chart, config *helmx.Config) error {
	source, err := l.source(rel, far)
	if err != nil {
		return err
	}
	config.Chart, config.ChartSource = far.Reference, source
	d, err := helmx.Open(ctx, *config)
	if err != nil {
		return fmt.Errorf("chart %s of release %s: %w", shown(rel.chart), rel.id(), err)
	}
	found := d.Chart()
	config.ChartSource.Version, config.ChartSource.Digest = found.Version, found.Digest
	if err := d.Close(); err != nil {
		return fmt.Errorf("chart %s of release %s: %w", shown(rel.chart), rel.id(), err)
	}
	return nil
}

// source is how a chart is got: what Config.Charts says, and of the rest what the
// file says.
func (l *loader) source(rel release, far Chart) (helmx.ChartSource, error) {
	var out helmx.ChartSource
	if l.cfg.Charts != nil {
		out = l.cfg.Charts(far)
	}
	refuse := func(field, format string, args ...any) (helmx.ChartSource, error) {
		return out, rel.error(rel.line, rel.field+field, format, args...)
	}
	if far.Version == "" && address.Digest(far.Reference) == "" {
		return refuse(".version", "is missing: say which version of %s to take, such as 1.4.2 or ~1.4; the newest of all is not taken", shown(rel.chart))
	}
	out.Version = far.Version
	if !far.Repository.OCI {
		out.Repository = far.Repository.URL
	}
	out.PlainHTTP = out.PlainHTTP || far.Repository.PlainHTTP
	if far.Repository.CAFile != "" && out.CA == nil && out.Transport == nil {
		authority, err := inRoot(l.engine, l.path(far.Repository.CAFile), (*os.Root).ReadFile)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return refuse(".chart", "the authority of its repository, %s, does not exist", shown(far.Repository.CAFile))
		case err != nil:
			return refuse(".chart", "the authority of its repository: %v", err)
		}
		out.CA = authority
	}
	if far.Repository.Username != "" && out.Credentials == nil {
		out.Credentials = credentials(far.Repository)
	}
	return out, nil
}

// credentials are for the repository's own host and no other.
func credentials(r Repository) func(context.Context, string) (helmx.Credentials, error) {
	own, _, _ := strings.Cut(r.URL, "/")
	if u, err := url.Parse(r.URL); err == nil && u.Host != "" {
		own = u.Host
	}
	return func(_ context.Context, host string) (helmx.Credentials, error) {
		if host != own {
			return helmx.Credentials{}, nil
		}
		return helmx.Credentials{Username: r.Username, Password: r.Password}, nil
	}
}
