"""The settings of a run as a table of results has them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from emoreg.config.recipe import Recipe
from emoreg.runs.published import published


def published_settings(recipe: Recipe, study: Path) -> dict[str, Any]:
    """All settings by their dotted keys.

    Args:
        recipe: of either stage.
        study: folder of the study, from which paths are told.
    """
    return published(dataclasses.asdict(recipe), study)
