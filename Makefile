# Two commands matter: `make run` (the first example) and `make test`. Both need only make and Python 3.11 or newer:
# the first call creates .venv and installs into it, later calls find it there and stay off the network.

VENV   := .venv
PYTHON ?=
JOBS   ?= 2
ARGS   ?=
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet install

# Bytecode beside the sources, also where Python is told not to write it by itself: it halves the start of every `lr`.
COMPILE := $(BIN)/python -m compileall -q dsl

.DEFAULT_GOAL := help
.PHONY: help run test fuzz soak check docs golden bench gpu dev clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.has-run  ## train the linear regression of the README; its plot goes to build/fit.png
	@$(COMPILE)
	$(BIN)/lr run examples/linear_regression.lr --out build

test: $(VENV)/.has-test  ## run the tests (ARGS="-k grad" passes options on, JOBS=0 uses one process)
	@$(COMPILE)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

fuzz: $(VENV)/.has-test  ## compare 5,000 random programs on all backends (ARGS="--count 200 --seed 9000")
	$(BIN)/python tests/ugly_scripts.py --count 1000
	LR_TEST_ALL=1 $(BIN)/python -m pytest -q -n $(JOBS) tests/test_cuda_compiled.py tests/test_fuzz.py
	$(BIN)/python tests/fuzz.py --jobs $(JOBS) --sanitize $(ARGS)

soak: $(VENV)/.has-test  ## kill a training 100 times; it must end as if it had never stopped (ARGS="--kills 20 --device numpy")
	@$(COMPILE)
	$(BIN)/python -m tests.soak_resume $(ARGS)

check: $(VENV)/.has-dev  ## ruff everywhere, mypy --strict on dsl/
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/.has-docs  ## build the documentation into build/docs (open build/docs/index.html)
	@$(COMPILE)
	$(BIN)/python -m sphinx -W --keep-going -E -a -q -b html -d build/doctrees docs build/docs $(ARGS)

golden: $(VENV)/.has-test  ## rewrite tests/golden from what the code prints now; read the diff before committing
	$(BIN)/python -m pytest -q --update-golden $(ARGS)

bench: $(VENV)/.has-run  ## time it beside what else is installed (ARGS="--quick"); the latest results are in benchmarks/
	@$(COMPILE)
	$(BIN)/lr bench --json benchmarks/latest.json --plot benchmarks/latest.png $(ARGS)

gpu: $(VENV)/.has-test  ## everything that needs a GPU, with a report to benchmarks/ (ARGS="--minutes 15 --quick")
	@$(COMPILE)
	$(BIN)/python benchmarks/gpu.py $(ARGS)

dev: $(VENV)/.has-dev  ## prepare .venv with everything a contributor needs

clean:  ## remove the environment, caches and everything built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is as fresh as the last install from this pyproject.toml; a larger install makes the smaller stamps too.
$(VENV)/.has-run: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[plot]'
	@touch $@

$(VENV)/.has-test: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.has-run

$(VENV)/.has-docs: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[docs]'
	@touch $@ $(VENV)/.has-run

$(VENV)/.has-dev: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.has-run $(VENV)/.has-test $(VENV)/.has-docs

$(BIN)/python:
	@for candidate in $(PYTHON) python3.13 python3.12 python3.11 python3 python; do \
	    if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	        echo "creating $(VENV) with $$($$candidate --version)"; \
	        $$candidate -m venv --clear $(VENV) && exit 0; \
	        rm -rf $(VENV); \
	        echo "$$candidate could not create a virtual environment" \
	             "(on Debian and Ubuntu: apt install python3-venv)" >&2; \
	        exit 1; \
	    fi; \
	done; \
	echo "lr needs Python 3.11 or newer, and none was found on the PATH." >&2; \
	echo "Install one, or name it: make $(or $(MAKECMDGOALS),run) PYTHON=/path/to/python3.12" >&2; \
	exit 1
