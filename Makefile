# fairlead. `make` lists what there is to do.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Trivy needs encoding/json/v2, an experiment in Go 1.26. One setting for every
# build of the repository, because another one would compile everything again.
ifneq ($(findstring go1.26,$(shell go version)),)
export GOEXPERIMENT := jsonv2
endif

MODULES  := . ./scan/trivy ./e2e ./examples
PACKAGES := $(MODULES:%=%/...) ./examples/app
GO_FILES  = $(shell git ls-files --cached --others --exclude-standard '*.go')

say = @printf '\n\033[1m==> %s\033[0m\n' "$(1)"

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: setup ## Deliver six versions of a sample service to a real cluster
	$(call say,demo: six deliveries (about 4 minutes; the first time adds about 6 to compile))
	@go run ./examples/quickstart

# End-to-end tests wait most of the time. The modules whose dependencies take long to
# compile are compiled and tested meanwhile, with what the others leave of the machine.
.PHONY: test
test: lint test-unit ## Everything: format, vet, lint, unit tests with -race, end-to-end tests
	@$(MAKE) --no-print-directory --jobs=2 e2e test-modules

.PHONY: setup
setup: ## Prepare a container engine, the node image and base images
	$(call say,setup: engine and images (seconds when cached; where nothing can be pulled about 15 minutes the first time))
	@go run ./e2e/cmd/setup

.PHONY: lint
lint: bin/golangci-lint ## Formatting, vet and linters
	$(call say,lint: gofmt and go vet and more (a minute; the first time about 8))
	@unformatted=$$(gofmt -l $(GO_FILES)); if [ -n "$$unformatted" ]; then \
	  echo "gofmt would change:"; echo "$$unformatted"; exit 1; fi
	@bin/golangci-lint run $(PACKAGES)

bin/golangci-lint: tools/go.mod tools/go.sum
	$(call say,build golangci-lint (about 2 minutes the first time))
	@GOWORK=off go -C tools build -o ../bin/ tool
	@touch $@

# The linter vets already, with every analyzer of go vet and more: once is enough.
.PHONY: test-unit
test-unit: ## Unit tests and conformance suites with the race detector
	$(call say,unit tests with -race (5 minutes; the first time about 12))
	@go test -race -vet=off -timeout 30m ./...

.PHONY: test-modules
test-modules: ## Unit tests of what needs Trivy or the cloud services' clients
	$(call say,unit tests of Trivy and cloud KMS (5 minutes; the first time about 25))
	@nice -n 19 go test -race -vet=off -timeout 60m ./scan/trivy/... ./examples/app/...
	@nice -n 19 go test -race -vet=off -timeout 60m -count=1 ./examples/...
	@GOWORK=off nice -n 19 go -C helmx/sops/cloudkms test -vet=off -timeout 60m -count=1 ./...

.PHONY: e2e
e2e: setup ## End-to-end tests on a real kind cluster
	$(call say,end-to-end tests on a kind cluster (about 30 minutes))
	@go test -vet=off -run '^$$' ./e2e/... >/dev/null
	@go test -vet=off -count=1 -timeout 70m -p 1 ./e2e/...

.PHONY: matrix
matrix: setup ## Every cell of the fault matrix on a kind cluster, into e2e/MATRIX.md
	$(call say,fault matrix: 466 rollouts beside helm and kubectl and kstatus (about 25 minutes))
	@go test -vet=off -count=1 -timeout 90m -run TestFaultMatrix ./e2e -matrix.all -matrix.update

.PHONY: dataplane
dataplane: setup ## Requests and canaries through Traefik, on a kind cluster
	$(call say,canaries behind Traefik (about 7 minutes; the first time about 5 to compile it))
	@go test -vet=off -count=1 -timeout 60m -run Traefik -v ./e2e -dataplane

.PHONY: bench
bench: setup ## Benchmarks beside the command-line tools
	$(call say,benchmarks (about 10 minutes; the first time about 5 to compile the tools))
	@go test -vet=off -run '^$$' -bench . ./... | grep -v '^ok\|no test files\|^PASS'
	@go test -vet=off -run '^$$' -bench . -benchtime 5x -timeout 60m ./e2e

.PHONY: clean
clean: ## Remove what was built here, and what is cached for the demo and the tests
	go run ./e2e/cmd/setup -clean
	rm -rf bin
