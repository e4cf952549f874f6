"""The settings of a run as a table of results has them: what they name as a place is told without that place."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emoreg.config.read_recipe import flatten
from emoreg.config.recipe import Recipe
from emoreg.runtime.places import portable

PLACES = ("root", "experience", "weights")  # settings that name a file or folder


def published_settings(recipe: Recipe, study: Path) -> dict[str, Any]:
    """All settings by their dotted keys.

    Args:
        recipe: of either stage.
        study: folder of the study, from which paths are told.
    """
    return {key: _published(key, value, study) for key, value in flatten(dataclasses.asdict(recipe))}


def _published(key: str, value: Any, study: Path) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_published("", part, study) for part in value)
    if isinstance(value, Mapping):
        return {name: _published(name, part, study) for name, part in value.items()}
    is_place = isinstance(value, str) and key.rpartition(".")[2] in PLACES
    return portable(value, study) if is_place else value
