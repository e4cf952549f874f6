"""Count the images of the runs of a plan, and find sets that cannot be read, before anything is timed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from emoreg.config.recipe import Recipe
from emoreg.config.schema import StimuliSettings, TargetSettings
from emoreg.data.images.image_set import refuse_empty
from emoreg.data.images.table import Table
from emoreg.data.stimuli.stimulus_set import Stimuli
from emoreg.data.targets import read_target
from emoreg.data.targets.training_part import training_part
from emoreg.errors import UserError
from emoreg.runtime.progress import Progress
from emoreg.stages.class_stimuli import read_stimuli
from emoreg.stages.stimulus_mixture import split_stimuli
from emoreg.study.kept_data import Settings
from emoreg.study.missing_sets import download_note, is_missing
from emoreg.study.stand_ins import stimuli_like, target_like


class Counts(NamedTuple):
    """Numbers of images of a run; all of them are scored at the end."""

    train: int
    validation: int  # scored after each epoch too
    test: int


@dataclass(frozen=True)
class CountedSets:
    """The image sets of some recipes.

    Args:
        counts: numbers of images, by the settings of the set; the published numbers if the set is missing.
        faults: why an existing set cannot be used, in a line, by its settings.
    """

    counts: Mapping[Settings, Counts]
    faults: Mapping[Settings, str]

    def of(self, recipe: Recipe) -> Counts | None:
        """Numbers of images of a run; None if a set cannot be read, or is not here and of unknown size."""
        sets: list[Settings] = [*recipe.sections.values()]
        if not all(each in self.counts for each in sets):
            return None
        return Counts(*map(sum, zip(*(self.counts[each] for each in sets), strict=True)))


def count_images(recipes: Iterable[Recipe], progress: Progress) -> CountedSets:
    """Read the tables of all image sets, without decoding images; empty files are still found.

    A missing set is assumed to have the published number of images. Nothing is downloaded: the numbers of images of
    such sets, except for CIFAR, are unknown.
    """
    sets: dict[Settings, None] = dict.fromkeys(settings for recipe in recipes for settings in recipe.sections.values())
    counts: dict[Settings, Counts] = {}
    faults: dict[Settings, str] = {}
    with progress.task("look at the images", len(sets), "sets") as advance:
        for settings in sets:
            try:
                counted = _count_target(settings) if isinstance(settings, TargetSettings) else _count_stimuli(settings)
                if counted is not None:
                    counts[settings] = counted
            except UserError as error:
                faults[settings] = str(error)
            advance(1)
    return CountedSets(counts, faults)


def _count_target(settings: TargetSettings) -> Counts | None:
    if is_missing(settings):
        return None
    usable, target = settings, target_like(settings)
    if target is None:
        if download_note(settings) is not None:
            return None
        target = read_target(settings)
    else:  # a stand-in has no names of classes, which label noise may need; noise leaves out no image
        usable = dataclasses.replace(settings, label_noise="none", noise_share=None)
    train, held_out = training_part(target, usable, 0)
    tested = min(len(target.test), settings.test_limit or len(target.test)) if settings.test else 0
    counts = Counts(len(train), len(held_out or ()), tested)
    _refuse_empty(settings, counts.train + counts.validation, target.train, target.validation)
    _refuse_empty(settings, counts.test, target.test)
    return counts


def _count_stimuli(settings: StimuliSettings) -> Counts | None:
    usable, stimuli = settings, stimuli_like(settings)
    if stimuli is None:
        if is_missing(settings) or download_note(settings) is not None:
            return None
        stimuli = read_stimuli(settings, 0)
    else:  # the labels of a stand-in are random, and must not select images
        usable = dataclasses.replace(settings, labels="published", valence="all", arousal="all")
    split = split_stimuli(stimuli, usable, 0, Progress(quiet=True))
    counts = Counts(len(split.train), len(split.validation or ()), len(split.test or ()))
    _refuse_empty(settings, sum(counts), stimuli)
    return counts


def _refuse_empty(settings: Settings, read: int, *parts: Table | Stimuli | None) -> None:
    """Raise UserError for an empty file in parts of a set, if runs read all of its images.

    If they read only some, the seed may leave that file out.
    """
    images = [part.images for part in parts if part is not None]
    if not settings.skip_unreadable and read == sum(map(len, images)):
        for each in images:
            refuse_empty(each)
