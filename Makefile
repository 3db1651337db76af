# heatpool: `make` lists what there is. Everything is installed into .venv, nothing outside it.
PYTHON ?= python3
VENV ?= .venv
ORACLE_VENV ?= .venv-oracle
ARGS ?=

BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
RUN_STAMP := $(VENV)/.stamp-run
TEST_STAMP := $(VENV)/.stamp-test
LINT_STAMP := $(VENV)/.stamp-lint
ORACLE_STAMP := $(ORACLE_VENV)/.stamp
PROTO_VENV := .venv-protos
PROTO_STAMP := $(PROTO_VENV)/.stamp
REDFISH_VENV := .venv-redfish
REDFISH_STAMP := $(REDFISH_VENV)/.stamp
NODE_STAMP := tests/node/node_modules/.stamp
FUZZ_VENV := .venv-fuzz
FUZZ_STAMP := $(FUZZ_VENV)/.stamp
AUDIT_VENV := .venv-audit
AUDIT_STAMP := $(AUDIT_VENV)/.stamp
SECONDS_EACH ?= 60
# Files of tests run side by side: the end-to-end ones mostly wait.
WORKERS ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo test lint protos release-wire node-client docs bench bench-estimator bench-faults bench-fleet oracles redfish-conformance fuzz audit-dependencies clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 28

demo: $(RUN_STAMP) ## one real and twelve simulated sites, with a page (ARGS="--fresh", "--seconds 30 --json")
	@exec $(BIN)/heatpool-sim demo $(ARGS)

test: $(TEST_STAMP) ## the whole test suite on both cores (ARGS="-k spool", WORKERS=0 for one process)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

lint: $(LINT_STAMP) ## ruff, mypy, import-linter, buf
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy agent/heatpool_agent aggregator/heatpool_aggregator firmware-sim/heatpool_sim protos/heatpool
	$(BIN)/mypy tests docs bench
	$(BIN)/lint-imports --no-cache
	cd protos && ../$(BIN)/buf lint && ../$(BIN)/buf format --diff --exit-code
	cd protos && ../$(BIN)/buf breaking --against released.binpb

release-wire: $(LINT_STAMP) ## freezes the messages of a release: from now on buf breaking guards them
	cd protos && ../$(BIN)/buf breaking --against released.binpb && ../$(BIN)/buf build --exclude-source-info -o released.binpb

node-client: $(NODE_STAMP) ## installs the independent client of tests/node (needs node and npm)

protos: $(PROTO_STAMP) ## remakes the stubs of the messages from protos/heatpool/v1/*.proto
	PATH="$(CURDIR)/$(PROTO_VENV)/bin:$$PATH" python -m grpc_tools.protoc -Iprotos --python_out=protos --mypy_out=protos \
	  --grpc_python_out=protos --mypy_grpc_out=protos protos/heatpool/v1/*.proto

docs: $(TEST_STAMP) ## rewrites the generated tables of the manual
	@$(BIN)/python docs/tables.py

bench: $(TEST_STAMP) ## budgets: memory, processor, batches per second
	@for script in $$(grep -l __main__ bench/*.py); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

bench-ingest: $(TEST_STAMP) ## durable ingest beside a bare echo of the same bytes (ARGS="--streams 2000 --rate 4000")
	@$(BIN)/python bench/ingest.py $(ARGS)

bench-estimator: $(TEST_STAMP) ## loop estimators beside the Bayesian limit, 300 runs (ARGS="--case base")
	@$(BIN)/python bench/estimator.py --runs 300 $(ARGS)

bench-faults: $(TEST_STAMP) ## delays, catch rates and false alarms of fault finding (ARGS="--runs 20 --days 7")
	@$(BIN)/python bench/faults.py $(ARGS)

bench-fleet: $(TEST_STAMP) ## 10,000 agents against one aggregator: memory, TLS, storm, overload, a week to catch up on (ARGS="--part storm")
	@$(BIN)/python bench/fleet_load.py --scale 1 --seconds 60 --overload-seconds 300 --days 7 $(ARGS)

oracles: $(ORACLE_STAMP) ## rewrites the fixtures that other people's tools make
	$(ORACLE_VENV)/bin/python tests/data/make_fluids.py

redfish-conformance: $(TEST_STAMP) $(REDFISH_STAMP) ## DMTF's validators against the simulated devices (ARGS=--mockup)
	@$(BIN)/python tests/tools/redfish_conformance.py $(ARGS)

fuzz: $(FUZZ_STAMP) ## fuzzes every decoder, SECONDS_EACH=60 (ARGS="mbus_stream redfish_json")
	@$(FUZZ_VENV)/bin/python tests/fuzz/run.py --seconds $(SECONDS_EACH) $(ARGS)

audit-dependencies: $(AUDIT_STAMP) ## known flaws of what constraints.txt pins (needs PyPI; ARGS="-s osv")
	@$(AUDIT_VENV)/bin/pip-audit --requirement constraints.txt --disable-pip --no-deps --strict $(ARGS)

clean: ## removes the environments and every cache
	rm -rf $(VENV) $(ORACLE_VENV) $(PROTO_VENV) $(REDFISH_VENV) $(FUZZ_VENV) $(AUDIT_VENV) tests/node/node_modules build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Environments. A stamp is older than what it was made of: the next call installs again.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "heatpool needs Python 3.11 or later; name one with PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "no venv here; on Debian: apt install python3-venv"; rm -rf $(VENV); exit 1; }

$(RUN_STAMP): pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing heatpool into $(VENV) (once, about a minute) ..."
	@$(PIP) -e '.[agent,aggregator,sim]'
	@touch $@

$(TEST_STAMP): pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing heatpool and its tests into $(VENV) (once, about a minute) ..."
	@$(PIP) -e '.[agent,aggregator,sim,test]'
	@touch $@ $(RUN_STAMP)

$(LINT_STAMP): pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing the linters into $(VENV) (once) ..."
	@$(PIP) -e '.[agent,aggregator,sim,dev]'
	@touch $@ $(TEST_STAMP) $(RUN_STAMP)

# The generator stands apart: it wants an older protobuf than the programs, and its stubs run on both.
$(PROTO_STAMP): Makefile
	@$(PYTHON) -m venv $(PROTO_VENV)
	@$(PROTO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
	  grpcio-tools==1.76.0 mypy-protobuf==5.1.0
	@touch $@

$(ORACLE_STAMP): Makefile
	@$(PYTHON) -m venv $(ORACLE_VENV)
	@$(ORACLE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check CoolProp iapws
	@touch $@

$(NODE_STAMP): tests/node/package-lock.json
	@cd tests/node && npm ci --silent
	@touch $@

# DMTF's validators stand apart: they bring a Redfish client of their own, which nothing here uses.
$(REDFISH_STAMP): Makefile
	@$(PYTHON) -m venv $(REDFISH_VENV)
	@$(REDFISH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
	  redfish_service_validator==3.1.8 redfish_interop_validator==3.0.4
	@touch $@

# The fuzzer instruments what it imports, and is no part of the suite: it finds, hypothesis keeps.
$(FUZZ_STAMP): Makefile pyproject.toml constraints.txt
	@$(PYTHON) -m venv $(FUZZ_VENV)
	@$(FUZZ_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints.txt -e '.[agent,aggregator]' atheris==3.0.0
	@touch $@

# The auditor reads the pins and installs nothing of them.
$(AUDIT_STAMP): Makefile
	@$(PYTHON) -m venv $(AUDIT_VENV)
	@$(AUDIT_VENV)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	@touch $@
