// Programs that use fairlead, and the sample service that they deliver. A module
// of its own, so that what they need never reaches someone who imports fairlead.
module github.com/fairlead-dev/fairlead/examples

go 1.26.8

require (
	github.com/fairlead-dev/fairlead v0.0.0
	github.com/fairlead-dev/fairlead/e2e v0.0.0
	github.com/fairlead-dev/fairlead/scan/trivy v0.0.0
)

replace (
	github.com/fairlead-dev/fairlead => ../
	github.com/fairlead-dev/fairlead/e2e => ../e2e
	github.com/fairlead-dev/fairlead/scan/trivy => ../scan/trivy
)
