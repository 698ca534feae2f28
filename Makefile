# The commands of this project. Each sets up what it needs: `make train` works on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV := $(BIN)/uv
# What there is after a flow, and what to type next. The flow's own exit code counts.
STATUS = echo; $(BIN)/fashion status --brief $(OF_DATA) || true
# DATA=path/to/pictures, or the name of a data config. The shell's own variable: a path may hold quotes and spaces.
OF_DATA = $(if $(DATA),"data.root=$$DATA")

.DEFAULT_GOAL := help

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'
	@echo "$(BIN)/fashion status says what there is and what to type next; $(BIN)/fashion --help lists the other commands."

setup: $(STAMP) ## Make .venv from requirements.lock

# Runs again only when a lock file or the project's metadata changed.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1); Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "installing into $(VENV): a few minutes on the first run"
	@# A venv that was left half-made, as by a Python without ensurepip, has no pip: made anew.
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	awk '/^uv==/{p=1} p && /^[a-z]/ && !/^uv==/{exit} p && !/ # /' requirements.lock | \
		$(BIN)/python -m pip install --quiet --require-hashes --requirement /dev/stdin
	$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

train: $(STAMP) ## Train, evaluate and register a model: DATA=path/to/pictures ARGS="architecture=resnet"
	$(BIN)/python flows/train_flow.py run $(OF_DATA) $(ARGS)
	@$(STATUS)

ui: $(STAMP) ## Compare runs and versions in the MLflow UI, on http://127.0.0.1:5000
	$(BIN)/fashion ui

bento: $(STAMP) ## Build a bento of the champion: ARGS="version=7 serve.shadow=challenger"
	$(BIN)/python flows/deploy_flow.py run $(OF_DATA) $(ARGS)

serve: bento ## Build it and serve it on http://127.0.0.1:3000; a newer bento takes its place
	$(BIN)/fashion serve --follow $(OF_DATA)

# From /: BentoML lays its context out in a temporary folder, and reads templates below the working directory only.
container: bento ## Build a container image of it: needs Docker
	@# The shell's own name of this folder: a path that make expands may hold spaces, quotes and dollars.
	tag=$$($(BIN)/fashion serve --tag $(OF_DATA)) && here=$$PWD && cd / && \
		BENTOML_HOME="$${BENTOML_HOME:-$${FASHION_HOME:-$$here/var}/bentoml}" "$$here/$(BIN)/bentoml" containerize "$$tag"

predict: $(STAMP) ## Predict a folder of pictures: ARGS="--images pictures/ --output predictions.parquet"
	$(BIN)/python flows/predict_flow.py run $(ARGS)

drift: $(STAMP) ## Look whether recent traffic has drifted: ARGS="rows=1000 retrain.enabled=true"
	$(BIN)/python flows/drift_flow.py run $(OF_DATA) $(ARGS)
	@$(STATUS)

rollback: $(STAMP) ## Make the champion's predecessor the champion again, and build its bento: REASON="..."
	$(BIN)/fashion registry rollback $(OF_DATA) $(if $(REASON),--reason "$$REASON")
	$(BIN)/python flows/deploy_flow.py run $(OF_DATA) $(ARGS)
	@$(STATUS)

schedule: $(STAMP) ## Write a timer that runs the drift flow, and say how to start it: ARGS="window=7d"
	$(BIN)/fashion schedule write $(ARGS)

schedule-check: $(STAMP) ## Check that timer, and show when it will run
	$(BIN)/fashion schedule check

cluster: $(STAMP) ## What Kubernetes and Argo need before the flows are deployed: ARGS="--production"
	$(BIN)/fashion cluster check $(ARGS)

argo: $(STAMP) ## Write the manifests of the flows to var/argo: ARGS="--production drift:retrain.enabled=true"
	$(BIN)/fashion cluster manifests $(ARGS)

demo: $(STAMP) ## The whole loop on this machine: drift, alert, feedback, retraining, rollback; about 15 minutes
	$(BIN)/fashion demo $(ARGS)

test: $(STAMP) ## Run the tests of all that one machine does, some minutes: ARGS="-k dataset"
	$(BIN)/python -m pytest $(TEST_WORKERS) -m "not ci" $(ARGS)

test-all: $(STAMP) ## Run all tests, as CI does: also servers, emulators, images, pods, benchmarks, sweeps of kills
	$(BIN)/python -m pytest $(TEST_WORKERS) $(ARGS)

