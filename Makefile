# Every task of the project: `make` lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test check engine test-engine environment test-environment constraints clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

# The first of these that starts and is Python 3.11 or newer; `make setup PYTHON=...` names another.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	"$$p" -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && echo "$$p" && break; done || true)

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv and install demur with the pinned versions

# Setuptools and torch go first, at the versions of constraints.txt: the first builds demur without
# a download of its own, and an unpinned torch would bring gigabytes of CUDA.
$(STAMP): pyproject.toml constraints.txt
	@"$(PYTHON)" -c '$(NEW_ENOUGH)' 2>/dev/null || { \
		echo "demur needs Python 3.11 or newer and $(if $(PYTHON),$(PYTHON) is not,finds none here):" \
			"install one, or name it with 'make setup PYTHON=/path/to/python3.11'" >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || { \
		echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu install python3-venv" >&2; exit 1; }
	@echo "installing torch into $(VENV) ..."
	@$(PIP) install -qq -c constraints.txt setuptools torch
	@echo "installing demur and its tools ..."
	@$(PIP) install -qq -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

demo: setup ## run the quick study into demo/ (called again, it resumes) and name its report
	@resume=; [ ! -e demo ] || resume=--resume; \
		$(BIN)/demur study --quick --out demo $$resume
	@echo "report: $(CURDIR)/demo/report.html"

test: setup ## run the tests
	@OMP_NUM_THREADS=2 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q

check: setup ## lint, formatting, types and layers: what has to pass beside the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The client library leaves its connections to the collector, hence the warnings ignored below.
# An engine of its own needs other versions than demur does, so it has its own environment.
ENGINE := engines/.venv

engine: $(ENGINE)/.installed ## make engines/.venv with SkyRL, an engine to train on (see engines/skyrl.py)

$(ENGINE)/.installed: engines/constraints.txt
	@"$(PYTHON)" -m venv $(ENGINE)
	@echo "installing torch, JAX and SkyRL into $(ENGINE) ..."
	@$(ENGINE)/bin/python -m pip --disable-pip-version-check --no-input install -qq \
		-c engines/constraints.txt setuptools torch
	@$(ENGINE)/bin/python -m pip --disable-pip-version-check --no-input install -qq \
		-c engines/constraints.txt 'skyrl[tinker,jax]' ray uv
	@touch $@

test-engine: setup engine ## train on a real engine for a few steps (minutes; no part of make test)
	@OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -m engine \
		-W ignore::ResourceWarning -W ignore::pytest.PytestUnraisableExceptionWarning

# verifiers wants an older openai than demur's own environment has, so it has its own as well.
ENVIRONMENT := environments/.venv

environment: $(ENVIRONMENT)/.installed ## make environments/.venv with verifiers and demur's environment for it

$(ENVIRONMENT)/.installed: pyproject.toml environments/constraints.txt environments/demur_objection/pyproject.toml
	@"$(PYTHON)" -m venv $(ENVIRONMENT)
	@echo "installing torch, verifiers and demur-objection into $(ENVIRONMENT) ..."
	@$(ENVIRONMENT)/bin/python -m pip --disable-pip-version-check --no-input install -qq \
		-c environments/constraints.txt setuptools torch
	@$(ENVIRONMENT)/bin/python -m pip --disable-pip-version-check --no-input install -qq \
		-c environments/constraints.txt --no-build-isolation -e . -e environments/demur_objection \
		'transformers[serving]' pytest pytest-timeout
	@touch $@

test-environment: environment ## play that environment with verifiers' own tools (under a minute)
	@OMP_NUM_THREADS=2 HF_HUB_OFFLINE=1 $(ENVIRONMENT)/bin/python -m pytest -q tests/test_verifiers.py

constraints: setup ## pin in constraints.txt exactly what .venv now holds
	@{ \
		echo "# Every version that an install gets. Made by 'make constraints' from what .venv holds; to move one"; \
		echo "# forward: .venv/bin/pip install --upgrade NAME, make test check, make constraints."; \
		$(PIP) freeze --all --exclude-editable --exclude pip --exclude demur | sed -E 's/^(torch==[^+]*)\+.*$$/\1/'; \
	} > constraints.new
	@if grep -n -e ' @ ' -e '://' constraints.new; then \
		echo "these come from a file or an address and cannot be pinned; install them by version" >&2; \
		rm constraints.new; exit 1; fi
	@mv constraints.new constraints.txt && touch $(STAMP)

clean: ## remove every .venv, builds and caches; demo/ and runs/ stay
	@rm -rf $(VENV) $(ENGINE) $(ENVIRONMENT) engines/state build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache \
		.import_linter_cache .hypothesis
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
