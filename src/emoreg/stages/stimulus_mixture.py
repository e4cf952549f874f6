"""Splitting stimulus sets into training, validation and test images, and joining several sets (ours)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emoreg.config.recipe import EDITION
from emoreg.config.schema import StimuliSettings
from emoreg.data.images.batches import SetQuota, epoch_quotas
from emoreg.data.images.image_set import ImageSet
from emoreg.data.images.splits import at_most, classes_without, first_of_each, keep_rows, split_rows
from emoreg.data.images.table import Table
from emoreg.data.stimuli.emotion import EmotionSpace
from emoreg.data.stimuli.evoked import describe_evoking, evoking
from emoreg.data.stimuli.stimulus_set import Labels, Stimuli, check_labels, choose_labels, describe_outvoted
from emoreg.errors import UserError
from emoreg.runtime.progress import Progress
from emoreg.runtime.seeding import derive_seed
from emoreg.stages.affective_heads import Head, joint_labels


@dataclass(frozen=True)
class SplitStimuli:
    """A stimulus set with the chosen labels, split into disjoint parts.

    Args:
        settings: of the set.
        space: of the labels.
        train: training images.
        validation: measured after each epoch, may guide choices; None without images.
        test: measured once, at the end; None if none is published.
        left_out: number of images without such a label.
        rows: of the training, validation and test images, in the whole set.
        neutral: published labels that are not emotions, of all images of the set; None without them.
    """

    settings: StimuliSettings
    space: EmotionSpace
    train: Table
    validation: Table | None
    test: Table | None
    left_out: int
    rows: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
    neutral: Labels | None

    def relabelled(self, labels: Labels) -> SplitStimuli:
        """Replace the labels of the images; `labels` are those of the whole set."""
        train, validation, test = (labels.values[rows] for rows in self.rows)
        return replace(
            self,
            space=labels.space,
            train=replace(self.train, labels=train),
            validation=self.validation and replace(self.validation, labels=validation),
            test=self.test and replace(self.test, labels=test),
        )


def split_stimuli(
    stimuli: Stimuli, settings: StimuliSettings, seed: int, progress: Progress, edition: int = EDITION
) -> SplitStimuli:
    """Split a set, with the labels that the settings choose.

    Args:
        stimuli: the whole set.
        settings: labels, valence, arousal, validation, share and limits are used.
        seed: of the splits.
        progress: reports how many images have no such label, or one by other votes than most; and classes that a
            split leaves without images.
        edition: of the run, see `split_rows`.

    Raises:
        UserError: the labels cannot be derived; a label is out of range; valence or arousal are unknown; no training
            image is left.
    """
    table, space, rows = choose_labels(stimuli, settings.labels)
    check_labels(table, space)
    left_out = len(stimuli.images) - len(rows)
    if left_out:
        progress.say(
            f"{stimuli.name}: skipped {left_out} of {len(stimuli.images)} images whose labels give no "
            f"{settings.labels} (ties, or emotions without a counterpart)"
        )
    progress.report_notes(describe_outvoted(stimuli, settings.labels))
    if evoked := describe_evoking(settings.valence, settings.arousal):
        kept = evoking(stimuli, settings.valence, settings.arousal)[rows]
        progress.report_notes(
            [f"{stimuli.name}: {kept.sum():,} of {len(rows):,} images are {evoked}; the others are left out"]
        )
        if settings.valence != "all" and not any("valence" in labels.space.names for labels in stimuli.labels):
            progress.report_notes(describe_outvoted(stimuli, "polarity"))
        table, rows = table.take(np.flatnonzero(kept)), rows[kept]
    part = _parts(stimuli, settings.validation, seed, edition)[rows]
    train, validation, test = (np.flatnonzero(part == name) for name in ("train", "validation", "test"))
    if len(train) == 0:
        hint = "check its train split" if stimuli.splits else "lower stimuli.validation"
        raise UserError(
            f"{stimuli.name}: no training images; of {len(table)} labelled ones, {len(validation)} are for "
            f"validation and {len(test)} for testing: {hint}"
        )
    labels = table.labels
    if settings.validation and space.kind == "category":
        cause = "its validation split" if stimuli.splits else f"a validation share of {settings.validation:g}"
        lost = classes_without(stimuli.name, labels, labels[validation], space.names, cause, "validation images")
        progress.report_notes(lost)
    if settings.test_limit is not None:
        test = at_most(test, labels, settings.test_limit, seed)
    if settings.share is not None:
        train = _share(stimuli.labels[0], rows, train, settings.share, derive_seed(seed, "share"))
    if settings.limit is not None and settings.limit < len(train):
        share, limit_seed = settings.limit / len(train), derive_seed(seed, "limit")
        limited = train[keep_rows(labels[train], share, limit_seed, edition)]
        validation = validation[keep_rows(labels[validation], share, limit_seed, edition)]
        cause = f"a limit of {settings.limit:,}"
        lost = classes_without(stimuli.name, labels[train], labels[limited], space.names, cause, "training images")
        progress.report_notes(lost)
        train = limited
    return SplitStimuli(
        settings,
        space,
        table.take(train),
        table.take(validation) if len(validation) else None,
        table.take(test) if len(test) else None,
        left_out,
        (rows[train], rows[validation], rows[test]),
        stimuli.neutral,
    )


def _share(
    published: Labels, rows: NDArray[np.int64], train: NDArray[np.int64], share: float, seed: int
) -> NDArray[np.int64]:
    """Draw a share of the training images (indices of `rows`), stratified by the published labels if categorical.

    The published labels, so that a set that is learned twice with different labels gives the same images to both.
    """
    strata = np.zeros(len(rows), np.int64)
    if published.space.kind == "category":
        strata = np.unique(published.values[rows], return_inverse=True)[1]
    sizes = np.bincount(strata[train])
    kept = np.minimum(np.maximum(np.round(share * sizes).astype(np.int64), 1), sizes)
    return first_of_each(strata, train, kept, seed)


def refuse_one_class(split: SplitStimuli) -> None:
    """Raise UserError if all training images have the same class, with which nothing would be learned."""
    labels = split.train.labels
    if split.space.kind == "dimensions":
        return
    classes = np.unique(labels) if split.space.kind == "category" else np.flatnonzero(labels.sum(axis=0))
    if len(classes) < 2:
        choice = split.settings.labels
        by = "" if choice == "published" else f" by stimuli.labels {choice}"
        raise UserError(
            f"{split.train.name}: all {len(labels)} training images are '{split.space.names[int(classes[0])]}'{by}; "
            "stage 1 needs at least two classes: check the labels and splits, or choose other stimuli.labels"
        )


def _parts(stimuli: Stimuli, share: float, seed: int, edition: int) -> NDArray[np.str_]:
    """The part of each image, as published or drawn (N,).

    Draws are stratified by the published labels, whichever labels are chosen: an image is always in the same part, so
    that no head trains the encoder on images that another head is measured on.
    """
    parts = np.array(stimuli.splits or ["train"] * len(stimuli.images), dtype="U10")
    if not (parts == "validation").any():
        rows = np.flatnonzero(parts == "train")
        _, held_out = split_rows(stimuli.labels[0].values[rows], share, derive_seed(seed, "validation"), edition)
        parts[rows[held_out]] = "validation"
    return parts


def checked_quotas(images: Sequence[ImageSet], splits: Sequence[SplitStimuli]) -> tuple[SetQuota, ...]:
    """Return the numbers of images drawn from each set per epoch. Raise UserError for a set that gets none."""
    weights = [split.settings.weight for split in splits if split.settings.weight is not None]
    quotas = epoch_quotas([len(part) for part in images], weights or None)
    for split, quota in zip(splits, quotas, strict=True):
        if quota.per_epoch == 0:
            raise UserError(
                f"{split.train.name}: its weight, {split.settings.weight:g} of {sum(weights):g} in all, gives it none "
                f"of the {sum(quota.count for quota in quotas)} images of an epoch; raise it"
            )
    return quotas


def join(parts: Sequence[ImageSet], heads: Sequence[Head]) -> ImageSet:
    """Concatenate several sets, with `joint_labels`; in memory only if all of them are."""
    labels = joint_labels([part.labels for part in parts], heads)
    images = _Concatenated([part.table.images for part in parts])
    table = Table(" + ".join(head.name for head in heads), images, labels.cpu().numpy())
    held = [part.pixels for part in parts if part.pixels is not None]
    pixels = torch.cat(held) if len(held) == len(parts) else None
    return ImageSet(table, parts[0].image_size, pixels, labels, parts[0].fit)


def views(joined: ImageSet, parts: Sequence[ImageSet]) -> list[ImageSet]:
    """Recover the parts with their own labels; their pixels are views of the pixels of `joined`."""
    pixels = [None] * len(parts) if joined.pixels is None else joined.pixels.split([len(part) for part in parts])
    device = joined.labels.device
    return [replace(part, pixels=own, labels=part.labels.to(device)) for part, own in zip(parts, pixels, strict=True)]


class _Concatenated(Sequence[Any]):
    """A sequence of concatenated sequences, without copying them."""

    def __init__(self, parts: Sequence[Sequence[Any] | NDArray[Any]]) -> None:
        self.parts, self.ends = parts, list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, row: Any) -> Any:
        part = bisect_right(self.ends, row)
        return self.parts[part][row - (self.ends[part - 1] if part else 0)]
