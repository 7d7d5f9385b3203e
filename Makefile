# Everything that this project needs besides Python 3.11 or newer and make is set up here, in .venv.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

VENV := .venv
PY := $(VENV)/bin/python
# Named after the folder: a checkout that was moved is installed anew, its editable install would be stale.
STAMP := $(VENV)/.installed-$(shell pwd -P | cksum | cut -d' ' -f1)
# Benchmarks need some more, which nothing else should wait for.
BENCH_STAMP := $(STAMP)-bench
CONSTRAINTS := .ci/constraints.txt

# Pixaris declares Python 3.12, but its handlers run on 3.11; of what it declares, they need gradio alone.
PIXARIS := 'pixaris==0.11.4'
PACKAGES := --editable '.[sandbox]' --group dev 'gradio>=6.9,<7'
PIP := $(PY) -m pip --disable-pip-version-check --quiet

ARGS ?=

.PHONY: help
help: ## Show this help
	@echo "Usage: make TARGET"
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  %-12s %s\n", $$1, $$2 }'

.PHONY: demo
demo: $(STAMP) ## The whole journey on local emulators: real Pixaris writes runs and reads them back
	@$(PY) -m pixaris_sync demo $(ARGS)

.PHONY: test
test: $(STAMP) ## Run the tests, with fewer scenarios than CI; ARGS='-k schema' goes to pytest
	@$(PY) -m pytest $(ARGS)

.PHONY: simulate
simulate: $(STAMP) ## Simulated scenarios with ever new seeds, until Ctrl+C; ARGS='--first SEED'
	@$(PY) -m tests.engine.simulate $(ARGS)

.PHONY: fuzz
fuzz: $(STAMP) ## Hostile folders and tracking lines, for PIXARIS_SYNC_FUZZ_SECONDS (default: 300)
	@PIXARIS_SYNC_FUZZ_SECONDS="$${PIXARIS_SYNC_FUZZ_SECONDS:-300}" $(PY) -m pytest tests/fuzz $(ARGS)

.PHONY: kills
kills: $(STAMP) ## Kill the real process at PIXARIS_SYNC_KILLS instants (default: 400), by a new seed each time
	@PIXARIS_SYNC_KILLS="$${PIXARIS_SYNC_KILLS:-400}" \
	    PIXARIS_SYNC_CRASH_SEED="$${PIXARIS_SYNC_CRASH_SEED:-$$(date +%s)}" $(PY) -m pytest tests/crash $(ARGS)

.PHONY: bench
bench: $(BENCH_STAMP) ## Measure pixaris-sync and what else could be used, side by side; ARGS='--help' tells more
	@$(PY) -m tests.benchmarks $(ARGS)

.PHONY: flame
flame: $(BENCH_STAMP) ## Profile a backfill of benchmark sets A and C into build/flame
	@$(PY) -m tests.benchmarks flame $(ARGS)

.PHONY: lint
lint: $(STAMP) ## Check style, format and types
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m mypy

.PHONY: format
format: $(STAMP) ## Format the code and mend what can be mended by itself
	@$(PY) -m ruff check --fix
	@$(PY) -m ruff format

.PHONY: docs
docs: $(STAMP) ## Write what the documents have from the code: settings, exit codes, commands, states
	@$(PY) -m tests.support.documents

.PHONY: venv
venv: $(STAMP) ## Set up .venv with this package, its development tools, emulators and Pixaris

$(STAMP): pyproject.toml Makefile $(CONSTRAINTS)
	@command -v "$(PY)" >/dev/null || { \
	    python=$$(sh .ci/find-python "$(PYTHON)") && \
	    echo "making $(VENV) with $$python" && "$$python" -m venv --clear $(VENV); }
	@echo "installing packages into $(VENV) (once; this takes a minute or two)"
	@$(PIP) install --upgrade 'pip>=25.1' --constraint $(CONSTRAINTS)
	@$(PIP) install $(PACKAGES) --constraint $(CONSTRAINTS)
	@$(PIP) install --no-deps --ignore-requires-python $(PIXARIS)
	@rm -f $(VENV)/.installed*
	@touch $@

$(BENCH_STAMP): $(STAMP)
	@$(PIP) install --group bench --constraint $(CONSTRAINTS)
	@touch $@

.PHONY: upgrade
upgrade: clean ## Set up .venv with the newest packages and pin them in .ci/constraints.txt
	@printf '' > $(CONSTRAINTS)
	@$(MAKE) --no-print-directory venv
	@$(PIP) install --group bench
	@sh .ci/pin "$(PY)" > $(CONSTRAINTS).new
	@mv $(CONSTRAINTS).new $(CONSTRAINTS)
	@touch $(STAMP) $(BENCH_STAMP)

.PHONY: clean
clean: ## Remove what the other targets made
	@rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
