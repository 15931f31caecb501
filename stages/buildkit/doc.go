// Package buildkit builds images from a Dockerfile with BuildKit, pushes them,
// and returns them pinned by the digest they were pushed under.
//
// It talks to a BuildKit daemon (buildkitd), or to the one inside Docker Engine,
// whose address [DockerEngine] makes. The source folder is streamed to the
// daemon, .dockerignore honoured; nothing is written to this host's disk, and no
// program is run, unless the address is of a kind that needs one, such as
// docker-container://name.
//
// The smallest use:
//
//	builder, err := buildkit.New(buildkit.Config{
//		Address:    "unix:///run/buildkit/buildkitd.sock",
//		Repository: "ghcr.io/acme/shop",
//	})
//	if err != nil { ... }
//	img, err := builder.Build(ctx, stages.Source{Dir: ".", Tags: []string{"v1.4.2"}})
//
// # Failures
//
// What is wrong with the Dockerfile, or fails in one of its instructions, is a
// [BuildError]: the file, the line, the instruction, its exit code, the last
// lines it printed. It is permanent in the sense of [stages.IsPermanent]. A
// daemon or a registry that can't be reached is not: a retry may help.
//
// # The syntax line
//
// A Dockerfile may begin with "# syntax=docker/dockerfile:1", which has BuildKit
// pull that image and run it to read the file. This package ignores the line by
// default: BuildKit's built-in frontend reads the same language, needs no network,
// and is one program less to trust. Config.FollowSyntaxLine restores the usual
// behaviour for a file that needs a frontend of its own.
//
// # Secrets
//
// Secrets are held in memory and handed to the daemon when an instruction mounts
// them (RUN --mount=type=secret,id=...). They never become build arguments, and
// progress, errors and evidence have them replaced, should an instruction print
// one. The package reads no environment variable and no ~/.docker/config.json:
// registry credentials come from Config.Auth.
package buildkit
