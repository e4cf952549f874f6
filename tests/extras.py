"""Imports for tests of optional extras. `pytest --core` skips these tests; otherwise a missing extra is an error."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

core_only = False  # set by conftest.py from --core


def load(extra: str, module: str) -> Any:
    """Import a module that an extra installs; with --core, skip the calling test, fixture or test file instead.

    Args:
        extra: name of the extra in pyproject.toml.
        module: module to import.
    """
    if core_only:
        pytest.skip(f"needs the extra {extra}", allow_module_level=True)
    return importlib.import_module(module)
