"""Optional extras: tests that need one are marked `extra`, and only they can import it.

    @pytest.mark.extra("explain")
    def test_...

A test file that imports an extra's modules itself is marked as a whole, and skipped with --core:

    captum = extras.load("explain", "captum")
    pytestmark = pytest.mark.extra("explain")
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest

MODULES = {  # that the extras in pyproject.toml install and emoreg imports
    "hub": ("datasets",),
    "diffusion": ("diffusers", "transformers", "accelerate"),
    "explain": ("captum",),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "demo": ("gradio",),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
    "ray": ("ray",),
    "suites": ("imagecorruptions", "art"),
}
core_only = False  # set by conftest.py from --core


def load(extra: str, module: str) -> Any:
    """Import a module of an extra for a test file; with --core, skip the file instead.

    Args:
        extra: name of the extra in pyproject.toml.
        module: module to import.
    """
    if core_only:
        pytest.skip(f"needs the extra {extra}", allow_module_level=True)
    return importlib.import_module(module)


def hide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let imports of all extras fail during a test, as if none were installed."""
    for names in MODULES.values():
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)
