"""Optional packages: one that is missing is told from one that is installed and cannot be imported."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from typing import Any

from emoreg.errors import UserError, shortened


def is_installed(package: str) -> bool:
    """Whether Python finds a package of this name. A folder of data that is called so is none."""
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # a module that something has put into sys.modules by hand
        return True
    return spec is not None and spec.origin is not None


@contextlib.contextmanager
def importing(package: str, purpose: str, install: str) -> Iterator[None]:
    """Within, import an optional package and what belongs to it.

    Args:
        package: its name in Python.
        purpose: what needs it, as the beginning of a sentence, such as "the demo".
        install: the arguments of pip that install it.

    Raises:
        UserError: it is not installed, or raises anything while it is imported.
    """
    if not is_installed(package):
        raise UserError(f"{purpose} needs {package}: pip install {install}")
    try:
        yield
    except Exception as error:  # packages look at the machine and the environment when they are imported
        reason = shortened(f"{type(error).__name__}: {error}", 400)
        raise UserError(f"{purpose} needs {package}, which is installed but cannot be imported: {reason}") from None


def import_fabric() -> None:
    """Import Lightning Fabric without torchmetrics, which it imports, for seconds, only to see whether it is there."""
    if {"torchmetrics", "lightning_fabric"} & sys.modules.keys():
        importlib.import_module("lightning_fabric")
        return
    absent: Any = None  # makes an import fail as if the package were not installed
    sys.modules["torchmetrics"] = absent
    try:
        importlib.import_module("lightning_fabric")
    finally:
        del sys.modules["torchmetrics"]
