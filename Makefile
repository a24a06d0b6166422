# `make run` trains both agents on the embedded default and writes the report; `make test` runs every check.
# Nothing but Python packages is downloaded.

PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
NAME ?= default
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
EXAMPLES ?= $(basename $(notdir $(wildcard docs/examples/requirements/*.txt)))
EXAMPLE_VENVS := .venv-examples

NEEDS_HEADLESS = $(BIN)/python -c 'import cv2' 2>/dev/null || $(MAKE) --no-print-directory headless

.DEFAULT_GOAL := help
.PHONY: help install dev headless fitting-opencv run lint test test-slow test-examples docs clean distclean

help: ## Show what can be made.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.agents ## Make the virtual environment and install the packages `ppd run` needs.

dev: $(VENV)/.dev ## The same, with what the tests need.

run: install ## Train, evaluate, report; an interrupted run goes on where it stopped (NAME=..., ARGS="--seed 1").
	$(BIN)/ppd run --name $(NAME) $(ARGS)

lint: dev ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint ## Check style and types, run the test suite.
	$(BIN)/python -m pytest $(ARGS)

test-slow: dev ## Run the tests that take more than a minute each.
	$(BIN)/python -m pytest -m slow $(ARGS)

docs: $(VENV)/.docs ## Build the documentation into build/site; a warning is an error.
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

test-examples: dev $(EXAMPLES:%=$(EXAMPLE_VENVS)/%/.ready) ## Run other people's algorithms, each in an environment of its own (EXAMPLES=pyg_dqn: one).
	$(BIN)/python -m pytest -q tests/examples $(ARGS)
	@set -e; for name in $(EXAMPLES); do echo "docs/examples/$$name.py"; \
	$(EXAMPLE_VENVS)/$$name/bin/python -m pytest -q tests/examples -k $$name $(ARGS); done

$(EXAMPLE_VENVS)/%/.ready: docs/examples/requirements/%.txt pyproject.toml | $(BIN)/python
	@echo "Installing the packages of $* ..."
	$(BIN)/python -m venv $(EXAMPLE_VENVS)/$*
	$(EXAMPLE_VENVS)/$*/bin/python -m pip install --quiet --disable-pip-version-check --requirement $< --editable . pytest
	@$(MAKE) --no-print-directory VENV=$(EXAMPLE_VENVS)/$* fitting-opencv
	@touch $@

fitting-opencv:
	@$(NEEDS_HEADLESS)

# opencv-python links libGL and libglib; where the system lacks them, the same version without windows serves.
headless:
	@echo "libGL or libglib is missing: installing opencv without windows ..."
	$(BIN)/python -m pip uninstall --quiet --yes opencv-python
	$(PIP) --force-reinstall --no-deps "opencv-python-headless==$$(sed -n 's/^opencv-python==//p' constraints.txt)"

clean: ## Remove caches and build outputs (not runs/).
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find ppd_env ppd_agents experiments tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## Remove the virtual environments as well.
	rm -rf $(VENV) $(EXAMPLE_VENVS)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with its venv module is needed (on Debian or Ubuntu," \
	"apt-get install python3-venv); or set PYTHON=/path/to/python3."; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.agents: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the packages (a few minutes the first time) ..."
	$(PIP) --editable '.[agents]' --constraint constraints.txt
	@$(NEEDS_HEADLESS)
	@touch $@

$(VENV)/.dev: $(VENV)/.agents
	$(PIP) --editable '.[agents,dev]' --constraint constraints.txt
	@$(NEEDS_HEADLESS)
	@touch $@

$(VENV)/.docs: $(VENV)/.agents
	$(PIP) --editable '.[agents,docs]' --constraint constraints.txt
	@$(NEEDS_HEADLESS)
	@touch $@
