package buildkit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/fsutil"

	"github.com/fairlead-dev/fairlead/stages"
)

// Builder builds images with BuildKit. It is safe for concurrent use and holds
// no connection between builds.
type Builder struct{ cfg Config }

var _ stages.Builder = (*Builder)(nil)

// New returns a builder, or an error matching [stages.ErrInvalid] that says what
// is wrong with cfg. It connects to nothing.
func New(cfg Config) (*Builder, error) {
	cfg, err := cfg.validate()
	if err != nil {
		return nil, err
	}
	return &Builder{cfg: cfg}, nil
}

// Build builds src and pushes the image under each of its tags, or, if it has
// none, by digest alone. It returns the digest that BuildKit pushed; that the
// registry still holds it is for the registry to say.
//
// Source.BuildArgs come on top of Config.BuildArgs. Progress is told through
// [stages.ReportProgress]: one record when a step begins, one when it ends, and
// one per line that it prints, all with the same ID.
//
// An error of the Dockerfile is a [*BuildError]. When ctx ends, Build cancels
// the build, waits until the daemon has let go of it, for at most a few seconds,
// and returns an error matching context.Cause(ctx).
func (b *Builder) Build(ctx context.Context, src stages.Source) (stages.Image, error) {
	img, err := b.build(ctx, src)
	if err == nil {
		return img, nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return stages.Image{}, fmt.Errorf("buildkit: build %s from %s: %w", b.cfg.Repository, src.Dir, err)
}

func (b *Builder) build(ctx context.Context, src stages.Source) (stages.Image, error) {
	if err := b.check(src); err != nil {
		return stages.Image{}, err
	}
	redactor := new(redactor)
	for _, secret := range b.cfg.Secrets {
		redactor.add(string(secret))
	}
	auth := &authServer{lookup: b.cfg.Auth, redactor: redactor}

	daemon, err := b.connect(ctx)
	if err != nil {
		return stages.Image{}, redactor.error(err)
	}
	defer daemon.close()

	opt, err := b.solveOpt(src, auth, daemon.exporter())
	if err != nil {
		return stages.Image{}, err
	}
	// Solve closes the channel when the daemon has nothing more to tell.
	records := make(chan *client.SolveStatus)
	watched := make(chan struct{})
	steps := newTracker(func(p stages.Progress) { stages.ReportProgress(ctx, p) }, redactor)
	go func() {
		defer close(watched)
		steps.watch(records)
	}()
	response, err := daemon.client.Solve(ctx, nil, opt, records)
	<-watched
	if err != nil {
		return stages.Image{}, explain(err, b.cfg, steps, redactor)
	}
	digest := response.ExporterResponse[exptypes.ExporterImageDigestKey]
	if daemon.engine != nil {
		digest, err = daemon.engine.push(ctx, b.cfg.Repository, src.Tags, auth)
		if err != nil {
			return stages.Image{}, redactor.error(err)
		}
	}
	if digest == "" {
		return stages.Image{}, errors.New("BuildKit pushed the image but did not say under which digest; use BuildKit 0.11 or later")
	}
	return stages.ParseImage(b.cfg.Repository + "@" + digest)
}

// check refuses what can be known to fail before anybody is asked.
func (b *Builder) check(src stages.Source) error {
	if err := src.Validate(); err != nil {
		return err
	}
	if err := checkBuildArgs(src.BuildArgs); err != nil {
		return err
	}
	if len(src.Tags) == 0 && strings.HasPrefix(b.cfg.Address, dockerScheme) {
		return fmt.Errorf("%w: Docker Engine can't push an image without a tag: set Source.Tags, or use a buildkitd", stages.ErrInvalid)
	}
	root, err := os.OpenRoot(src.Dir)
	if err != nil {
		return fmt.Errorf("%w: open the source folder: %w", stages.ErrInvalid, err)
	}
	defer root.Close()
	info, err := root.Stat(filepath.FromSlash(b.cfg.Dockerfile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: there is no %s in the source folder; set Config.Dockerfile", stages.ErrInvalid, b.cfg.Dockerfile)
	case err != nil:
		return fmt.Errorf("%w: find the Dockerfile: %w", stages.ErrInvalid, err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%w: %s is not a file", stages.ErrInvalid, b.cfg.Dockerfile)
	}
	return nil
}

// The names of the frontend and of its inputs and options, as the Dockerfile
// frontend's documentation gives them.
const (
	dockerfileFrontend = "dockerfile.v0"
	contextMount       = "context"
	dockerfileMount    = "dockerfile"
)

// solveOpt is the whole of what BuildKit is asked.
func (b *Builder) solveOpt(src stages.Source, auth *authServer, exporter string) (client.SolveOpt, error) {
	dir, err := filepath.Abs(src.Dir)
	if err != nil {
		return client.SolveOpt{}, fmt.Errorf("resolve the source folder: %w", err)
	}
	folder, err := fsutil.NewFS(dir)
	if err != nil {
		return client.SolveOpt{}, fmt.Errorf("open the source folder: %w", err)
	}
	// Lets the daemon keep the folder between builds, and be sent what changed.
	sum := sha256.Sum256([]byte(dir))
	return client.SolveOpt{
		Frontend:      dockerfileFrontend,
		FrontendAttrs: b.frontendAttrs(src),
		LocalMounts:   map[string]fsutil.FS{contextMount: folder, dockerfileMount: folder},
		SharedKey:     "fairlead:" + hex.EncodeToString(sum[:]),
		Exports:       []client.ExportEntry{{Type: exporter, Attrs: b.exportAttrs(src, exporter)}},
		CacheImports:  b.cacheEntries(b.cfg.CacheFrom, nil),
		CacheExports:  b.cacheEntries(b.cfg.CacheTo, map[string]string{"mode": "max", "oci-mediatypes": "true", "image-manifest": "true"}),
		Session:       []session.Attachable{auth, secretsprovider.FromMap(b.cfg.Secrets)},
	}, nil
}

func (b *Builder) frontendAttrs(src stages.Source) map[string]string {
	attrs := map[string]string{"filename": b.cfg.Dockerfile}
	if b.cfg.Target != "" {
		attrs["target"] = b.cfg.Target
	}
	if b.cfg.Platform != "" {
		attrs["platform"] = b.cfg.Platform
	}
	if !b.cfg.FollowSyntaxLine {
		// The frontend looks for a syntax line only as long as it has not been told
		// on whose behalf it runs.
		attrs["cmdline"] = dockerfileFrontend
	}
	args := maps.Clone(b.cfg.BuildArgs)
	if args == nil {
		args = make(map[string]string)
	}
	if !b.cfg.SourceDate.IsZero() {
		args["SOURCE_DATE_EPOCH"] = strconv.FormatInt(b.cfg.SourceDate.Unix(), 10)
	}
	maps.Copy(args, src.BuildArgs)
	for name, value := range args {
		attrs["build-arg:"+name] = value
	}
	if src.Revision != "" {
		attrs["label:"+ocispecs.AnnotationRevision] = src.Revision
	}
	for name, value := range b.cfg.Labels {
		attrs["label:"+name] = value
	}
	return attrs
}

func (b *Builder) exportAttrs(src stages.Source, exporter string) map[string]string {
	attrs := map[string]string{string(exptypes.OptKeyOCITypes): "true"}
	names := []string{b.cfg.Repository}
	if len(src.Tags) > 0 {
		names = names[:0]
		for _, tag := range slices.Compact(slices.Sorted(slices.Values(src.Tags))) {
			names = append(names, b.cfg.Repository+":"+tag)
		}
	}
	attrs[string(exptypes.OptKeyName)] = strings.Join(names, ",")
	if exporter == client.ExporterImage {
		attrs[string(exptypes.OptKeyPush)] = "true"
		attrs[string(exptypes.OptKeyPushByDigest)] = strconv.FormatBool(len(src.Tags) == 0)
		if b.insecure(b.cfg.Repository) {
			attrs[string(exptypes.OptKeyInsecure)] = "true"
		}
	}
	if !b.cfg.SourceDate.IsZero() {
		attrs[string(exptypes.OptKeyRewriteTimestamp)] = "true"
	}
	for name, value := range b.cfg.Annotations {
		attrs[exptypes.AnnotationManifestKey(nil, name)] = value
	}
	return attrs
}

func (b *Builder) cacheEntries(refs []string, options map[string]string) []client.CacheOptionsEntry {
	var entries []client.CacheOptionsEntry
	for _, ref := range refs {
		attrs := map[string]string{"ref": ref}
		maps.Copy(attrs, options)
		if b.insecure(ref) {
			attrs["registry.insecure"] = "true"
		}
		entries = append(entries, client.CacheOptionsEntry{Type: "registry", Attrs: attrs})
	}
	return entries
}

// insecure reports whether the registry of ref may be spoken to without TLS.
// BuildKit itself does so with loopback hosts.
func (b *Builder) insecure(ref string) bool {
	host, _, _ := strings.Cut(ref, "/")
	return slices.Contains(b.cfg.InsecureRegistries, host)
}
