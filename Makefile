# Everything starts here. Needs only make and Python 3.11 or 3.12.
SHELL := /bin/sh
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 12)))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo demo-erp test test-web test-slow test-all lint format bench bench-load bench-peers bench-compare soak kill-campaign simulate-faults lock clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or 3.12 is needed and was not found on PATH; install one or run make PYTHON=/path/to/python3.12"; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

setup: $(STAMP) ## Make the virtual environment from the hash-checked lock file

demo: $(STAMP) ## Run everything once on a generated workload, on the embedded stack; KEEP=1 leaves the console running
	@$(BIN)/meterbridge demo $(if $(KEEP),--keep)

demo-erp: $(STAMP) ## A month end with a real Tryton as the ERP: accruals, invoices, trial balance
	@$(BIN)/meterbridge demo-erp

test: $(STAMP) ## All tests but the slow ones
	@$(BIN)/python -m pytest -m "not slow and not web"

test-web: $(STAMP) ## The console in a real browser; needs a Chromium on PATH
	@$(BIN)/python -m pytest -m web tests/web

test-slow: $(STAMP) ## The long tests
	@$(BIN)/python -m pytest -m slow

test-all: test test-web test-slow ## All tests

lint: $(STAMP) ## ruff and mypy strict, tests included
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(STAMP) ## Format and fix what can be fixed
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(STAMP) ## Benchmarks; results as JSON and docs/benchmarks.md
	@$(BIN)/python -m bench.run

bench-load: $(STAMP) ## The service under load: 5,000 ingest requests/s and 200 viewers for a minute (WORKERS=1)
	@$(BIN)/python -m bench.load --workers $(or $(WORKERS),1)

bench-peers: $(STAMP) ## The engine job beside Spark, Flink SQL and Pathway, about 5 minutes once they are installed; needs Java
	@$(BIN)/python -m bench.peers.install
	@$(BIN)/python -m bench.peers.run $(PEERS_ARGS)

bench-compare: $(STAMP) ## Compare this tree with another commit in one run; fails if slower (BASE=commit)
	@$(BIN)/python -m bench.compare --base $(or $(BASE),HEAD~1)

soak: $(STAMP) ## An hour of steady input, watched: memory, disk, lag, resume (MINUTES=60 RATE=40000 SERIES=100000)
	@$(BIN)/python -m bench.soak --minutes $(or $(MINUTES),60) --rate $(or $(RATE),40000) --series $(or $(SERIES),100000)

kill-campaign: $(STAMP) ## 200 runs in which processes are killed; ends with what was not equal (SEEDS=200)
	@$(BIN)/python -m tests.faults.campaign --seeds $(or $(SEEDS),200)

simulate-faults: $(STAMP) ## 10000 simulated runs with faults everywhere; SEEDS=n FIRST=n; a failure prints its seed
	@$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),10000) --first $(or $(FIRST),0)

lock: ## Pin all versions again (needs uv)
	@uv pip compile -q pyproject.toml --extra embedded --extra compiled --extra postgres --extra dev --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 -o requirements.lock
	@uv pip compile -q requirements-tryton.in --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 -o requirements-tryton.lock
	@for peer in flink spark pathway; do uv pip compile -q bench/peers/requirements-$$peer.in --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 -o bench/peers/requirements-$$peer.txt; done

clean: ## Remove what the targets made, except data under .meterbridge
	@rm -rf $(VENV) .venv-tryton .venv-tryton.lock .venv-peers-* .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info build
