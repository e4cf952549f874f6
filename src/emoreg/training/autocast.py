"""Mixed precision by autocast alone."""

from __future__ import annotations

from typing import TypeVar

from lightning_fabric.plugins.precision import MixedPrecision

T = TypeVar("T")


class Autocast(MixedPrecision):
    """Fabric's mixed precision without its conversion of inputs, which would round labels to bfloat16 too."""

    def convert_input(self, data: T) -> T:
        """Return the batch unchanged; autocast converts images where they are used."""
        return data
