"""Find the image sets of a study that are missing or cannot be read, and describe how to get them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emoreg.config.recipe import PretrainRecipe, Recipe
from emoreg.config.schema import TargetSettings
from emoreg.data.embedded import refuse_root
from emoreg.data.images import hugging_face
from emoreg.data.images.table import About
from emoreg.data.stimuli import SETS
from emoreg.data.targets import cifar, torchvision_sets
from emoreg.errors import UserError
from emoreg.study.kept_data import Settings
from emoreg.study.plan import PlannedRun


@dataclass(frozen=True)
class MissingSet:
    """A set that is missing or cannot be read.

    Args:
        name: of the set.
        root: in the study's file; None if it has none.
        asked_by: the entries that use it, such as "stimuli emoset".
        runs: number of runs, of both stages, that read it.
        image_size: pixels a side, of the first run that reads it.
        about: its size, licence and source; None for the user's own set.
        fault: why it cannot be read, in a line; "" if it is missing.
    """

    name: str
    root: str | None
    asked_by: tuple[str, ...]
    runs: int
    image_size: int
    about: About | None
    fault: str = ""

    @property
    def line(self) -> str:
        """Instructions to get the set, in one line."""
        place = self.fault or (f"nothing at {self.root}" if self.root else "no root is given")
        asked = f"{' and '.join(self.asked_by)} ({self.runs:,} run{'s' if self.runs > 1 else ''}): {place}"
        if self.fault:
            return asked
        if self.about is None:
            return f"{asked}: put it there, or correct root"
        about, out = self.about, self.root or f"data/{self.name}-{self.image_size}"
        return (
            f"{asked}. {about.title}, images: {about.size}; licence: {about.licence}; from: {about.source}. Its root "
            f"is a folder or zip with {about.layout}; or a pack of that, decoded once for all runs: emoreg data pack "
            f"{self.name} --root FOLDER --image-size {self.image_size} --out {out}"
        )


def missing_sets(planned: Iterable[PlannedRun], faults: Mapping[Settings, str] | None = None) -> list[MissingSet]:
    """Find the missing sets of these runs, in the order of the plan, without downloading or reading anything.

    Args:
        planned: runs with the current roots of their images.
        faults: why existing sets cannot be read; these are included.
    """
    uses = (
        (f"stimuli {run.stimuli}" if isinstance(run.recipe, PretrainRecipe) else f"target {run.target}", settings)
        for run in planned
        for settings in run.recipe.sections.values()
    )
    return _missing(uses, faults or {})


def missing_sets_of(recipe: Recipe, faults: Mapping[Settings, str]) -> list[MissingSet]:
    """Find the missing sets of one recipe; see `missing_sets`."""
    return _missing(((section, settings) for section, settings in recipe.sections.items()), faults)


def _missing(uses: Iterable[tuple[str, Settings]], faults: Mapping[Settings, str]) -> list[MissingSet]:
    """Collect missing sets from pairs of an entry and the set that it uses."""
    missing: dict[tuple[str, str | None, str], MissingSet] = {}
    for entry, settings in uses:
        key = (settings.name, settings.root, faults.get(settings, ""))
        if key in missing:
            known = missing[key]
            asked_by = known.asked_by if entry in known.asked_by else (*known.asked_by, entry)
            missing[key] = dataclasses.replace(known, asked_by=asked_by, runs=known.runs + 1)
        elif settings in faults or is_missing(settings):
            name, root, fault = key
            about = SETS[name][0] if name in SETS else None
            missing[key] = MissingSet(name, root, (entry,), 1, settings.image_size, about, fault)
    return list(missing.values())


def describe_missing(missing: Sequence[MissingSet]) -> list[str]:
    """List missing sets, a line each, below a line with their number; no lines if there are none."""
    if not missing:
        return []
    count = f"{len(missing)} image set{'s' if len(missing) > 1 else ''}"
    what = f"{'are' if len(missing) > 1 else 'is'} not here"
    if all(each.fault for each in missing):
        what = "cannot be used with these settings"
    elif any(each.fault for each in missing):
        what += " or cannot be used with these settings"
    lines = [f"[{number}] {each.line}" for number, each in enumerate(missing, start=1)]
    return [f"{count} {what}, and needed before any run:", *lines]


def download_notes(recipes: Iterable[Recipe]) -> list[str]:
    """A line for each set that the first run downloads."""
    used = (settings for recipe in recipes for settings in recipe.sections.values())
    sets = {(settings.name.lower(), settings.root): settings for settings in used}
    notes = (download_note(sets[key]) for key in sorted(sets, key=str))
    return [note for note in notes if note is not None]


def download_note(settings: Settings) -> str | None:
    """A line about the download that reading a set would start; None if nothing has to be downloaded."""
    name = settings.name.lower()
    if name in cifar.ARCHIVES:
        return cifar.download_note(name, settings.root)
    if isinstance(settings, TargetSettings) and name in torchvision_sets.SETS:
        return torchvision_sets.download_note(name, settings.root)
    if name.startswith(hugging_face.PREFIX):
        return hugging_face.download_note(settings.name, settings.root)
    return None


def is_missing(settings: Settings) -> bool:
    """Return whether a set is missing that the user must provide; other sets are downloaded when they are needed."""
    is_users = settings.name in SETS or settings.name == "folder"
    return is_users and (settings.root is None or not Path(settings.root).exists())


def refuse_missing(planned: Sequence[PlannedRun], advice: str = "") -> None:
    """Raise UserError if sets of these runs are missing, or have a root that is not read.

    Args:
        planned: runs with the current roots of their images.
        advice: what can be done without the sets; follows how many there are. The error names all of them.
    """
    for run in planned:
        for settings in run.recipe.sections.values():
            refuse_root(settings)
    if missing := missing_sets(planned):
        count = "an image set is" if len(missing) == 1 else f"{len(missing)} image sets are"
        raise UserError(
            f"{count} not here, and no run was started{advice and f' ({advice})'}: "
            + "; ".join(f"[{number}] {each.line}" for number, each in enumerate(missing, start=1))
        )
