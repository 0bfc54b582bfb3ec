# Two commands do all the set-up on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# As an environment variable the constraints hold for what builds the package, too.
PIP := PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check
# A worker a core, four at most; tests marked `alone` take turns with all others (tests/turns.py).
PYTEST := $(BIN)/python -m pytest -q -n logical --maxprocesses 4 --dist worksteal
STAMP := $(VENV)/.installed

.PHONY: install quickstart test conformance check bench faults wheel clean

install: $(STAMP)

# What pip fetches is said before it is fetched; torch is the CPU build of constraints.txt.
$(STAMP): pyproject.toml constraints.txt
	@echo "Installing pretune and its tools into $(VENV): about 400 MB to download, 1.7 GB on disk."
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "pretune needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e '.[dev]'
	@touch $(STAMP)

quickstart: install
	$(BIN)/pretune quickstart

test: install
	$(PYTEST) --durations=8

# The whole suite of tests/conformance, and docs/architectures.md from what it found.
conformance: install
	$(BIN)/python -m pytest -q tests/conformance -p table --table docs

check: install
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/python tests/architecture/lengths.py
	$(PYTEST) -m "not slow"

# make bench lists them; NAME=masked (or all) DATA=folder MODELS=folder PAIRS=10 SECONDS=20 LIMIT= TRIALS= MINUTES= SMOKE=1
bench: install
	$(BIN)/python -m benchmarks "$(NAME)" --data "$(DATA)" --models "$(MODELS)" --pairs "$(PAIRS)" --limit "$(LIMIT)" \
	  --seconds "$(if $(filter file command% environment,$(origin SECONDS)),$(SECONDS))" --trials "$(TRIALS)" \
	  --minutes "$(MINUTES)" --smoke "$(SMOKE)"

# Kills, signals, full disks, damaged files, bad steps and little memory, hundreds of times.
faults: install
	$(BIN)/python tests/faults/run.py

# In an environment of its own, which holds nothing but what builds: seconds, not the 1.7 GB of the tests.
wheel:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "pretune needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv build/venv
	PIP_CONSTRAINT=constraints.txt build/venv/bin/python -m pip install --quiet --disable-pip-version-check build
	PIP_CONSTRAINT=constraints.txt build/venv/bin/python -m build --wheel --outdir dist

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
