"""Settings as tables and trackers contain them, without private paths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emoreg.config.read_recipe import flatten
from emoreg.runtime.places import portable

PLACES = ("root", "experience", "weights")  # names of settings that are paths, also in list elements


def published(settings: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Return settings by their dotted keys, with portable paths.

    Args:
        settings: nested settings of a recipe.
        base: folder that paths are relative to, such as a study's.
    """
    return {key: _published(key, value, base) for key, value in flatten(settings)}


def _published(key: str, value: Any, base: Path) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_published("", part, base) for part in value)
    if isinstance(value, Mapping):
        return {name: _published(name, part, base) for name, part in value.items()}
    is_place = isinstance(value, str) and key.rpartition(".")[2] in PLACES
    return portable(value, base) if is_place else value
