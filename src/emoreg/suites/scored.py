"""What scoring a suite gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MORE = "'emoreg[suites]'"  # what pip installs for the suites that need a library of their own


@dataclass(frozen=True)
class Scored:
    """Figures of a suite.

    Args:
        figures: by name, in their order.
        images: which images they are of, in words.
        checksums: of the images' pixels, by set.
    """

    figures: Mapping[str, float]
    images: str
    checksums: Mapping[str, str]
