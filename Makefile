# make demo   the main job: fetch a model and data, evaluate, train, evaluate again, explain
# make test   all tests        make lint   style, types and the import contract
# make bench  every script in bench/, results in bench/RESULTS.md (the peers' part needs make bench-setup first)
# make results  docs/experiments.md from the JSON of experiments/run.py
# Each sets up .venv by itself. PYTHON=python3.12 make setup  picks the interpreter (3.10 or newer).
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
RUNS := .venv/.runs
READY := .venv/.ready

.PHONY: demo test test-fast lint bench bench-setup results setup clean

demo: $(RUNS)
	$(BIN)/r1ranker demo --out runs/demo

test: setup
	$(BIN)/python -m pytest -n auto

test-fast: setup
	$(BIN)/python -m pytest -n auto -m "not assets"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python bench/run_all.py

results: $(RUNS)
	$(BIN)/python experiments/page.py

# TRL in an environment of its own, with the same torch: the package itself never needs it.
bench-setup: .bench-venv/.ready

.bench-venv/.ready: constraints.txt
	$(PYTHON) -m venv .bench-venv
	.bench-venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	.bench-venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt 'trl==1.16.*'
	@touch $@

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
	rm -rf .venv .bench-venv build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
