# make demo   the main job: fetch a model and data, evaluate, train, evaluate again, explain
# make test   all tests        make lint   style, types and the import contract
# Each sets up .venv by itself. PYTHON=python3.12 make setup  picks the interpreter (3.10 or newer).
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
RUNS := .venv/.runs
READY := .venv/.ready

.PHONY: demo test test-fast lint setup clean

demo: $(RUNS)
	$(BIN)/r1ranker demo --out runs/demo

test: setup
	$(BIN)/python -m pytest

test-fast: setup
	$(BIN)/python -m pytest -m "not assets"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(READY)

# What the demo needs. torch first and pinned: a package that merely needs torch would bring whatever release is newest.
$(RUNS): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed; found $$($(PYTHON) --version). Try: make setup PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) --editable '.[train,eval]'
	@touch $(RUNS)

# And what tests and development need beside it.
$(READY): $(RUNS)
	$(PIP) --editable '.[dev]'
	@touch $(READY)

clean:
	rm -rf .venv build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
