# Every target needs Python >= 3.11 and make; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test test-all test-lowest lint docs wheel-check clean

quickstart: $(VENV)/installed
	$(BIN)/emoreg quickstart

# What the core does, in an environment with the core's dependencies alone.
test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n auto --core

# Every test but those marked slow; the environment has all extras, and a missing one is an error.
test-all: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n auto

# The core with the oldest dependencies that pyproject.toml allows, on the oldest Python.
test-lowest: $(VENV)-lowest/installed
	$(VENV)-lowest/bin/python -m pytest -n auto --core

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: $(VENV)/installed-dev
	$(BIN)/python docs/make_site.py

wheel-check: $(VENV)/installed-dev
	.ci/wheel-check $(BIN)/python

# The markers are written last, so that an install that broke off is done again.
$(VENV)/installed: pyproject.toml
	$(call install,.)
	@touch $@

$(VENV)/installed-test: pyproject.toml
	$(call install,.[test])
	@touch $(VENV)/installed $@

$(VENV)/installed-dev: pyproject.toml
	$(call install,.[dev])
	@touch $(VENV)/installed $(VENV)/installed-test $@

$(VENV)-lowest/installed: pyproject.toml constraints/lowest.txt
	python3.11 -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet --constraint constraints/lowest.txt --editable '.[test]'
	@touch $@

define install
@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(sys.version_info < (3, 11) and f"emoreg needs Python >= 3.11; {sys.executable} is {v}. Choose another: make PYTHON=python3.12 ...")'
$(PYTHON) -m venv $(VENV)
$(BIN)/python -m pip install --quiet --editable '$(1)'
endef

clean:
	rm -rf $(VENV) $(VENV)-lowest .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
