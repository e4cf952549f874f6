"""The images that a run trains on, of all that a target has: what is left of them, and which labels are wrong (ours).

All of it follows from the run's seed and its settings of the target, so that every arm of a seed trains on the same
images with the same labels. Test images stay as they are, and so do the labels of validation images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from emoreg.config.label_noise import DRAWN_NOISE
from emoreg.config.recipe import EDITION
from emoreg.config.schema import TargetSettings
from emoreg.data.images.splits import Rows, cut_validation, first_of_each
from emoreg.data.images.table import Table
from emoreg.data.targets.human_labels import human_labels
from emoreg.data.targets.label_noise import noisy_labels
from emoreg.data.targets.target import Target
from emoreg.errors import SettingError, UserError
from emoreg.runtime.progress import Progress
from emoreg.runtime.seeding import derive_seed


def training_part(
    target: Target, settings: TargetSettings, seed: int, edition: int = EDITION, progress: Progress | None = None
) -> tuple[Table, Table | None]:
    """The training images with the labels that they are trained with, and the validation images; None without any.

    Args:
        target: the whole task, or the classes of it that are kept.
        settings: validation, per_class, share, imbalance, limit and label noise are used.
        seed: of the run.
        edition: of the run, see `split_rows`.
        progress: says which classes are in one part only, and how many labels are wrong; None for silence.

    Raises:
        UserError: nothing is left to train on, a class has too few images, or label noise has no meaning here.
    """
    whole, classes = target.train, target.classes
    has_fewer = settings.per_class is not None or settings.share is not None or settings.imbalance is not None
    thin = partial(_fewer, whole, settings, classes, seed) if has_fewer else None
    rows, held_out = cut_validation(
        whole, settings.validation, settings.limit, seed, thin, classes, target.validation, edition, progress
    )
    train = whole.take(rows)
    if settings.label_noise != "none":
        if settings.label_noise in DRAWN_NOISE:
            labels = noisy_labels(train, settings, classes, derive_seed(seed, "label noise"))
        else:
            labels = human_labels(whole, settings)[rows]
        if progress is not None:
            wrong = int(np.count_nonzero(labels != train.labels))
            what = f"{whole.name}: {settings.label_noise} label noise"
            progress.tell([f"{what}: {wrong:,} of {len(train):,} training labels are wrong"])
        train = replace(train, labels=labels)
    source = target.validation or whole
    return train, source.take(held_out) if len(held_out) else None


def _fewer(table: Table, settings: TargetSettings, classes: Sequence[str], seed: int, rows: Rows) -> Rows:
    """The rows to train on that are kept. SettingError for too few images of a class, or no classes."""
    has_classes = table.labels.ndim == 1
    if not has_classes and (asked := "per_class" if settings.per_class else "imbalance" if settings.imbalance else ""):
        raise SettingError(f"target.{asked}", f"must be null: {table.name} has no classes")
    labels = table.labels.astype(np.int64) if has_classes else np.zeros(len(table), np.int64)
    kept = sizes = np.bincount(labels[rows], minlength=len(classes) if has_classes else 1)
    if settings.per_class is not None:
        there = np.bincount(labels, minlength=len(classes)) > 0
        kept = _per_class(table, np.where(there, sizes, -1), settings.per_class, classes)
    elif settings.share is not None:
        kept = np.minimum(np.maximum(np.round(settings.share * sizes).astype(np.int64), 1), sizes)
    if settings.imbalance is not None:
        kept = _long_tail(table, kept, settings.imbalance, classes)
    return first_of_each(labels, rows, kept, derive_seed(seed, "per_class"))


def _per_class(table: Table, sizes: Rows, per_class: int, classes: Sequence[str]) -> Rows:
    """So many of each class; none of a class that the set has no images of, whose size is -1."""
    for label in np.flatnonzero((sizes >= 0) & (sizes < per_class)).tolist():
        raise UserError(
            f"{table.name}: class '{classes[label]}' has {sizes[label]} training images after validation; "
            f"target.per_class is {per_class}"
        )
    return np.where(sizes < 0, 0, per_class)


def _long_tail(table: Table, sizes: Rows, factor: float, classes: Sequence[str]) -> Rows:
    """n · factor^(-k / (K - 1)), rounded down, with n the smallest class's size (Cui et al. 2019, section 5.1)."""
    largest = int(sizes.min())
    # A hair above, so that the last class of 1,000 images at a factor of 10 has 100 and not 99.
    kept = np.floor(largest * factor ** (-np.arange(len(sizes)) / (len(sizes) - 1)) + 1e-9).astype(np.int64)
    if kept[-1] == 0:
        raise SettingError(
            "target.imbalance",
            f"{factor:g} leaves class '{classes[int(np.argmin(kept))]}' of {table.name} without training images: the "
            f"smallest class has {largest:,}, and the factor cannot be larger than that",
        )
    return kept
