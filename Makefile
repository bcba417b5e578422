# make setup   create .venv and install sdlab into it, and nothing else
# make demo    the whole homework on the mini model: photos -> experiments -> images -> report
# make lab     the notebooks, in JupyterLab
# make test    lint, types and every test that this machine can run
#
# Another Python:        make setup PYTHON=python3.12
# More options for pip:  make setup PIP_OPTIONS=--no-cache-dir   (pip's own environment variables work as well)

PYTHON ?= python3
PIP_OPTIONS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: setup demo lab test lint
.DEFAULT_GOAL := setup

setup: $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/sdlab demo

lab: $(INSTALLED)
	$(BIN)/jupyter lab

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(INSTALLED)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

# The stamp is written last, so an installation that broke off is taken up again.
$(INSTALLED): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: there is no '$(PYTHON)' here. sdlab needs Python 3.11 or newer: install it," \
	       "or name yours, as in: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: '$(PYTHON)' is $$($(PYTHON) --version 2>&1), and sdlab needs Python 3.11 or newer." \
	       "Name a newer one, as in: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make: '$(PYTHON)' cannot create virtual environments: its venv module is missing." \
	       "On Debian and Ubuntu: sudo apt install python3-venv; then: make setup" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_OPTIONS) --constraint constraints.txt --editable '.[notebooks,dev]'
	@touch $@
