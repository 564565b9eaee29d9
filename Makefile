# The table of contents of what can be done here: `make help`.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help setup setup-cuda demo-data build up demo test nextest chaos mutations check fmt fmt-check lint doc sqlx openapi reference structure dist bench recipes python-check contract-tools clean clean-demo clean-deps

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

# --- first things

demo: ## See it work: a published network learns six kinds of clip art, step by step
	@scripts/demo.sh

up: build ## Run the service here (data in rehead-data/, address in rehead-data/url)
	target/release/rehead up --data-dir rehead-data

test: setup demo-data ## Run every test, as CI does; by cargo-nextest where it is installed
	@if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --release; else cargo test --release; fi

nextest: setup
	@. scripts/lib.sh; need_nextest

chaos: nextest demo-data ## 200 short jobs under 1,000 signals to workers, trainers and Postgres, one without connections for a minute (needs cargo-nextest); `make test` has a short form
	REHEAD_CHAOS_KILLS=1000 REHEAD_CHAOS_JOBS=200 REHEAD_F12_SECONDS=60 cargo nextest run --release --profile chaos -E 'test(chaos) | test(f12)'

mutations: nextest demo-data ## Take away what keeps the queue honest, piece by piece: the tests must fail (needs cargo-nextest, takes long)
	@scripts/mutations.sh

# --- parts of these

setup: ## Bring what is missing: system tools, libtorch for the CPU, Postgres' programs
	@scripts/setup.sh

setup-cuda: ## The same, and the CUDA parts of libtorch (about 2.5 GB more)
	@scripts/setup.sh cuda

demo-data: ## Bring the demo's weights and images (0.2 GB)
	@scripts/demo-data.sh

build: setup ## Build target/release/rehead and the trainer beside it
	@cargo build --release

dist: setup ## Build a tarball for users: both executables and libtorch, optimized; runs from any folder
	@scripts/dist.sh

# --- before a commit

check: fmt-check lint doc ## Formatting, clippy and rustdoc, with warnings denied

fmt: ## Format the code
	cargo fmt

fmt-check:
	cargo fmt --check

lint: setup ## clippy
	cargo clippy --release --workspace --all-targets -- -D warnings

doc: setup ## rustdoc
	RUSTDOCFLAGS="-D warnings" cargo doc --release --no-deps --workspace

sqlx: setup ## Check every query against a live Postgres and renew .sqlx
	scripts/sqlx.sh

openapi: build ## Renew openapi.yaml from the code
	target/release/rehead openapi >openapi.yaml.part
	mv openapi.yaml.part openapi.yaml

reference: build ## Renew docs/cli.md and docs/configuration.md from the executable's help
	target/release/rehead docs cli >docs/cli.md.part
	mv docs/cli.md.part docs/cli.md
	target/release/rehead docs configuration >docs/configuration.md.part
	mv docs/configuration.md.part docs/configuration.md

structure: ## Measure circles, long functions, comments and words (docs/structure.md); `ROOM=src/http` for one folder
	@scripts/structure.py $(ROOM)

contract-tools: build ## Check openapi.yaml with openapi-typescript and schemathesis (installs them: npm, 0.15 GB)
	@scripts/contract-tools.sh

python-check: build demo-data ## Load an exported model into timm and torch.jit and compare (brings Python packages, 3 GB)
	@scripts/python-check.sh

recipes: build demo-data ## Measure what recipes are worth, for docs/recipes.md (half an hour for the first table, an hour or more for all)
	@bench/recipes.sh

bench: build demo-data ## What bench/README.md lists (brings Python packages, 3 GB)
	@bench/epochs.sh
	@bench/features.sh
	@bench/steps.sh
	@bench/head.sh
	@bench/queue.sh

# --- cleaning up

clean: ## Remove what was built
	cargo clean

clean-demo: ## Remove what `make demo` left
	rm -rf demo-out

clean-deps: ## Remove what the set-up brought, for all checkouts
	rm -rf .deps .venv $${REHEAD_CACHE:-$$HOME/.cache/rehead}
