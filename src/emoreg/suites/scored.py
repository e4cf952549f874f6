"""The result of scoring a suite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MORE = "'emoreg[suites]'"  # for pip: the extra with the libraries of suites


@dataclass(frozen=True)
class Scored:
    """Figures of a suite.

    Args:
        figures: by name, in their order.
        images: a description of the images.
        checksums: of the images' pixels, by set.
    """

    figures: Mapping[str, float]
    images: str
    checksums: Mapping[str, str]
