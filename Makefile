# `make help` lists the targets.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help setup setup-cuda demo-data catalogue ui build up demo test test-ui faults nextest chaos mutations fuzz check fmt fmt-check lint doc sqlx openapi reference structure dist bench recipes python-check contract-tools contract-cases clean clean-demo clean-deps

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

# What `make faults` runs, as in .config/nextest.toml.
FAULTS := failures:: chaos:: postgres_killed:: all_tables_leave_the_server_as_it_was

# --- start here

demo: ## Run the demo: train a published network on six kinds of clip art, step by step
	@scripts/demo.sh

up: build ## Run the service here (data in rehead-data/, address in rehead-data/url)
	target/release/rehead up --data-dir rehead-data

test: setup demo-data ## Run the tests but for `make faults`; with cargo-nextest where it is installed
	@if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --release; \
	else cargo test --release -- $(FAULTS:%=--skip %); fi

test-ui: build demo-data ## Test the dashboard in a real browser (installs Debian's chromium as root)
	@scripts/ui.sh test

faults: setup demo-data ## Run the tests in which processes, Postgres, disks and memory fail (docs/failures.md)
	@if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --release --profile faults; \
	else cargo test --release --workspace --test it -- $(FAULTS); fi

nextest: setup
	@. scripts/lib.sh; need_nextest

chaos: nextest demo-data ## Run 200 short jobs under 1,000 faults in workers, trainers and Postgres (needs cargo-nextest)
	REHEAD_CHAOS_KILLS=1000 REHEAD_CHAOS_JOBS=200 REHEAD_F12_SECONDS=60 cargo nextest run --release --profile chaos -E 'test(chaos) | test(f12)'

mutations: nextest demo-data ## Remove safeguards of the queue one by one: tests must fail (needs cargo-nextest, slow)
	@scripts/mutations.sh

fuzz: setup ## Fuzz what parses users' bytes, each parser for FUZZ_SECONDS (300); fuzz/README.md
	@scripts/fuzz.sh

# --- parts

setup: ## Download dependencies: system tools, libtorch for the CPU, Postgres' programs
	@scripts/setup.sh

setup-cuda: ## Download the CUDA parts of libtorch as well (about 2.5 GB more)
	@scripts/setup.sh cuda

demo-data: ## Download the weights and images of the demo and the tests (0.2 GB)
	@scripts/demo-data.sh

catalogue: setup ## Bring seven published image networks (0.45 GB); with URL=http://… register them at a service
	@scripts/catalogue.sh

ui: ## Build the dashboard, with Node (`make build` does); `UI=0` goes without
	@scripts/ui.sh

build: setup ui ## Build target/release/rehead, with the dashboard, and the trainer beside it
	@cargo build --release

dist: setup ## Build a tarball for users: both executables and libtorch, optimized; runs from any folder
	@scripts/dist.sh

# --- before a commit

check: fmt-check lint doc structure ## Check formatting, clippy, rustdoc and structure, with warnings denied

fmt: ## Format the code
	cargo fmt

fmt-check:
	cargo fmt --check

lint: setup ## Run clippy
	cargo clippy --release --workspace --all-targets -- -D warnings
	cargo clippy --release -p rehead --features otel -- -D warnings

doc: setup ## Build the API docs of the code
	RUSTDOCFLAGS="-D warnings" cargo doc --release --no-deps --workspace

sqlx: setup ## Check every query against a live Postgres and update .sqlx
	scripts/sqlx.sh

openapi: build ## Update openapi.yaml from the code
	target/release/rehead openapi >openapi.yaml.part
	mv openapi.yaml.part openapi.yaml

reference: build ## Update docs/cli.md and docs/configuration.md from the executable's help
	@scripts/reference.py target/release/rehead

structure: ## Measure circles, long functions, comments and words (docs/structure.md); `ROOM=src/http` for one folder
	@scripts/structure.py $(ROOM)

contract-tools: build demo-data ## Check openapi.yaml and the service with clients' tools and OpenAI's clients (installs them: npm, 0.3 GB)
	@scripts/contract-tools.sh

contract-cases: build demo-data ## The same with more than 5,000 generated requests
	@REHEAD_CONTRACT_CASES=150 scripts/contract-tools.sh

python-check: build demo-data ## Load an exported model into timm and torch.jit and compare (downloads 3 GB)
	@scripts/python-check.sh

recipes: build demo-data ## Measure the accuracy of recipes, for docs/recipes.md (an hour or more)
	@bench/recipes.sh

bench: build demo-data ## Run the benchmarks of bench/README.md (downloads 3 GB)
	@bench/epochs.sh
	@bench/sandbox.sh
	@bench/features.sh
	@bench/steps.sh
	@bench/head.sh
	@bench/queue.sh
	@bench/load.sh
	@bench/predict.sh

# --- cleaning up

clean: ## Remove build results
	cargo clean

clean-demo: ## Remove the results of `make demo`
	rm -rf demo-out

clean-deps: ## Remove downloaded dependencies, for all checkouts
	rm -rf .deps .venv $${REHEAD_CACHE:-$$HOME/.cache/rehead}
