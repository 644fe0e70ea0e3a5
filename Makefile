# Everything runs in .venv, which is made from requirements.lock when that changes. `make` alone lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
DOCKER ?= docker
IMAGES ?= airflow data train-cpu train-gpu
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
INSTALLED := $(VENV)/.installed
KFP := build/kfp/bin/kfp
COMPILE := $(UV) pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.PHONY: help setup demo ui down test test-airflow test-docker test-kfp test-mlflow test-processes test-services lint lock images clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## install what requirements.lock names into .venv

demo: setup ## two retrainings of a digit classifier in Airflow, on real scans
	@$(BIN)/python -m embedded.demo

# `ui` and `down` mean the demo's Airflow unless REFIT_HOME names another.
ui: setup ## start Airflow on the demo's data (or REFIT_HOME) and leave it up
	@REFIT_HOME="$${REFIT_HOME:-.demo/home}" $(BIN)/python -m embedded up

down: setup ## stop what `make ui` started
	@REFIT_HOME="$${REFIT_HOME:-.demo/home}" $(BIN)/python -m embedded down

test: lint ## checks and tests
	$(BIN)/python -m pytest -m "not airflow and not docker and not mlflow and not services and not kfp and not processes" --numprocesses auto --dist loadfile

test-processes: setup ## tests of whole processes that train, predict, are killed or race
	$(BIN)/python -m pytest -m processes

test-airflow: setup ## tests that run whole retrainings in Airflow
	$(BIN)/python -m pytest -m airflow

# In an environment of its own: MLflow and the lock do not agree on versions (docs/adr/0023).
test-mlflow: setup ## tests against a real MLflow server
	@[ -x build/mlflow/bin/mlflow ] || $(UV) venv --quiet --clear --python $(BIN)/python build/mlflow
	@[ -x build/mlflow/bin/mlflow ] || VIRTUAL_ENV=build/mlflow $(UV) pip install --quiet 'mlflow>=3,<4'
	MLFLOW=$(CURDIR)/build/mlflow/bin/mlflow $(BIN)/python -m pytest -m mlflow

test-docker: $(KFP) ## tests in the real images, on the Docker engine there is or one that root starts
	@if [ "$$(id -u)" = 0 ] && ! docker info >/dev/null 2>&1 && ! { command -v dockerd && command -v debootstrap; } >/dev/null; then \
	    apt-get update >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
	        debootstrap docker.io iptables >/dev/null || true; fi
	REFIT_KFP_PYTHON=$(CURDIR)/$(dir $(KFP))python $(BIN)/python -m pytest -m docker

test-kfp: $(KFP) ## tests of the Kubeflow pipeline with kfp's own compiler
	REFIT_KFP_PYTHON=$(CURDIR)/$(dir $(KFP))python $(BIN)/python -m pytest -m kfp

test-services: setup ## tests on PostgreSQL, Redis and Celery; as root it installs both where they are missing
	@if [ "$$(id -u)" = 0 ] && ! { command -v redis-server && ls /usr/lib/postgresql/*/bin/postgres; } >/dev/null 2>&1; \
	then apt-get update -qq && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -qq --no-install-recommends \
	    --option Dpkg::Use-Pty=0 postgresql redis-server >/dev/null; fi
	$(BIN)/python -m pytest -m services

lint: setup ## style, types and import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: setup ## resolve the dependencies of pyproject.toml anew
	$(COMPILE) pyproject.toml --group dev --universal --python-version 3.11 --output-file requirements.lock
	$(COMPILE) --group pyproject.toml:gpu --constraint requirements.lock --python-version 3.13 \
	    --python-platform x86_64-manylinux_2_40 --output-file requirements-gpu.lock

images: ## build the container images; IMAGES names some of them, BUILD_ARGS goes to docker build
	for target in $(IMAGES); do \
	    DOCKER_BUILDKIT=1 $(DOCKER) build $(BUILD_ARGS) --target "$$target" --tag "refit-$$target" .; \
	done

clean: ## remove .venv, the demo and all caches; never .refit, which holds your models
	@if [ -x $(BIN)/python ]; then REFIT_HOME=.demo/home $(BIN)/python -m embedded down; fi
	rm -rf $(VENV) .demo build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Likewise: kfp wants another protobuf than TensorFlow (docs/adr/0032).
$(KFP): | setup
	$(UV) venv --quiet --clear --python $(BIN)/python build/kfp
	VIRTUAL_ENV=build/kfp $(UV) pip install --quiet 'kfp>=2.14,<3' kfp-kubernetes docker

# uv is in the lock too, so that the first one is checked by its hash and the last step keeps it.
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) embedded/check_python.py
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@[ -x $(UV) ] || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
	    --requirement <(sed -n '/^uv==/,/# via/p' requirements.lock)
	@echo "Installing the packages of requirements.lock into $(VENV): 3 GB, a minute or a few"
	@VIRTUAL_ENV=$(VENV) $(UV) pip sync --quiet --compile-bytecode requirements.lock
	@VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
