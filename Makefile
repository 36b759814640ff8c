# Every target sets up what it needs. Nothing here asks for Node, Go, Docker or a running server.
SHELL := /bin/sh
.DEFAULT_GOAL := help
BIN := .venv/bin
# Programs are begun by the hundred in the tests: what one of them has compiled the next one reads.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup run test check lint types imports sizes caches generate generated protos distributions soak siege fuzz \
    mutants chaos canary bounds bench bench-peers bench-streams bench-tools format sbom lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make .venv with everything in it (uv where it is found, else venv and pip)
	@scripts/setup.sh

run: setup ## start the server and the console; with piped input answer it and exit
	@$(BIN)/python scripts/run.py

test: setup ## run the tests, two files at a time
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: lint types imports sizes caches generated protos distributions test ## everything CI runs

lint: setup ## ruff: rules and format
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .

types: setup ## mypy, strict
	@$(BIN)/mypy server/src clients/python/src plugins/console/src scripts tests clients/conformance benchmarks

imports: setup ## who may import whom
	@$(BIN)/lint-imports --no-cache --config .importlinter

sizes: setup ## no module over 400 lines
	@$(BIN)/python scripts/check_sizes.py

caches: setup ## nothing is kept, and no row is taken, but by user or with a reason
	@$(BIN)/python scripts/check_caches.py
	@$(BIN)/python scripts/check_statements.py

generate: setup ## generate the Python of protos/ anew
	@$(BIN)/python scripts/generate.py

generated: setup ## prove that protos/gen is what would be generated
	@$(BIN)/python scripts/generate.py --check

protos: ## buf: lint, format, compatibility (skipped without node)
	@scripts/check_protos.sh

distributions: setup ## build the wheels and use them in empty environments
	@$(BIN)/python -m pytest -q -m distributions

soak: setup ## the tests that take minutes to show what is rare
	@$(BIN)/python -m pytest -m soak

siege: setup ## attacks at full size; writes their figures into docs/reliability.md (Linux, four minutes)
	@PARLEY_SIEGE_TABLE=docs/reliability.md $(BIN)/python -m pytest -s -m siege

fuzz: setup ## random messages, metadata, frames and model streams for an hour, or PARLEY_FUZZ_SECONDS (PARLEY_FUZZ_SEED)
	@PARLEY_FUZZ_SECONDS=$${PARLEY_FUZZ_SECONDS:-3600} PARLEY_FUZZ_SEED=$${PARLEY_FUZZ_SEED:-$$(date +%s)} $(BIN)/python -m pytest -s -m fuzz

mutants: setup ## a million mutated tokens, none of which may be anybody, or PARLEY_MUTANTS (PARLEY_MUTANTS_SEED)
	@PARLEY_MUTANTS=$${PARLEY_MUTANTS:-1000000} $(BIN)/python -m pytest -q -s -m mutants

chaos: setup ## kill a server 1,300 times and cut its power 300 times; writes the figures into docs/chaos.md (Linux)
	@cd tests && ../$(BIN)/python -m chaos $(if $(PARLEY_CHAOS_KILLS),,--table ../docs/chaos.md)

canary: setup ## users who must not see each other: the stateful machine, planted leaks, 10,000 streams at once (hours at its default size; `python -m isolation --help`)
	@cd tests && ../$(BIN)/python -m isolation --table ../docs/isolation.md

bounds: setup ## a part of the tests on the oldest and the newest dependencies (needs uv)
	@$(BIN)/python scripts/check_bounds.py lowest
	@$(BIN)/python scripts/check_bounds.py newest

bench: setup ## Parley's calls beside bare ones, its streams beside others, run log and tools (Linux, two cores, 13 minutes)
	@$(BIN)/python benchmarks/chassis.py
	@$(BIN)/python benchmarks/stream.py
	@$(BIN)/python benchmarks/runlog.py
	@$(BIN)/python benchmarks/tools.py
	@$(BIN)/python benchmarks/auth.py

bench-peers: setup ## Parley beside other ways to stream; writes docs/performance.md (Linux, two cores, 25 minutes)
	@$(BIN)/python benchmarks/peers.py $(or $(PEERS),--table docs/performance.md)

bench-streams: setup ## malformed model streams, read by Parley and by others; writes docs/streams.md
	@$(BIN)/python benchmarks/stream_corpus.py $(or $(STREAMS),--table docs/streams.md)

bench-tools: setup ## what a tool call costs besides the tool, and calls at once (Linux, a minute)
	@$(BIN)/python benchmarks/tools.py

format: setup ## format the code
	@$(BIN)/ruff check --quiet --fix . || true
	@$(BIN)/ruff format --quiet .

sbom: setup ## write dist/parley.cdx.json: what Parley is installed with, as CycloneDX
	@mkdir -p dist
	@$(BIN)/python scripts/sbom.py > dist/parley.cdx.json

lock: ## renew requirements.lock from the pyproject files (needs uv)
	uv lock --upgrade --quiet
	uv export --quiet --all-packages --all-groups --no-emit-workspace --no-header \
	    --format requirements-txt > requirements.lock

clean: ## remove everything that can be made again
	rm -rf .venv .venv-generate node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
