# Every target does its own set-up; the first one takes a minute or two. PYTHON picks the interpreter for .venv.

PYTHON ?= python3
VENV   ?= .venv
OUT    ?= demo-output
DIST   ?= dist
ARGS   ?=

BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP   := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help install test notebooks demo check lint types layers format wheel clean

help:
	@echo "make test      run the tests (ARGS='-k score' picks some)"
	@echo "make notebooks run every cell of notebooks/ on the demo data"
	@echo "make demo      run the demo into $(OUT)/"
	@echo "make check     lint, types and import layers"
	@echo "make format    rewrite the code in the house format"
	@echo "make wheel     build the wheel into $(DIST)/"
	@echo "make install   set up $(VENV) only"
	@echo "make clean     remove everything make made"

install: $(STAMP)

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

notebooks: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m notebooks tests/e2e/test_notebooks.py

demo: $(STAMP)
	$(BIN)/curate demo --out $(OUT)

check: lint types layers

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

layers: $(STAMP)
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(STAMP)
	$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir $(DIST) .

clean:
	rm -rf $(VENV) $(OUT) $(DIST) build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "curate needs Python 3.11 or newer; '$(PYTHON)' is not. Name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { \
	  echo "'$(PYTHON)' cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv."; \
	  echo "Or name another Python: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Setting up $(VENV): one to three minutes ..."
	@$(PIP) install -qq --constraint constraints.txt --upgrade pip
	@$(PIP) install -qq --constraint constraints.txt --build-constraint constraints.txt --editable . --group dev
	@touch $@
