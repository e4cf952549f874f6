# `make quickstart` and `make test` need Python >= 3.11 and make; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test lint docs clean

quickstart: $(VENV)/installed
	$(BIN)/emoreg quickstart

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n auto

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: $(VENV)/installed-dev
	$(BIN)/python docs/make_site.py

# The markers are written last, so that an install that broke off is done again.
$(VENV)/installed: pyproject.toml
	$(call install,.)
	@touch $@

$(VENV)/installed-dev: pyproject.toml
	$(call install,.[dev])
	@touch $(VENV)/installed $@

define install
@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(sys.version_info < (3, 11) and f"emoreg needs Python >= 3.11; {sys.executable} is {v}. Choose another: make PYTHON=python3.12 ...")'
$(PYTHON) -m venv $(VENV)
$(BIN)/python -m pip install --quiet --editable '$(1)'
endef

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
