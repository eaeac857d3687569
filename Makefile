# Berth: every target works on a fresh machine, by itself. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

IMAGE_TOOLS := buildah debootstrap

.PHONY: help tools install shim lint test test-fast sim fuzz chaos demo down bench bench-scale cluster lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): requirements/dev.txt pyproject.toml
	@echo "berth: making $(VENV) from requirements/dev.txt"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

tools: ## the Debian packages that the real cluster and the image need; installs those that are missing, as root
	@missing="$$($(PYTHON) -m e2e.cluster packages)"; \
	for tool in $(IMAGE_TOOLS); do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	if [ -z "$${missing// /}" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then echo "berth: install first:$$missing" >&2; exit 1; fi; \
	echo "berth: installing$$missing"; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null

shim: $(STAMP) ## cni-plugin/bin/berth, static, for this machine (and both architectures beside it)
	@$(MAKE) --no-print-directory -C cni-plugin/shim PYTHON=$(CURDIR)/$(BIN)/python

install: $(STAMP) shim ## .venv/bin/berth and cni-plugin/bin/berth

lint: $(STAMP) ## ruff, mypy strict, and the layers
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

test-fast: install ## lint, unit and property tests: no cluster
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest -m "not api and not cluster"

test: tools install ## everything: lint, unit, property, a real API server, real nodes
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest

sim: $(STAMP) ## SEEDS=2000 histories in simulated time, on JOBS processes; SEED=n tells one in full, BUG=name breaks a rule
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),2000)) $(if $(BUG),--bug $(BUG)) $(if $(AGAINST),--against $(AGAINST)) $(if $(JOBS),--jobs $(JOBS))

fuzz: $(STAMP) ## SECONDS=60 of atheris for each parser of input that others write
	@$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60)

chaos: tools install ## MINUTES=3 of faults on real processes; SEED=n the same faults again; BUG=name breaks a rule, AGAINST=name only aims at it
	@$(BIN)/python -m tests.chaos --minutes $(or $(MINUTES),3) $(if $(SEED),--seed $(SEED)) $(if $(BUG),--bug $(BUG))

demo: tools install ## a real two-node cluster, Berth in it, 30 Pods, and what one would look at
	@$(BIN)/python -m e2e.demo

down: $(STAMP) ## ends a demo kept with KEEP=1
	@$(BIN)/python -m e2e.cluster down

bench: tools install ## 1000 Pods on 10 nodes from one pool of 1000, beside host-local (BENCH_PODS, BENCH_NODES)
	@$(BIN)/python -m bench

bench-scale: tools install ## grants, take-over and memory as pools and Endpoints grow
	@$(BIN)/python -m bench.scale

lock: ## pins requirements/*.txt anew from pyproject.toml (asks the package index)
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile -q pyproject.toml --universal --python-version 3.11 --generate-hashes --no-annotate --no-header -o requirements/runtime.txt
	@$(BIN)/uv pip compile -q pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-annotate --no-header -o requirements/dev.txt

clean: ## what this tree has built (the cache of Kubernetes binaries stays)
	@rm -rf $(VENV) cni-plugin/bin build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
