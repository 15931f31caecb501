// Package helmfile makes a release set of a helmfile.yaml, without the helmfile
// and helm commands.
//
//	set, err := helmfile.Load(ctx, helmfile.Config{
//		Path:        "helmfile.yaml",
//		Environment: "production",
//		Env:         os.LookupEnv,
//		Cluster:     cluster, // from helmx.Connect
//		Images: map[string]helmfile.Image{
//			"prod/myapp": {Clearance: cleared, Values: helmx.ImageValues{Repository: "image.repository", Tag: "image.tag"}},
//		},
//		AllowUnscanned: "vendor charts, reviewed in OPS-12",
//	})
//	result, err := set.Apply(ctx, releaseset.ApplyRequest{Run: run})
//
// # What is read
//
// The common part: releases with chart, version, installed, values, secrets, set, setString,
// needs, labels, condition, createNamespace, wait, timeout, historyMax, inherit and
// missingFileHandler; environments; templates; bases; values; helmDefaults; commonLabels; repositories.
// Every document of the file is rendered as a template with the values of the
// environment that the documents before it define, whatever the file is called.
// Templates have the functions of sprig and of helmfile, but none that runs a
// command or asks a network.
//
// Files that missingFileHandler lets be missing are skipped, and logged: values and
// secrets of a release, by its own or the one at the root; secrets of an environment
// likewise, and its values by its own alone, as with helmfile. What a template reads
// must be there all the same.
//
// Everything else is an error that names file, line and field and says what to do,
// and so is what the helmfile command would pass over in silence: a field that
// nobody knows, an assignment without a value, releases that a later document
// replaces.
//
// # What is different
//
//   - Every release that is chosen gets a revision, also one that nothing changes in;
//     its hooks run. Selectors choose.
//   - Definitions in a chart's crds folder are created where they are missing, with every
//     deployment, unless skipCRDs is set. Objects of kinds that a release before defines
//     are planned and deployed without disableValidation, which changes nothing.
//   - A set is applied as a whole or not at all, so atomic and cleanupOnFail are
//     accepted and change nothing.
//   - wait is what [Config.Verify] does. With it, every release is verified but those
//     with wait: false; without it, a release with wait: true is refused. So is
//     waitForJobs: true, unless nothing is waited for.
//   - An image of ours is bound to a release with [Config.Images], by digest, and goes
//     over whatever the file sets. A release without one needs
//     [Config.AllowUnscanned].
//   - But for charts, no file outside of [Config.Root] is read, by default the folder
//     of the helmfile.
//   - Releases with installed: false are removed after all others are deployed and
//     verified, where helmfile begins with them: what can't be made again goes last.
//   - A chart of a repository needs a version, which may be a constraint. It is fetched
//     once to know its digest, and from then on by that.
//   - kubeContext must be the one that [Config.KubeContext] says is connected to.
//
// # What it never does
//
// It never runs a command, never reads the process's environment, never writes to
// disk, and never shows a value in an error: secrets are decrypted in memory by
// [Config.Decrypt].
package helmfile
