"""The image sets that a study asks for and that are not here, or cannot be read: what each is, and how it is got."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emoreg.config.recipe import PretrainRecipe, Recipe
from emoreg.data.images.table import About
from emoreg.data.stimuli import SETS
from emoreg.data.targets.cifar import ARCHIVES, download_note
from emoreg.errors import UserError
from emoreg.study.kept_data import Settings
from emoreg.study.plan import PlannedRun


@dataclass(frozen=True)
class MissingSet:
    """A set of which nothing is here, or that cannot be read.

    Args:
        name: of the set.
        root: as the study's file has it; None if it names none.
        asked_by: the entries that ask for it, such as "stimuli emoset".
        runs: of stage 1 and of stage 2 that read it.
        image_size: of the images that they see.
        about: what is known of it; None of a set of the user's own.
        fault: why it cannot be read, in a line; "" if nothing is here.
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
        """All that is needed to get it, in one line."""
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
    """The sets of these runs that are not here, in the order of the plan. Nothing is downloaded, or read.

    Args:
        planned: runs with the roots where their images are now.
        faults: why sets that are here cannot be read; these are among the result.
    """
    uses = (
        (f"stimuli {run.stimuli}" if isinstance(run.recipe, PretrainRecipe) else f"target {run.target}", settings)
        for run in planned
        for settings in run.recipe.sections.values()
    )
    return _missing(uses, faults or {})


def missing_sets_of(recipe: Recipe, faults: Mapping[Settings, str]) -> list[MissingSet]:
    """As `missing_sets`, of a recipe alone."""
    return _missing(((section, settings) for section, settings in recipe.sections.items()), faults)


def _missing(uses: Iterable[tuple[str, Settings]], faults: Mapping[Settings, str]) -> list[MissingSet]:
    """Of the sets, each with the entry that asks for it."""
    found: dict[tuple[str, str | None, str], MissingSet] = {}
    for entry, settings in uses:
        key = (settings.name, settings.root, faults.get(settings, ""))
        if key in found:
            known = found[key]
            asked_by = known.asked_by if entry in known.asked_by else (*known.asked_by, entry)
            found[key] = dataclasses.replace(known, asked_by=asked_by, runs=known.runs + 1)
        elif settings in faults or is_missing(settings):
            name, root, fault = key
            about = SETS[name][0] if name in SETS else None
            found[key] = MissingSet(name, root, (entry,), 1, settings.image_size, about, fault)
    return list(found.values())


def told(missing: Sequence[MissingSet]) -> list[str]:
    """A line for each set, below one with their number; no lines without any."""
    if not missing:
        return []
    count = f"{len(missing)} image set{'s' if len(missing) > 1 else ''}"
    what = f"{'are' if len(missing) > 1 else 'is'} not here"
    if all(each.fault for each in missing):
        what = "cannot be used as asked"
    elif any(each.fault for each in missing):
        what += " or cannot be used as asked"
    lines = [f"[{number}] {each.line}" for number, each in enumerate(missing, start=1)]
    return [f"{count} {what}, and needed before any run:", *lines]


def download_notes(recipes: Iterable[Recipe]) -> list[str]:
    """A line for each set of known size that is not here and that the first run downloads."""
    targets = (settings for recipe in recipes for settings in recipe.sections.values())
    sets = {(settings.name.lower(), settings.root) for settings in targets if settings.name.lower() in ARCHIVES}
    notes = (download_note(name, root) for name, root in sorted(sets, key=str))
    return [note for note in notes if note is not None]


def is_missing(settings: Settings) -> bool:
    """Whether a set is one that people must bring, and is not here; others are fetched when they are needed."""
    is_brought = settings.name in SETS or settings.name == "folder"
    return is_brought and (settings.root is None or not Path(settings.root).exists())


def refuse_missing(planned: Iterable[PlannedRun]) -> None:
    """UserError that names all sets of these runs that are not here."""
    if missing := missing_sets(planned):
        count = "an image set is" if len(missing) == 1 else f"{len(missing)} image sets are"
        raise UserError(
            f"{count} not here, and no run was begun (--only LABEL ... does the part whose sets are here): "
            + "; ".join(f"[{number}] {each.line}" for number, each in enumerate(missing, start=1))
        )
