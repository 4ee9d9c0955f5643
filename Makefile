# Two commands for a fresh clone: `make demo` and `make test`.
# Another interpreter or environment: make PYTHON=python3.12 VENV=.venv312 test
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11 python
PYTHON ?= $(shell for name in $(CANDIDATES); do $$name -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$name && break; done)
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test lint types check clean same-python

help:
	@echo "make demo    train DMRNet on digits (six views) and on scenes (RGB-D segmentation), evaluate all combinations"
	@echo "make test    run the default test suite"
	@echo "make check   lint, types and tests"

# The stamp is newer than pyproject.toml when the environment holds what the project asks for.
$(VENV)/.installed: pyproject.toml | same-python
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(NEW_ENOUGH)' || \
		{ echo "robustmm needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@{ test -f $(VENV)/pyvenv.cfg && $(BIN)/python -m pip --version >/dev/null 2>&1; } || \
		$(PYTHON) -m venv --clear $(VENV) || \
		$(PYTHON) -m virtualenv --clear $(VENV) || \
		{ echo "$(PYTHON) has no module venv; install it (Debian, Ubuntu: apt install python3-venv) or virtualenv"; exit 1; }
	@echo "installing robustmm and what it needs into $(VENV); torch is large, this takes minutes"
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

# A PYTHON given on the command line would do nothing to an environment that is there already.
same-python:
ifeq ($(origin PYTHON),command line)
	@! test -x $(BIN)/python || test "$$($(PYTHON) -V)" = "$$($(BIN)/python -V)" || \
		{ echo "$(VENV) has $$($(BIN)/python -V), not $$($(PYTHON) -V): 'make clean' first, or give VENV=.venv2"; exit 1; }
endif

demo: $(VENV)/.installed
	@$(BIN)/robustmm train -c configs/dmrnet_handwritten.yaml -o train.epochs=20
	@$(BIN)/robustmm train -c configs/dmrnet_blocks.yaml -o train.epochs=8 -o method.warmup_epochs=3

test: $(VENV)/.installed
	@$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadgroup

lint: $(VENV)/.installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.installed
	@$(BIN)/mypy

check: lint types test

clean:
	rm -rf $(VENV) build dist *.egg-info
