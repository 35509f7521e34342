# Everything a user or CI runs. `make help` lists the targets; each does the set-up that it needs.
SHELL := /bin/bash
CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
PROGRAMS := $(CARGO_TARGET_DIR)/debug
JOUST_CACHE ?= $(HOME)/.cache/joust
VENV := $(CURDIR)/.venv
CUDA_TARGET_DIR ?= $(CARGO_TARGET_DIR)/cuda
CUDA := --config .cargo/cuda.toml --target-dir $(CUDA_TARGET_DIR) --features joust/cuda,joust-torch/cuda

.PHONY: help setup libtorch build joust build-cuda demo demo-smoke test presets test-kills test-rank-kills chaos fuzz cycle lint bench docs venv clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## Provide libtorch, cargo's configuration and a Redis for tests (does nothing when done)
	@python3 scripts/setup.py --redis

libtorch:
	@python3 scripts/setup.py

build: libtorch ## Build all programs
	@cargo build --quiet --workspace --bins

build-cuda: ## Build joust with CUDA beside the CPU build, in a target folder of its own (2 GB to fetch, once)
	@python3 scripts/setup.py --cuda
	@cargo build --quiet $(CUDA) -p joust -p joust-torch --bin joust --test gpu
	@echo "built $(CUDA_TARGET_DIR)/x86_64-unknown-linux-gnu/debug/joust"

joust: libtorch
	@echo "building joust; a first build takes some minutes"
	@cargo build --quiet -p joust --bin joust

demo: joust ## Make the stories model happier by online DPO, in under 5 minutes on 2 cores after the build
	@python3 scripts/demo.py --joust $(PROGRAMS)/joust --run examples/stories/run.toml

demo-smoke: joust ## The demo, shortened to under 3 minutes; fails unless the win rate rose
	@python3 scripts/demo.py --joust $(PROGRAMS)/joust --run examples/stories/run.toml --smoke

test: setup ## Run all tests; those that need the Python environment run if `make venv` made it
	@cargo test --quiet --workspace --no-fail-fast
	@cargo build --quiet --workspace --bins
	@python3 scripts/python_tests.py --venv $(VENV) --bin $(PROGRAMS)

cycle: build ## Play the cycle example over three seeds: a table, and docs/cycle.svg
	@JOUST_CYCLE=$(CURDIR)/docs/cycle.svg cargo test --quiet --workspace --test it cycle:: -- --nocapture

presets: libtorch ## Run each preset as shipped for nine steps, and write the table into docs/algorithms.md
	@JOUST_PRESETS=1 cargo test --quiet --workspace --test it shipped:: -- --nocapture

test-kills: build ## Kill and resume a run 50 times and compare the weights
	@JOUST_KILLS=50 cargo test --quiet --workspace --test it kill_resume:: -- --nocapture

test-rank-kills: build ## Kill ranks of a learner of four 20 times and compare the weights
	@JOUST_RANK_KILLS=20 cargo test --quiet --workspace --test it lost_ranks -- --nocapture

chaos: build ## Kill each role of a cluster 8 times (Redis 5) and cut each edge for 10 s; prints the tables
	@JOUST_CHAOS=8 cargo test --quiet --workspace --test cluster -- --nocapture --test-threads 1

fuzz: build ## Send 10 000 random and mutated messages to each RPC of a cluster
	@JOUST_FUZZ=10000 cargo test --quiet --workspace --test cluster -- --nocapture fuzz

lint: libtorch ## Formatting, clippy, documentation with warnings denied, and buf on the proto files
	@cargo fmt --all --check
	@python3 scripts/proto.py
	@cargo clippy --quiet --workspace --all-targets -- -D warnings
	@RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps
	@if command -v cargo-deny >/dev/null; then cargo deny --log-level error check; else echo "lint: cargo-deny is not installed, deny.toml was not checked (cargo install cargo-deny)"; fi

bench: libtorch venv ## Print speed of release builds beside TRL and Hugging Face, and the bound
	@cargo build --quiet --release --workspace --bins
	@cargo bench --quiet --workspace --bench unary
	@$(VENV)/bin/python scripts/bench.py --bin $(CARGO_TARGET_DIR)/release
	@cargo bench --quiet --workspace --bench redis
	@cargo bench --quiet --workspace --bench weights --bench growth

docs: libtorch ## Build the API documentation into the target folder
	@cargo doc --workspace --no-deps
	@echo "open $(CARGO_TARGET_DIR)/doc/joust/index.html"

venv: ## The pinned Python environment for comparisons (3 GB, once)
	@python3 scripts/venv.py $(VENV)

.PHONY: client test-client
client: ## Regenerate the Python client and build its wheel into clients/python/dist
	@python3 scripts/client.py build

test-client: ## Check and test the Python client (200 MB of packages, once), on a cluster too if `make build` made the programs
	@python3 scripts/client.py test --bin $(PROGRAMS)

clean: ## Remove build outputs and runs; the libtorch cache stays
	@rm -rf $(CURDIR)/target $(CURDIR)/runs
