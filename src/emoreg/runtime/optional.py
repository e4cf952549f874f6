"""Optional packages, with different errors for missing ones and for those that cannot be imported."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from typing import Any

from emoreg.errors import UserError, shortened


def is_installed(package: str) -> bool:
    """Whether a package of this name is installed; a data folder of the same name does not count."""
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # a module without a spec that was put into sys.modules
        return True
    return spec is not None and spec.origin is not None


@contextlib.contextmanager
def importing(package: str, purpose: str, install: str) -> Iterator[None]:
    """Convert errors of importing an optional package inside the block to UserError.

    Args:
        package: import name of the package.
        purpose: subject of the message, such as "the demo".
        install: arguments of `pip install` for it.

    Raises:
        UserError: the package is not installed, or its import raises anything.
    """
    if not is_installed(package):
        raise UserError(f"{purpose} needs {package}: pip install {install}")
    try:
        yield
    except Exception as error:  # some packages inspect the machine and the environment on import
        reason = shortened(f"{type(error).__name__}: {error}", 400)
        raise UserError(f"{purpose} needs {package}, which is installed but cannot be imported: {reason}") from None


def import_fabric() -> None:
    """Import Lightning Fabric without torchmetrics, whose import takes seconds and only serves to detect it."""
    if {"torchmetrics", "lightning_fabric"} & sys.modules.keys():
        importlib.import_module("lightning_fabric")
        return
    absent: Any = None  # makes an import fail as if the package were not installed
    sys.modules["torchmetrics"] = absent
    try:
        importlib.import_module("lightning_fabric")
    finally:
        del sys.modules["torchmetrics"]
