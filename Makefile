# Everything that this project needs besides Python 3.11 or newer and make is set up here, in .venv.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

VENV := .venv
PY := $(VENV)/bin/python
# Named after the folder: a checkout that was moved is installed anew, its editable install would be stale.
STAMP := $(VENV)/.installed-$(shell pwd -P | cksum | cut -d' ' -f1)
INSTALL := sh .ci/install $(VENV)

ARGS ?=

.PHONY: help
help: ## Show this help
	@echo "Usage: make TARGET"
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  %-12s %s\n", $$1, $$2 }'

.PHONY: demo
demo: $(STAMP) ## The whole journey on local emulators: our handlers store runs, Pixaris reads them back
	@$(PY) -m pixaris_sync demo $(ARGS)

.PHONY: ui
ui: $(STAMP) ## The Pixaris UI on local emulators with the runs of the demo, until Ctrl+C; ARGS='--open --port 8080'
	@$(PY) -m pixaris_sync ui --sandbox $(ARGS)

# It starts thousands of processes: each would compile everything anew where Python may not keep what it compiled.
.PHONY: test
test: $(STAMP) ## Run the tests, with fewer scenarios than CI; ARGS='-k schema' goes to pytest
	@PYTHONDONTWRITEBYTECODE= $(PY) -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder $(ARGS)

.PHONY: simulate
simulate: $(STAMP) ## Simulated scenarios with ever new seeds, until Ctrl+C; ARGS='--first SEED'
	@$(PY) -m tests.engine.simulate $(ARGS)

.PHONY: fuzz
fuzz: $(STAMP) ## Hostile folders and tracking lines, for PIXARIS_SYNC_TEST_FUZZ_SECONDS (default: 300)
	@PIXARIS_SYNC_TEST_FUZZ_SECONDS="$${PIXARIS_SYNC_TEST_FUZZ_SECONDS:-300}" $(PY) -m pytest tests/fuzz $(ARGS)

.PHONY: kills
kills: $(STAMP) ## Kill real processes at PIXARIS_SYNC_TEST_KILLS instants in each test (default: 400), by a new seed
	@PIXARIS_SYNC_TEST_LARGE=1 PIXARIS_SYNC_TEST_KILLS="$${PIXARIS_SYNC_TEST_KILLS:-400}" \
	    PIXARIS_SYNC_TEST_CRASH_SEED="$${PIXARIS_SYNC_TEST_CRASH_SEED:-$$(date +%s)}" $(PY) -m pytest tests/crash $(ARGS)

.PHONY: bench
bench: $(STAMP)-bench ## Measure pixaris-sync and what else could be used, side by side; ARGS='--help' tells more
	@$(PY) -m tests.benchmarks $(ARGS)

.PHONY: flame
flame: $(STAMP)-bench ## Profile a sync of benchmark sets A and C into build/flame, and tell its work by part
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

$(STAMP): pyproject.toml Makefile .ci/install .ci/uv $(wildcard .ci/lock/*.txt)
	@$(INSTALL) dev "$(PYTHON)"
	@rm -f $(VENV)/.installed*
	@touch $@

# Some targets need more, which nothing else should wait for.
$(STAMP)-%: $(STAMP)
	@$(INSTALL) $*
	@touch $@

.PHONY: upgrade
upgrade: ## Lock the newest packages in .ci/lock, and set up .venv with them
	@rm -rf build/upgrade
	@sh .ci/install build/upgrade tools "$(PYTHON)"
	@sh .ci/write-lock build/upgrade
	@rm -rf build/upgrade
	@$(MAKE) --no-print-directory venv

.PHONY: audit
audit: $(STAMP)-release ## Ask whether a locked package has a known hole
	@$(PY) .ci/audit.py $(ARGS)

.PHONY: release
release: $(STAMP)-release ## Build wheel, sdist and SBOM into dist, the same bytes each time
	@sh .ci/release $(VENV)

.PHONY: clean
clean: ## Remove what the other targets made
	@rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
