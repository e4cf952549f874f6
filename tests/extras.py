"""Tests of optional extras: left out by `pytest --core`; without it a missing extra is an error, not a skip."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

core_only = False  # set by conftest.py from --core


def load(extra: str, module: str) -> Any:
    """Imports what an extra installs, for a test file, a fixture or a test; under --core, skips it instead.

    Args:
        extra: its name in pyproject.toml.
        module: what to import.
    """
    if core_only:
        pytest.skip(f"needs the extra {extra}", allow_module_level=True)
    return importlib.import_module(module)
