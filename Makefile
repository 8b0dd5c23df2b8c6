# Two commands for a fresh machine with Python 3.11 to 3.13, pip and make: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

.PHONY: demo test check format fuzz reference protocol clean

demo: $(VENV)/.demo
	@$(BIN)/python -m yunmo.cli.demo $(if $(ONCE),--once)

# Tests run in so many processes; much of their time they wait for servers.
JOBS ?= 2
test: check
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal

check: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Each fuzzer for so many seconds, beyond what `make test` gives it.
SECONDS ?= 450
fuzz: $(VENV)/.test
	FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest -rP tests/fuzz

reference: $(VENV)/.test
	$(BIN)/python -m yunmo.cli.reference > docs/recipe.md

protocol: $(VENV)/.test
	$(BIN)/python -m yunmo.protocol.generate

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "Yunmo needs Python 3.11 to 3.13; this is " + sys.version.split()[0] + ". Try: make $(MAKECMDGOALS) PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (some minutes, once) ..."
	$(INSTALL) --editable '.[train]'
	@touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (some minutes, once) ..."
	$(INSTALL) --editable '.[train,dev]'
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
