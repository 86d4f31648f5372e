# What each target does is said in README.md and CONTRIBUTING.md.
GO ?= go
BIN := bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X github.com/failoverd/failoverd/cluster/daemon.Version=$(VERSION) -X main.version=$(VERSION)

# How much sim, chaos and fuzz do: make sim SEEDS=100000, make chaos MINUTES=10 SEED=7.
SEEDS ?= 20000
FIRST ?= 1
MINUTES ?= 3
SEED ?= 1
NODES ?= 3
FUZZTIME ?= 4s

.PHONY: build demo test prove check bench fmt proto deps sim model chaos fuzz mutants clean

build:
	@$(GO) build -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/... ./integration/pet

demo: build
	@KEEP=$(KEEP) $(GO) run ./integration/demo

test: deps build check
	@./.ci/test

prove: build
	@./.ci/prove

check:
	@./.ci/check

bench: build
	@$(GO) run ./integration/bench $(BENCH)

sim:
	@$(GO) test ./cluster/sim -run '^TestSeeds$$' -count=1 -timeout 10h -v -sim.seeds=$(SEEDS) -sim.first=$(FIRST)

model:
	@$(GO) run ./docs/model $(MODEL)

chaos: build
	@$(GO) run ./integration/chaos -minutes $(MINUTES) -seed $(SEED) -nodes $(NODES) $(CHAOS)

fuzz:
	@$(GO) run ./integration/fuzz -time $(FUZZTIME)

mutants:
	@$(GO) run ./integration/mutant -j 2 -table docs/MUTANTS.md

fmt:
	@gofmt -w cmd cluster docs fencing integration internal proto service vip

proto:
	@$(GO) run ./proto/gen

deps:
	@./.ci/deps

clean:
	@rm -rf $(BIN)