# Twice as many workers as cores, four at most: tests of flows and servers wait for a third of their time.
TEST_WORKERS = --numprocesses $(shell expr 2 \* $$(getconf _NPROCESSORS_ONLN)) --maxprocesses 4 --dist loadgroup --no-loadscope-reorder

check: lint ## Lint, types, contracts and the quick tests: the daily loop, about a minute
	$(BIN)/python -m pytest $(TEST_WORKERS) --numprocesses logical -m "not slow" $(ARGS)

coverage: $(STAMP) ## Run the tests slower, and list the lines that none reaches, served bentos included
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest $(TEST_WORKERS) $(ARGS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --include "fashion/*,flows/*" --fail-under 97
	$(BIN)/python -m coverage report --include "bentos/*" --fail-under 90

lint: $(STAMP) ## Check style, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)-bench/.installed ## Measure speed beside the usual alternatives
	$(VENV)-bench/bin/python -m tests.benchmarks $(ARGS)

leaderboard: $(STAMP) ## Compare networks at one budget of seconds: ARGS="resnet50 --seconds 60 --seeds 42"
	$(BIN)/python -m tests.benchmarks.leaderboard $(ARGS)

$(VENV)-bench/.installed: requirements-bench.lock $(STAMP)
	test -x $(VENV)-bench/bin/python || $(PYTHON) -m venv $(VENV)-bench
	$(UV) pip sync --quiet --compile-bytecode --python $(VENV)-bench/bin/python requirements-bench.lock
	$(UV) pip install --quiet --python $(VENV)-bench/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

docs: $(VENV)-docs/.installed ## Build the documentation's site in build/docs/site, and check every link of it
	$(VENV)-docs/bin/python -m docs.site.build

docs-serve: docs ## Show it on http://127.0.0.1:8001
	$(VENV)-docs/bin/python -m http.server --bind 127.0.0.1 --directory build/docs/site 8001

$(VENV)-docs/.installed: requirements-docs.lock $(STAMP)
	test -x $(VENV)-docs/bin/python || $(PYTHON) -m venv $(VENV)-docs
	$(UV) pip sync --quiet --compile-bytecode --python $(VENV)-docs/bin/python requirements-docs.lock
	@touch $@

screenshots: $(STAMP) ## Take the README's pictures from the runs, the bento and the last drift report of this home
	$(BIN)/python -m docs.site.screenshots

sbom: $(STAMP) ## Write what the service is made of to var/sbom.json, in CycloneDX's form
	@mkdir -p var
	$(UV) tool run --from cyclonedx-bom==7.5.0 cyclonedx-py requirements --pyproject pyproject.toml \
		--output-reproducible --output-file var/sbom.json requirements-serve.lock

audit: $(STAMP) ## Look all locked packages up among the known vulnerabilities of PyPI
	$(UV) tool run pip-audit==2.10.1 --disable-pip $(addprefix --requirement ,$(wildcard requirements*.lock))

lock: $(STAMP) ## Renew the lock files from pyproject.toml
	$(LOCK) $(ALL_EXTRAS) --output-file requirements.lock
	$(LOCK) $(SERVICE_EXTRAS) --constraint requirements.lock --output-file requirements-serve.lock
	$(LOCK) $(SERVICE_EXTRAS) --extra drift --extra cloudrun --constraint requirements.lock --output-file requirements-flows.lock
	$(LOCK) $(ALL_EXTRAS) --extra bench --constraint requirements.lock --output-file requirements-bench.lock
	$(LOCK) --extra docs --constraint requirements.lock --output-file requirements-docs.lock

LOCK = $(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
	--custom-compile-command "make lock" pyproject.toml
SERVICE_EXTRAS = --extra serve --extra gcp --extra s3-azure --extra postgres --extra telemetry
ALL_EXTRAS = $(SERVICE_EXTRAS) --extra train --extra drift --extra cloudrun --extra ui --extra dev

clean: ## Remove what was built; keeps var/, where data, runs and models are
	rm -rf $(VENV) $(VENV)-bench $(VENV)-docs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist *.egg-info


.PHONY: help setup train ui bento serve container predict drift rollback schedule schedule-check cluster argo demo test test-all check coverage lint bench leaderboard docs docs-serve screenshots sbom audit lock clean
