# make setup      installs what the program and its tests need (all other targets do so first)
# make train      installs if needed, then trains a two-tower model on the demo data set; GPU=1 installs CUDA, too
# make test       installs if needed, then runs the quick tests; PYTEST="-k faces" adds options of pytest
# make demo       installs if needed, trains if there is no run yet, and opens a page on 127.0.0.1 to try it on
# make test-slow  runs the slow tests: they need the network, g++ and minutes
# make lint       runs ruff and mypy
# make bench      measures speed and memory in at most 15 minutes; BENCH="--clips FILM.mp4" measures films as well
SHELL := /bin/sh
VENV := .venv
# The checksum of the requirements names the stamp, so a changed file leads to a new installation.
READY := $(VENV)/.ready-$(shell cat requirements.txt requirements-dev.txt | cksum | tr ' ' '-')
# GPU=1 installs CUDA and cuDNN as well (Linux; 4 GB more), as TensorFlow's own extra does.
STAMP := $(READY)$(if $(GPU),-gpu)
# The first interpreter of a supported version; PYTHON=... names another.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.10 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3,10) <= sys.version_info[:2] <= (3,13))' 2>/dev/null && { echo $$p; break; }; done)

PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
NEEDED = -r requirements-dev.txt $(if $(GPU),'tensorflow[and-cuda]')

# Python keeps the modules that it has compiled, also where it should keep none: TensorFlow's take 15 s in each process.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup train demo test test-slow lint bench
setup: $(STAMP)

train: $(STAMP)
	$(VENV)/bin/python main.py train

demo: $(STAMP)
	@ls saved_models/*/model.keras >/dev/null 2>&1 || $(VENV)/bin/python main.py train
	$(VENV)/bin/python main.py demo

test: $(STAMP)
	$(VENV)/bin/python -m pytest -q $(PYTEST)

test-slow: $(STAMP)
	$(VENV)/bin/python -m pytest -q -m slow

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(STAMP)
	$(VENV)/bin/python -m benchmarks.all $(BENCH)

$(STAMP): requirements.txt requirements-dev.txt
	@$(if $(PYTHON),$(PYTHON),false) -c 'import sys; sys.exit(not (3,10) <= sys.version_info[:2] <= (3,13))' 2>/dev/null || { \
		echo "error: Python 3.10 to 3.13 is needed. Found: $$(python3 --version 2>&1 || true). Install one, or name it: make $(or $(MAKECMDGOALS),train) PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "Setting up $(VENV) with $(PYTHON) (once; about 2.8 GB)"
	@$(PYTHON) -m venv $(VENV)
	@# most of the modules are never imported: Python compiles those that are when it first imports them
	@# uv takes a third of pip's time, but reads none of pip's settings: pip does it if they name an index, or if uv fails
	@! $(PIP) config list | grep '[.]index-url=' >/dev/null \
		&& $(PIP) install --quiet --only-binary :all: "$$(grep '^uv' requirements-dev.txt)" \
		&& $(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python $(NEEDED) \
		|| $(PIP) install --quiet --no-compile $(NEEDED)
	@rm -f $(VENV)/.ready-*
	@touch $(READY) $@
