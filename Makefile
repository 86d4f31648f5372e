# What each target does is said in README.md and CONTRIBUTING.md.
GO ?= go
BIN := bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X github.com/failoverd/failoverd/cluster/daemon.Version=$(VERSION) -X main.version=$(VERSION)

.PHONY: build demo test prove check bench fmt proto deps mutants clean

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

mutants:
	@$(GO) run ./integration/mutant

fmt:
	@gofmt -w cmd cluster fencing integration proto service vip

proto:
	@$(GO) run ./proto/gen

deps:
	@./.ci/deps

clean:
	@rm -rf $(BIN)
