# make demo   set up, then train the demo lines        (WORKDIR=folder puts every output there)
# make test   set up, then all tests
# make lint   ruff and mypy        make clean  remove outputs
# make bench  the benchmarks, then `novad bench` on real images or the demo lines  (ANOMALIB=python beside others)

VENV ?= .venv
# The first interpreter that fits; PYTHON=... names another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
  $$python -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
  && command -v $$python && break; done)
BIN := $(VENV)/bin
# One more than the cores of a small machine: tests that run services wait for them. A process that
# crashes ends the run: pytest-xdist waits for ever for the tests of one that it replaces.
TEST_PROCESSES ?= 3
BENCH_OPTIONS ?= --images 128 --repeats 2
STAMP := $(VENV)/.novad-set-up

export DO_NOT_TRACK = 1
export DVC_NO_ANALYTICS = 1
export GX_ANALYTICS_ENABLED = false
export MLFLOW_DISABLE_TELEMETRY = true
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export UV_LINK_MODE = copy

.PHONY: setup demo test lint bench clean

setup: $(STAMP)

# uv reads no pip settings, so where an index is known to pip alone, pip does the work. The lock is whole, so
# nothing is resolved: pip before 23.3 would ask an index for the newest of a package that somebody needs with
# an extra, and refuse it for want of a pin.
$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "novad needs Python 3.11, 3.12 or 3.13 (PYTHON=...)" >&2; exit 2; }
	@rm -f $@
	@echo "Setting up $(VENV) from requirements.lock" >&2
	@if command -v uv >/dev/null 2>&1 \
	  && uv venv --quiet --allow-existing --python "$(PYTHON)" $(VENV) \
	  && uv pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps --require-hashes -r requirements.lock \
	  && uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e . \
	  && uv pip check --python $(BIN)/python; then :; else \
	  "$(PYTHON)" -m venv $(VENV) \
	  && $(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock \
	  && $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e . \
	  && $(BIN)/python -m pip check; \
	fi
	@touch $@

demo: setup
	@$(BIN)/novad demo $(if $(WORKDIR),--workdir "$(WORKDIR)")

test: setup
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder --max-worker-restart 0

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: setup
	@$(BIN)/python -m benchmarks $(BENCH_OPTIONS) $(if $(ANOMALIB),--anomalib "$(ANOMALIB)")
	@$(BIN)/python -m benchmarks.folders $(if $(ANOMALIB),--anomalib "$(ANOMALIB)")

clean:
	rm -rf artifacts .novad dvc.lock benchmarks/results .pytest_cache .mypy_cache .ruff_cache .hypothesis
