"""The data of stage 1: the stimuli with the labels of the pretext, and the task that is learned from them (ours)."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from emoreg.config.recipe import PretrainRecipe
from emoreg.data.given import GivenStimuli
from emoreg.data.images.batches import SetQuota
from emoreg.data.images.image_set import ImageSet, fits_memory, load_images
from emoreg.data.images.table import Table
from emoreg.data.stimuli import WITH_CLASSES
from emoreg.data.stimuli.stimulus_set import Labels, Stimuli, check_labels
from emoreg.runtime.progress import Progress
from emoreg.stages.affective_heads import Head, heads_of
from emoreg.stages.class_stimuli import read_stimuli
from emoreg.stages.pretext import (
    PretextTask,
    labelled_by_appearance,
    pretext_task,
    refuse_mixed_ratings,
    with_neutral_labels,
    with_shuffled_labels,
)
from emoreg.stages.stimulus_mixture import SplitStimuli, checked_quotas, join, refuse_one_class, split_stimuli, views

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Stage1Data(NamedTuple):
    """The stimuli of a recipe of stage 1, and the task that is learned from them."""

    splits: list[SplitStimuli]  # one per set, with the labels to learn
    heads: tuple[Head, ...]
    images: ImageSet  # the training images of all sets together, on the device
    parts: list[ImageSet]  # the training images of each set, with its own labels
    quotas: tuple[SetQuota, ...]  # images drawn from each set per epoch
    task: PretextTask

    @property
    def labels(self) -> str:
        """SHA-256 of the training labels as they were read; labels by appearance are still zeros then."""
        digest = hashlib.sha256()
        for split in self.splits:
            digest.update(repr((split.space.kind, split.space.names)).encode())
            digest.update(split.train.labels.tobytes())
        return digest.hexdigest()


def read_stage1_data(
    recipe: PretrainRecipe, fabric: Fabric, progress: Progress, given: GivenStimuli | None = None, verbose: bool = True
) -> Stage1Data:
    """Read the stimuli of a recipe and decode its training images.

    Args:
        recipe: of stage 1.
        fabric: device and precision.
        progress: reports images that are left out.
        given: user-supplied stimuli instead of `recipe.stimuli`.
        verbose: also report how each set was read.

    Raises:
        UserError: missing or malformed sets; labels that cannot be learned.
    """
    splits = _split_sets(recipe, given, progress, verbose)
    if recipe.pretext in ("affect", "shuffled"):
        for split in splits:
            refuse_one_class(split)
    if recipe.pretext == "shuffled":
        splits = with_shuffled_labels(splits, recipe.seed)
    elif recipe.pretext == "neutral":
        splits = with_neutral_labels(splits)
    refuse_mixed_ratings(splits, recipe.pretext, recipe.augment)
    heads = heads_of([(split.train.name, split.space) for split in splits])
    tables, limit = [split.train for split in splits], recipe.training.memory_limit_gib
    # Several sets are held in memory together or not at all.
    if not fits_memory(tables, recipe.stimuli.image_size, limit, progress):
        limit = 0.0
    loaded = [part for part in load_parts(tables, splits, recipe, limit, progress) if part]
    images = (join(loaded, heads) if len(heads) > 1 else loaded[0]).to(fabric.device)
    parts = views(images, loaded)
    quotas = checked_quotas(parts, splits)
    task = pretext_task(recipe.pretext, heads, [quota.per_epoch for quota in quotas], fabric)
    return Stage1Data(splits, heads, images, parts, quotas, task)


def load_parts(
    tables: Sequence[Table | None],
    splits: Sequence[SplitStimuli],
    recipe: PretrainRecipe,
    limit: float,
    progress: Progress,
) -> list[ImageSet | None]:
    """Decode the images of one part of each set, with the labels of the pretext; None for a set without this part.

    Args:
        tables: the part of each set.
        splits: the sets.
        recipe: image size and pretext are used.
        limit: for the decoded pixels of each set, in GiB.
        progress: shows how many images are decoded.
    """
    size, loaded = recipe.stimuli.image_size, list[ImageSet | None]()
    for table, split in zip(tables, splits, strict=True):
        settings = split.settings
        part = load_images(table, size, settings.skip_unreadable, limit, progress, settings.fit) if table else None
        has_placeholders = recipe.pretext == "neutral" and split.neutral is None
        loaded.append(labelled_by_appearance(part, progress) if part and has_placeholders else part)
    return loaded


def _split_sets(
    recipe: PretrainRecipe, given: GivenStimuli | None, progress: Progress, verbose: bool
) -> list[SplitStimuli]:
    """Read and split every set of the recipe; the first one is the caller's, if given."""
    splits = []
    for settings in recipe.sets:
        chosen = settings
        if given is not None and settings is recipe.stimuli:
            table, space = given
            check_labels(table, space)
            stimuli = Stimuli(table.name, table.images, (Labels(space, table.labels),))
            chosen = dataclasses.replace(settings, labels="published")
        else:
            if settings.name in WITH_CLASSES and verbose:
                progress.say(
                    f"{settings.name}: its classes are the stimuli of stage 1; they are not emotions, and only serve "
                    "positive controls"
                )
            stimuli = read_stimuli(settings, recipe.seed)
            if verbose:
                progress.report_notes(stimuli.notes, stimuli.left_out)
        splits.append(split_stimuli(stimuli, chosen, recipe.seed, progress, recipe.edition))
    return splits
