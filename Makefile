# Everything starts here: `make run` needs Python 3.11-3.13 and nothing else. `make help` lists the rest.
# Recipes are POSIX sh, for GNU make 3.81 (macOS) and newer.

SHELL := /bin/sh
.DEFAULT_GOAL := help

PYTHON ?=
UV ?= uv
VENV := .venv
IN_VENV := $(VENV)/bin/python -m
INSTALLED := $(VENV)/.installed

# Nothing about the user's work leaves the machine; .telemetry says the same to a bare `kedro`.
export KEDRO_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1
# TensorFlow's start-up notes are no news; its warnings and errors stay.
TF_CPP_MIN_LOG_LEVEL ?= 1
export TF_CPP_MIN_LOG_LEVEL
# A pip that is told to install elsewhere, or a Python that is told to look elsewhere, would miss .venv.
unexport PIP_USER PIP_TARGET PIP_PREFIX PYTHONHOME PYTHONPATH

# `make run ENV=cluster`. Only from the command line: a shell's own variable ENV means something else.
ifneq ($(origin ENV),command line)
override ENV :=
endif
export ENV PARAMS

SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

.PHONY: run
run: install ## Run the default pipeline and say where the report is [ENV=cluster] [PARAMS=key=value,...]
	@# On HDFS: a cluster of the user's own is named by HADOOP_CONF_DIR; without one, one is started here.
	@if [ "$$ENV" = cluster ] && [ -z "$$HADOOP_CONF_DIR" ]; then $(IN_VENV) kedro cluster up; fi
	@$(IN_VENV) kedro run $${ENV:+"--env=$$ENV"} $${PARAMS:+"--params=$$PARAMS"}
	@if [ "$$ENV" = cluster ] && [ -z "$$HADOOP_CONF_DIR" ]; then \
	    echo "The cluster stays up for further runs: $(VENV)/bin/kedro cluster down stops it, and keeps its data."; \
	fi
	@case "$${ENV:-$${KEDRO_ENV:-local}}" in \
	    local) echo "Report: $${BRAIN_MRI_STORAGE:-$$PWD/data}/08_reporting/report.html" ;; \
	    *) echo "Report: \`$(VENV)/bin/kedro report --env=$${ENV:-$$KEDRO_ENV}\` brings it here and opens it." ;; \
	esac

.PHONY: install
install: $(INSTALLED) ## Create .venv and install the locked dependencies into it [PYTHON=python3.12]

$(INSTALLED): requirements.lock pyproject.toml
	@if ! $(VENV)/bin/python -c '$(SUITABLE)' 2>/dev/null; then \
	    for candidate in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3 python); do \
	        if "$$candidate" -c '$(SUITABLE)' 2>/dev/null; then found=$$candidate; break; fi; \
	    done; \
	    if [ -z "$$found" ]; then \
	        echo "No usable Python: $(if $(PYTHON),$(PYTHON) is not,none of python3.13 python3.12 python3.11 python3 python is)" \
	             "a Python 3.11, 3.12 or 3.13 with the modules venv and ensurepip." >&2; \
	        echo "Install one (Debian, Ubuntu: apt install python3 python3-venv; Fedora: dnf install python3.13; macOS:" \
	             "brew install python@3.13), or name one: make $(or $(MAKECMDGOALS),install) PYTHON=/path/to/python3.12" >&2; \
	        exit 1; \
	    fi; \
	    echo "Creating $(VENV) with $$("$$found" -c 'import sys; print(sys.executable, sys.version.split()[0])')"; \
	    "$$found" -m venv --clear $(VENV); \
	fi
	@echo "Installing the dependencies of requirements.lock into $(VENV); the first time this downloads about 1.5 GB."
	@# A few packages come as source. They are built with the locked setuptools, not with what an index has today.
	@awk '/^[a-z]/ { wanted = /^setuptools==/ } wanted' requirements.lock > $(VENV)/setuptools.txt
	@$(IN_VENV) pip install --disable-pip-version-check --quiet --require-hashes -r $(VENV)/setuptools.txt
	@# The lock is whole: without --no-deps older pips resolve extras (coverage[toml]) to the newest version of the
	@# day, which has no hash here.
	@$(IN_VENV) pip install --disable-pip-version-check --require-hashes --no-deps --no-build-isolation \
	    --use-pep517 -r requirements.lock
	@$(IN_VENV) pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: test
test: install ## Run the quick tests, one per promise (at most 15 minutes on 2 cores)
	@$(IN_VENV) tests.lanes -m "not slow" --durations=15

.PHONY: test-all
test-all: install ## Run every test (at most 75 minutes on 2 cores)
	@$(IN_VENV) tests.lanes --durations=20

.PHONY: lint
lint: install ## Check style, format, types and the arrows between the rooms
	$(IN_VENV) ruff check .
	$(IN_VENV) ruff format --check .
	$(IN_VENV) mypy
	$(VENV)/bin/lint-imports

.PHONY: viz
viz: install ## Show the pipelines and their latest results in the browser [ENV=cluster]
	@$(IN_VENV) kedro viz run $${ENV:+"--env=$$ENV"}

.PHONY: lock
lock: ## Resolve pyproject.toml into requirements.lock; needs uv [UPGRADE=1 takes newer versions]
	@command -v "$(UV)" >/dev/null || { \
	    echo "make lock needs uv, which is not installed: pipx install uv, or make lock UV=/path/to/uv" >&2; exit 1; }
	"$(UV)" pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
	    --no-header --no-annotate $(if $(UPGRADE),--upgrade) --output-file requirements.lock

.PHONY: clean
clean: ## Remove caches and build output; data, models and .venv stay
	rm -rf .cache .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .viz \
	    build dist site metastore_db spark-warehouse derby.log src/*.egg-info
	find src tests -type d -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help
help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile
