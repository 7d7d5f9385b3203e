# Everything that this project needs besides Python 3.11 or newer and make is set up here, in .venv.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

VENV := .venv
PY := $(VENV)/bin/python
# Named after the folder: a checkout that was moved is installed anew, its editable install would be stale.
STAMP := $(VENV)/.installed-$(shell pwd -P | cksum | cut -d' ' -f1)
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
test: $(STAMP) ## Run the tests; ARGS='-k schema' goes to pytest
	@$(PY) -m pytest $(ARGS)

.PHONY: lint
lint: $(STAMP) ## Check style, format and types
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m mypy

.PHONY: format
format: $(STAMP) ## Format the code and mend what can be mended by itself
	@$(PY) -m ruff check --fix
	@$(PY) -m ruff format

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

.PHONY: upgrade
upgrade: clean ## Set up .venv with the newest packages and pin them in .ci/constraints.txt
	@printf '' > $(CONSTRAINTS)
	@$(MAKE) --no-print-directory venv
	@sh .ci/pin "$(PY)" > $(CONSTRAINTS).new
	@mv $(CONSTRAINTS).new $(CONSTRAINTS)
	@touch $(STAMP)

.PHONY: clean
clean: ## Remove what the other targets made
	@rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
