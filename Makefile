# SPDX-License-Identifier: Apache-2.0
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup build debug test unit simulate planted-bugs integration bench fmt check docs protos demo clean

# The Swift runtime goes into the binary, so that it runs on a machine without Swift.
RELEASE := -c release --static-swift-stdlib -Xlinker --gc-sections
# Generated code is formatted by its generator.
SWIFT_FILES := git ls-files --cached --others --exclude-standard -z -- '*.swift' ':!Sources/Runtime/ContainerdAPI'

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing to build and test (apt)
	@scripts/setup test

build: ## Build the release binaries and print where they are
	@scripts/setup run build
	swift build $(RELEASE) --product hivemind
	swift build $(RELEASE) --product hivemind-log
	@ls -1 "$$(swift build $(RELEASE) --show-bin-path)"/hivemind "$$(swift build $(RELEASE) --show-bin-path)"/hivemind-log

debug: ## Build everything for debugging, tests included
	@scripts/setup run build
	swift build --build-tests

test: ## Run every test (as root; what cannot run is named with its reason)
	@scripts/setup test
	@scripts/test unit simulate rooms integration clusters

unit: ## Run the tests that need neither root nor containerd
	@scripts/setup build
	@scripts/test unit simulate

simulate: ## Run SEEDS=1000 simulated clusters and the simulated nodes (SEED=n replays one with its trace)
	@scripts/setup build
	@scripts/test simulate

planted-bugs: ## See that the simulation finds every planted bug within SEEDS=10000
	@scripts/setup build
	@scripts/simulate planted

integration: ## Run the tests against real containerd, registry and namespaces (as root)
	@scripts/setup test
	@scripts/test rooms integration clusters

bench: ## Measure the promises of docs/explanation/performance.md (as root)
	@scripts/setup bench
	@$(MAKE) --no-print-directory build
	@Benchmarks/run

fmt: ## Format the sources
	@$(SWIFT_FILES) | xargs -0 swift format format --in-place --parallel

check: ## Lint the format and run the tidy tests
	@$(SWIFT_FILES) | xargs -0 swift format lint --strict --parallel
	@scripts/test tidy

docs: ## Check links in the documentation and that the CLI reference is current
	@swift build --product hivemind
	@scripts/check-docs "$$(swift build --show-bin-path)/hivemind"

protos: ## Generate the containerd client from its .proto files
	@scripts/setup protos
	@scripts/generate-protos

demo: ## Install, build, start a node and deploy a three-replica app (KEEP=1 leaves it running)
	@scripts/demo

clean: ## Remove what was built
	swift package clean
	rm -rf out
