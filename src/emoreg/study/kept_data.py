"""Checksums of a study's images, kept in its folder, so that it depends neither on the images nor on their paths.

The ids of runs are hashes that include checksums of the images (`data.fingerprint`). Reports need no images; for runs
they are found again by their checksums, even if they have been moved.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from emoreg.config.contents import Contents
from emoreg.config.recipe import PretrainRecipe, Recipe, TrainRecipe
from emoreg.config.schema import StimuliSettings, TargetSettings
from emoreg.data.fingerprint import contents_of
from emoreg.errors import UserError

Settings = StimuliSettings | TargetSettings
S = TypeVar("S", StimuliSettings, TargetSettings)
Places = Mapping[tuple[str, str], str]  # current root of a set, by its name and its root in the study's file


@dataclass(frozen=True)
class KeptData:
    """An image set of a study, as it was when the study started. emoreg study writes it."""

    name: str = ""
    """Name of the set."""
    root: str = ""
    """Root in the study's file."""
    at: str = ""
    """Absolute path of the root when the study started."""
    contents: Contents = dataclasses.field(default_factory=Contents)
    """Number, size and checksum of its files."""


def image_sets(recipes: Iterable[Recipe]) -> dict[tuple[str, str], Settings]:
    """The settings of all image sets that have a root, by name and root."""
    every = (settings for recipe in recipes for settings in recipe.sections.values())
    return {(settings.name, settings.root): settings for settings in every if settings.root is not None}


def with_those_here(kept: Iterable[KeptData], recipes: Iterable[Recipe]) -> tuple[KeptData, ...]:
    """Add to the kept records those of other sets of the recipes that exist now."""
    records = {(each.name, each.root): each for each in kept}
    for (name, root), settings in image_sets(recipes).items():
        if (name, root) not in records:
            for place in _spellings(root):
                contents = contents_of(dataclasses.replace(settings, root=place))
                if contents is not None:
                    records[name, root] = KeptData(name, root, str(Path(place).absolute()), contents)
                    break
    return tuple(records.values())


def contents_in(recipe: Recipe, kept: Iterable[KeptData]) -> dict[str, Contents]:
    """The kept contents of a recipe's image sets, by section of the recipe."""
    known = {(each.name, each.root): each.contents for each in kept}
    keys = {section: (settings.name, settings.root or "") for section, settings in recipe.sections.items()}
    return {section: known[key] for section, key in keys.items() if key in known}


def find_data(
    kept: Iterable[KeptData], recipes: Iterable[Recipe], study: Path
) -> tuple[dict[tuple[str, str], str], list[str]]:
    """Find the current roots of the images of recipes, by their checksums.

    A set is searched for at its root, relative to the working folder; then at its path when the study started, and at
    its root relative to every folder above the study's.

    Args:
        kept: the study's records.
        recipes: of the runs to be done.
        study: the study's folder.

    Returns:
        Places, and faults: a line for each set that has changed or is missing.
    """
    known = {(each.name, each.root): each for each in kept}
    places, faults = {}, []
    for key, settings in image_sets(recipes).items():
        if key not in known:
            continue  # reading it reports what is wrong
        place, reason = _find(settings, known[key], study)
        if place is None:
            faults.append(f"{settings.root} ({settings.name}) {reason}")
        else:
            places[key] = place
    return places, faults


def _find(settings: Settings, kept: KeptData, study: Path) -> tuple[str | None, str]:
    """The current root of a set; or None, and why it was not found, as the end of a sentence."""
    other: Contents | None = None  # the first contents that differ
    for place in _candidates(kept, study):
        contents = contents_of(dataclasses.replace(settings, root=place))
        if contents is not None and contents.sha256 == kept.contents.sha256:
            return place, ""
        other = other or contents
        if contents is not None and place == kept.root:
            break  # images at the root in the study's file are the ones that the user means
    if other is None:
        return None, f"is not here: it was {kept.contents} in {kept.at}"
    differs = " with other names or labels" if str(other) == str(kept.contents) else ""
    return None, f"has changed: {kept.contents} when the study started, {other} now{differs}"


def _candidates(kept: KeptData, study: Path) -> Iterator[str]:
    yield from _spellings(kept.root)
    yield kept.at
    if not Path(kept.root).is_absolute():
        yield from (str(folder / place) for folder in study.resolve().parents for place in _spellings(kept.root))


def _spellings(root: str) -> tuple[str, ...]:
    """A root as it is written, and with / for the \\ of Windows."""
    return tuple(dict.fromkeys((root, root.replace("\\", "/"))))


def at_places(recipe: Recipe, places: Places) -> Recipe:
    """Replace the roots in a recipe by the current ones."""

    def moved(settings: S) -> S:
        return dataclasses.replace(settings, root=places.get((settings.name, settings.root or ""), settings.root))

    match recipe:
        case PretrainRecipe(stimuli=stimuli, also=also):
            return dataclasses.replace(recipe, stimuli=moved(stimuli), also=tuple(map(moved, also)))
        case TrainRecipe(target=target):
            return dataclasses.replace(recipe, target=moved(target))


def refuse_changed(faults: list[str], out: Path, alternative: str = "") -> None:
    """Raise UserError if there are any faults from `find_data`; `alternative` is what else can be done, if anything."""
    if faults:
        remedy = f"restore the images that the study {out} started with{alternative and f', or {alternative}'}"
        raise UserError(f"{'; '.join(faults)}: {remedy}; reports on finished runs need no images")
