# What can be made is listed by `make help`. Every target may be run again at any time.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-print-directory

GO ?= go
# Tools, at the versions that the tree is clean for.
GOFUMPT     := $(GO) run mvdan.cc/gofumpt@v0.12.0
STATICCHECK := $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2
export GOVULNCHECK := $(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0

# How long each fuzz target runs, and which (empty: all).
FUZZTIME ?= 60s
FUZZ     ?=
# How long `make leaks` runs, and routing.opaque in it.
LEAK_TIME ?= 10m
LEAK_OPAQUE ?= pin
LEAK_CLIENTS ?= 200
# How many cancel requests `make cancels` sends.
CANCELS ?= 1000
# The major versions of PostgreSQL that `make matrix` runs on.
VERSIONS ?= 14 15 16 17 18
# The runs of `make conformance`; empty: all.
RUNS ?=
# Further arguments: make demo ARGS=--check, make test ARGS='-run Settings ./cmd/pgweir'.
ARGS ?=

.PHONY: help
help: ## list what can be made
	@echo 'make TARGET, where TARGET is one of:'
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: build
build: ## build bin/pgweir
	@scripts/need.sh go
	$(GO) build -buildvcs=auto -o bin/pgweir ./cmd/pgweir
	@bin/pgweir version

.PHONY: demo
demo: ## install PostgreSQL if it is missing, build, and run a primary, two standbys and the proxy until Ctrl-C
	@scripts/need.sh go postgres
	@$(MAKE) build
	bin/pgweir demo $(ARGS)

.PHONY: test
test: ## install what the tests need and run all that need no Docker, with the race detector
	@scripts/need.sh go test
	$(GO) test -race -p 1 -timeout 40m $(if $(ARGS),$(ARGS),./...)

.PHONY: lint
lint: ## gofumpt, go vet and staticcheck over every package, shellcheck over every script
	@scripts/need.sh go
	@echo 'gofumpt'; out=$$($(GOFUMPT) -l .); if [ -n "$$out" ]; then printf 'not formatted; gofumpt -w does it:\n%s\n' "$$out"; exit 1; fi
	$(GO) vet ./...
	$(STATICCHECK) ./...
	@if command -v shellcheck > /dev/null; then echo 'shellcheck'; git ls-files -z '*.sh' '.ci/run' | xargs -0 --no-run-if-empty shellcheck -x; else echo 'shellcheck is not installed: scripts are not looked at'; fi

.PHONY: vuln
vuln: ## look for known vulnerabilities, in the online database or in the copy that VULNDB names
	@scripts/need.sh go
	@scripts/vuln.sh

.PHONY: fuzz
fuzz: ## run the fuzz targets (FUZZ='FuzzFrames …', default all) for FUZZTIME each (60s)
	@scripts/need.sh go
	@scripts/fuzz.sh $(FUZZTIME) $(FUZZ)

.PHONY: parity
parity: ## run the parity scripts: straight against the primary and through pgweir, compared message by message
	@scripts/need.sh go test
	$(GO) test -count=1 -timeout 30m ./internal/e2e -run Parity -v

.PHONY: e2e
e2e: ## run all end-to-end tests: parity, drivers, failover, several clusters, the demo
	@scripts/need.sh go test
	$(GO) test -count=1 -timeout 60m ./internal/e2e

.PHONY: leaks
leaks: ## let LEAK_CLIENTS (200) clients take turns on few connections for LEAK_TIME (10m) with routing.opaque LEAK_OPAQUE (pin), each looking whether it sees only itself
	@scripts/need.sh go test
	LEAK_TIME=$(LEAK_TIME) LEAK_OPAQUE=$(LEAK_OPAQUE) LEAK_CLIENTS=$(LEAK_CLIENTS) $(GO) test -count=1 -timeout 60m ./internal/e2e -run TestLeaks -v

.PHONY: leak-mutants
leak-mutants: ## switch each protection of a shared connection off in turn: the hunt must find every one within a minute
	@scripts/need.sh go test
	LEAK_MUTANTS=1 $(GO) test -count=1 -timeout 60m ./internal/e2e -run TestLeakMutants -v

.PHONY: pgx-suite
pgx-suite: ## run pgx's own test suite on a primary and through pgweir: the same tests must pass, but for scripts/pgx.known
	@scripts/need.sh go test
	PGX_SUITE=1 $(GO) test -count=1 -timeout 60m ./internal/e2e -run 'TestPgxSuite$$' -v

.PHONY: orm
orm: ## try ORMs and migration tools, with a failover in the middle (ARGS='-run TestORM/Knex', ARGS=-update for the README)
	@scripts/need.sh go orm
	ORM=1 $(GO) test -count=1 -timeout 60m -v ./internal/e2e -run 'TestORM$$' $(ARGS)

.PHONY: cancels
cancels: ## send CANCELS (1000) cancel requests through a balancer to three processes: each must hit its statement and no other
	@scripts/need.sh go test
	CANCELS=$(CANCELS) $(GO) test -count=1 -timeout 30m ./internal/e2e -run 'TestPeers$$' -v

.PHONY: matrix
matrix: ## run the end-to-end tests on PostgreSQL 14 to 18 (VERSIONS='15 17')
	@scripts/need.sh go test matrix
	@scripts/matrix.sh $(VERSIONS)

.PHONY: conformance
conformance: ## run PostgreSQL's own suites through pgweir, beside a direct run (RUNS='direct default global isolation-direct isolation')
	@scripts/need.sh go conformance
	@$(MAKE) build
	@scripts/conformance.sh $(RUNS)

.PHONY: oracle
oracle: ## compare the classifier with PostgreSQL's own grammar (compiles C for some minutes the first time)
	@scripts/need.sh go oracle
	cd internal/oracle && $(GO) test -timeout 30m ./...

.PHONY: bench
bench: ## measure beside PgBouncer, Pgpool-II and HAProxy, and write bench/RESULTS.md
	@scripts/need.sh go test bench
	$(GO) run ./bench $(ARGS)

.PHONY: bench-quick
bench-quick: ## the short bench, about three minutes: CPU per query beside PgBouncer, classifier, memory of idle clients
	@scripts/need.sh go test bench
	$(GO) run ./bench -quick $(ARGS)

.PHONY: compose-test
compose-test: ## walk docker compose and the README's steps, with an engine of its own where none answers
	@scripts/need.sh go
	deploy/test/compose-test.sh

.PHONY: generate
generate: ## write generated files again
	@scripts/need.sh go
	$(GO) generate ./...
