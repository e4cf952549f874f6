# Every target needs Python >= 3.11 and make; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test test-all test-lowest lint docs wheel-check clean

quickstart: $(VENV)/installed
	$(BIN)/emoreg quickstart

# Tests of the core, in an environment without the optional extras.
test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n auto --dist worksteal --core

# All tests except those marked slow; the environment has all extras, and a missing one is an error.
test-all: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n auto --dist worksteal

# Tests of the core with the oldest Python and dependencies that pyproject.toml allows.
test-lowest: $(VENV)-lowest/installed
	$(VENV)-lowest/bin/python -m pytest -n auto --dist worksteal --core

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: $(VENV)/installed-dev
	$(BIN)/python docs/make_site.py

wheel-check: $(VENV)/installed-dev
	.ci/wheel-check $(BIN)/python

# The marker files are written last, so that an interrupted install is repeated.
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
