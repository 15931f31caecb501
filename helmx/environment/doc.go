// Package environment decides where a branch, tag or pull request is delivered to,
// who must have agreed, and what is promoted.
//
//	set, err := environment.Load("environments.yaml", environment.LoadOptions{})
//	...
//	env, err := set.Resolve(environment.Branch("main"))
//	...
//	deployer, err := environment.NewDeployer(env, helmx.Config{Chart: "chart", ...})
//	// or, for a chart of a registry or repository, environment.OpenDeployer
//
// # The file
//
//	environments:
//	  - name: staging
//	    branches: [develop]            # patterns, as are tags and pullRequests
//	    namespace: stg
//	    values: [values-stg.yaml]      # relative to this file
//	  - name: production
//	    branches: [main]
//	    namespace: prod
//	    context: production            # of the kubeconfig
//	    values: [values-prod.yaml]
//	    promotesFrom: staging
//	    gates: [vulnerabilities]       # must have passed
//	    approvals: {required: 1, from: [ada, grace], within: 24h}
//	  - name: feature
//	    branches: ["feature/**"]
//	    namespace: "feature-{{.Branch}}"
//
// It is read strictly: an unknown field, a field, name, pattern or namespace given
// twice, and anything else that isn't understood is refused with its line. All
// mistakes are reported at once, as [ConfigError]s. Values files must exist within
// the file's folder, through symbolic links too: who may propose a change
// to the file must not choose which files of the build machine are read.
// Absolute paths are for programs that say so, see [LoadOptions].
//
// # Patterns
//
// A pattern matches the whole name of a branch or tag, and for pull requests the
// branch to be merged into. '*' stands for any text without '/', '**' for any text,
// the empty one included. Nothing else is special.
//
// Where several match, the narrower pattern wins: the one whose names are some of the
// other's. So "main" wins over "m*", and "release/*" over "**". Two environments
// whose patterns share names without either being narrower, such as "a*" and "*b",
// are refused when they are loaded, with a name that both match. The order in the
// file never matters.
//
// # Names from refs
//
// Who may push chooses the name of a branch, so nothing is derived from it but what
// is valid and can't be made to collide. A namespace may hold one of {{.Branch}},
// {{.Tag}} (what is readable of the name, and a hash of all of it) and
// {{.PullRequest}} (the number).
//
// # Approvals and gates
//
// [ApprovalGate] is a gate for a pipeline's plan. An approval is about one digest in one
// environment, by somebody who is asked, and may expire. One that is missing makes
// the gate inconclusive, a denial makes it fail. [Deployer] deploys only what has
// passed the gates that the environment names, and the approval gate if it requires
// approvals.
//
// # Promotion
//
// [Promotion] is a builder that builds nothing: it returns the digest that the other
// environment has deployed, by the release record that helmx wrote.
//
// # What it never does
//
// It never reads the environment variables of a build server, never asks git, and never tells
// time by anything but the clock it is given.
package environment
