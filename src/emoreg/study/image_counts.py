"""How many images the runs of a plan have, found before anything is timed; a set that cannot be read is told of."""

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
from emoreg.study.missing_sets import is_missing
from emoreg.study.stand_ins import stimuli_like, target_like


class Counts(NamedTuple):
    """Images of a run, each of them scored at the end."""

    train: int
    validation: int  # scored after each epoch too
    test: int


@dataclass(frozen=True)
class CountedSets:
    """What is known of the image sets of some recipes.

    Args:
        counts: by their settings; of sets that are not here, as published.
        faults: why a set that is here cannot be used, in a line, by its settings.
    """

    counts: Mapping[Settings, Counts]
    faults: Mapping[Settings, str]

    def of(self, recipe: Recipe) -> Counts | None:
        """Images of a run; None if a set cannot be read, or is not here and nobody has published its size."""
        sets: list[Settings] = [*recipe.sections.values()]
        if not all(each in self.counts for each in sets):
            return None
        return Counts(*map(sum, zip(*(self.counts[each] for each in sets), strict=True)))


def count_images(recipes: Iterable[Recipe], progress: Progress) -> CountedSets:
    """Read the tables of all image sets, each once; no image is decoded, but an empty file is found.

    A set that is not here is taken to have as many images as are published, and CIFAR is not downloaded.
    """
    sets: dict[Settings, None] = dict.fromkeys(settings for recipe in recipes for settings in recipe.sections.values())
    counts: dict[Settings, Counts] = {}
    faults: dict[Settings, str] = {}
    with progress.task("look at the images", len(sets), "sets") as advance:
        for settings in sets:
            try:
                counted = _count(settings)
            except UserError as error:
                faults[settings] = str(error)
            else:
                if counted is not None:
                    counts[settings] = counted
            advance(1)
    return CountedSets(counts, faults)


def _count(settings: Settings) -> Counts | None:
    """Of one set; None if it cannot be known."""
    return _of_target(settings) if isinstance(settings, TargetSettings) else _of_stimuli(settings)


def _of_target(settings: TargetSettings) -> Counts | None:
    if is_missing(settings):
        return None
    stand_in = target_like(settings)
    # A stand-in has no names of classes, which label noise may need; it leaves out no image.
    asked = settings if stand_in is None else dataclasses.replace(settings, label_noise="none", noise_share=None)
    target = stand_in or read_target(settings)
    train, held_out = training_part(target, asked, 0)
    tested = min(len(target.test), settings.test_limit or len(target.test)) if settings.test else 0
    counts = Counts(len(train), len(held_out or ()), tested)
    _refuse_empty(settings, counts.train + counts.validation, target.train, target.validation)
    _refuse_empty(settings, counts.test, target.test)
    return counts


def _of_stimuli(settings: StimuliSettings) -> Counts | None:
    stand_in = stimuli_like(settings)
    if stand_in is None and is_missing(settings):
        return None
    asked = settings
    if stand_in is not None:  # its labels are none, and of which images something is evoked nobody has published
        asked = dataclasses.replace(settings, labels="published", valence="all", arousal="all")
    stimuli = stand_in or read_stimuli(settings, 0)
    split = split_stimuli(stimuli, asked, 0, Progress(quiet=True))
    counts = Counts(len(split.train), len(split.validation or ()), len(split.test or ()))
    _refuse_empty(settings, sum(counts), stimuli)
    return counts


def _refuse_empty(settings: Settings, read: int, *parts: Table | Stimuli | None) -> None:
    """UserError for an empty file in parts of a set that a run reads all images of, so many as there are.

    Of those that it reads some of, its seed may leave that one out.
    """
    images = [part.images for part in parts if part is not None]
    if not settings.skip_unreadable and read == sum(map(len, images)):
        for each in images:
            refuse_empty(each)
