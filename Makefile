# make demo | make test: everything else is set up by these two. PYTHON is any Python >= 3.10.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# MONAI Label wants other versions of pydicom and numpy than the rest
LABEL  := .venv-label
LABEL_READY := $(LABEL)/.ready
# one thread per process: OpenMP threads that share cores with other processes wait for each other, up to ten times as long
export OMP_NUM_THREADS ?= 1
# container images set it: each process would then compile torch and MONAI anew (more than twice the time of a start)
export PYTHONDONTWRITEBYTECODE :=
# test processes of one thread each
PROCESSES ?= 2

.PHONY: demo test test-slow test-label lint format smoke benchmarks clean

DOMAIN ?= ct
demo: $(READY)          ## ingest, pretrain, transfer and compare on generated images (DOMAIN=ct or endoscopy)
	$(BIN)/ssl-transfer demo --domain $(DOMAIN) --out $(if $(filter ct,$(DOMAIN)),demo,demo_$(DOMAIN))

test: $(READY) lint     ## lint, types and every test that takes less than a minute
	$(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal

test-slow: $(READY)     ## every test
	$(BIN)/python -m pytest -m "slow or not slow" -n $(PROCESSES) --dist worksteal

test-label: $(LABEL_READY)  ## MONAI Label: real servers on the loopback address (Orthanc and Chromium where they are installed)
	$(LABEL)/bin/python -m pytest tests/label -n $(PROCESSES) --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

smoke: $(READY)         ## each bundle from the shell, as a user runs it, on phantoms
	PATH="$(CURDIR)/$(BIN):$$PATH" bash .ci/smoke

benchmarks: $(READY)    ## every speed and memory claim of the README
	for name in views store ingest frames engine methods learns inference startup knn active_learning readme_table; do $(BIN)/python benchmarks/$$name.py || exit 1; done

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.5"
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e ".[dev]"
	touch $@

$(LABEL_READY): pyproject.toml
	test -x $(LABEL)/bin/python || $(PYTHON) -m venv $(LABEL)
	$(LABEL)/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.5"
	$(LABEL)/bin/uv pip install --quiet --python $(LABEL)/bin/python -e ".[label]" pytest pytest-timeout pytest-xdist hypothesis
	touch $@

clean:
	rm -rf $(VENV) $(LABEL) demo demo_endoscopy runs
