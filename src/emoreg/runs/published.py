"""Settings as tables and trackers have them: what they name as a place is told without that place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emoreg.config.read_recipe import flatten
from emoreg.runtime.places import portable

PLACES = ("root", "experience", "weights")  # settings that name a file or folder, also in the elements of lists


def published(settings: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Settings by their dotted keys.

    Args:
        settings: of a recipe, nested.
        base: the folder from which paths are told, such as a study's.
    """
    return {key: _published(key, value, base) for key, value in flatten(settings)}


def _published(key: str, value: Any, base: Path) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_published("", part, base) for part in value)
    if isinstance(value, Mapping):
        return {name: _published(name, part, base) for name, part in value.items()}
    is_place = isinstance(value, str) and key.rpartition(".")[2] in PLACES
    return portable(value, base) if is_place else value
