# Two commands to begin with: `make demo` and `make test`. Both make their own environment in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := agents chaos console media protocol storage topics tests

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.runs ## calls, a voicemail, a conference ..., in this process: who could decrypt, who heard what
	@$(BIN)/otway demo

test: $(VENV)/.develops ## all tests; those that need servers start them with Docker
	@$(BIN)/python -m pytest

lint: $(VENV)/.develops ## ruff, mypy --strict, basedpyright
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/basedpyright

format: $(VENV)/.develops ## write the code as `make lint` wants it
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.develops ## what grants, calls, mixes and epochs cost, each beside the bare work
	@$(BIN)/python -m chaos.bench

clean: ## remove the environment and all caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
	find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "otway needs Python 3.11 or later: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runs: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV)"
	@$(BIN)/pip -q install --disable-pip-version-check -e '.[media]'
	@touch $@

$(VENV)/.develops: pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV)"
	@$(BIN)/pip -q install --disable-pip-version-check -e '.[develop]'
	@touch $@ $(VENV)/.runs
