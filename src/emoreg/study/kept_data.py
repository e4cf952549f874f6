"""What a study's images were when it began: its folder remembers that, so that it needs neither them nor their paths.

The ids of runs have checksums of the images in them (`data.fingerprint`), reports need no images at all, and when runs
are to be done, the images are found again where they are now.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from emoreg.config.contents import Contents
from emoreg.config.recipe import PretrainRecipe, Recipe, TrainRecipe
from emoreg.config.schema import StimuliSettings, TargetSettings
from emoreg.data.fingerprint import contents_of
from emoreg.errors import UserError

Settings = StimuliSettings | TargetSettings
S = TypeVar("S", StimuliSettings, TargetSettings)
Places = Mapping[tuple[str, str], str]  # where a set is now, by its name and its root as the study has it


@dataclass(frozen=True)
class KeptData:
    """An image set of a study, as it was when the study began. emoreg study writes it."""

    name: str = ""
    """Of the set."""
    root: str = ""
    """As the study's file has it."""
    at: str = ""
    """Where it was then, whatever the working folder."""
    contents: Contents = dataclasses.field(default_factory=Contents)
    """What stood there."""


def image_sets(recipes: Iterable[Recipe]) -> dict[tuple[str, str], Settings]:
    """The settings of all image sets that have a root, by name and root."""
    every = (settings for recipe in recipes for settings in recipe.sections.values())
    return {(settings.name, settings.root): settings for settings in every if settings.root is not None}


def with_those_here(kept: Iterable[KeptData], recipes: Iterable[Recipe]) -> tuple[KeptData, ...]:
    """What is kept, and what is here of the sets of which nothing is."""
    found = {(each.name, each.root): each for each in kept}
    for (name, root), settings in image_sets(recipes).items():
        if (name, root) not in found:
            for place in _spellings(root):
                contents = contents_of(dataclasses.replace(settings, root=place))
                if contents is not None:
                    found[name, root] = KeptData(name, root, str(Path(place).absolute()), contents)
                    break
    return tuple(found.values())


def contents_in(recipe: Recipe, kept: Iterable[KeptData]) -> dict[str, Contents]:
    """What is known of the images of a recipe, by its sections."""
    known = {(each.name, each.root): each.contents for each in kept}
    keys = {section: (settings.name, settings.root or "") for section, settings in recipe.sections.items()}
    return {section: known[key] for section, key in keys.items() if key in known}


def find_data(
    kept: Iterable[KeptData], recipes: Iterable[Recipe], study: Path
) -> tuple[dict[tuple[str, str], str], list[str]]:
    """Where the images of recipes are now.

    They are looked for at their root as it is written, from the working folder; then where they were when the study
    began, and at their root from every folder above the study. Wherever something else is found, they are not.

    Args:
        kept: what a study remembers.
        recipes: of the runs that are to be done.
        study: its folder.

    Returns:
        Places, and a line for each set that has changed or is not there.
    """
    known = {(each.name, each.root): each for each in kept}
    places, lines = {}, []
    for key, settings in image_sets(recipes).items():
        if key not in known:
            continue  # whoever reads it says what is wrong
        place, reason = _find(settings, known[key], study)
        if place is None:
            lines.append(f"{settings.root} ({settings.name}) {reason}")
        else:
            places[key] = place
    return places, lines


class _PlaceOrReason(NamedTuple):
    """Where a set is; or None, and what is there in its place, as the end of a sentence."""

    place: str | None
    reason: str = ""


def _find(settings: Settings, kept: KeptData, study: Path) -> _PlaceOrReason:
    other: Contents | None = None  # the first that is found
    for place in _candidates(kept, study):
        contents = contents_of(dataclasses.replace(settings, root=place))
        if contents is not None and contents.sha256 == kept.contents.sha256:
            return _PlaceOrReason(place)
        other = other or contents
        if contents is not None and place == kept.root:
            break  # what stands where the study's file says is meant, and nothing that is elsewhere
    if other is None:
        return _PlaceOrReason(None, f"is not here: it was {kept.contents} in {kept.at}")
    differs = " with other names or labels" if str(other) == str(kept.contents) else ""
    return _PlaceOrReason(None, f"has changed: {kept.contents} when the study began, {other} now{differs}")


def _candidates(kept: KeptData, study: Path) -> Iterator[str]:
    yield from _spellings(kept.root)
    yield kept.at
    if not Path(kept.root).is_absolute():
        yield from (str(folder / place) for folder in study.resolve().parents for place in _spellings(kept.root))


def _spellings(root: str) -> tuple[str, ...]:
    """A root as it is written, and for one that was written on Windows as it is here."""
    return tuple(dict.fromkeys((root, root.replace("\\", "/"))))


def at_places(recipe: Recipe, places: Places) -> Recipe:
    """A recipe with the roots where its images are now."""

    def moved(settings: S) -> S:
        return dataclasses.replace(settings, root=places.get((settings.name, settings.root or ""), settings.root))

    match recipe:
        case PretrainRecipe(stimuli=stimuli, also=also):
            return dataclasses.replace(recipe, stimuli=moved(stimuli), also=tuple(map(moved, also)))
        case TrainRecipe(target=target):
            return dataclasses.replace(recipe, target=moved(target))


def refuse(lines: list[str], out: Path) -> None:
    """UserError if there are any lines of `find_data`."""
    if lines:
        raise UserError(
            f"{'; '.join(lines)}: bring back what the study {out} began with, or choose another folder with --out for "
            "a study of other images; reports of what is finished need none"
        )
