"""The part of a target that a run trains on: fewer images, long tails, and label noise (ours).

All of it depends only on the run's seed and target settings, so every arm of a seed trains on the same images with the
same labels. Test images, and the labels of validation images, are never changed.
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
    """Select the training images, with label noise if enabled, and the validation images; None without any.

    Args:
        target: the whole task, or the classes of it that are kept.
        settings: validation, per_class, share, imbalance, limit and label noise are used.
        seed: seed of the run.
        edition: edition of the run, see `split_rows`.
        progress: prints which classes a part lacks, and how many labels are wrong; None prints nothing.

    Raises:
        UserError: nothing is left to train on, a class has too few images, or label noise does not suit the target.
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
            kind = f"{settings.label_noise} label noise"
            progress.report_notes([f"{whole.name}: {kind}: {wrong:,} of {len(train):,} training labels are wrong"])
        train = replace(train, labels=labels)
    source = target.validation or whole
    return train, source.take(held_out) if len(held_out) else None


def _fewer(table: Table, settings: TargetSettings, classes: Sequence[str], seed: int, rows: Rows) -> Rows:
    """Select which of the candidate rows to train on. UserError for too few images of a class, or no classes."""
    if table.labels.ndim == 1:
        labels, count = table.labels.astype(np.int64), len(classes)
    else:  # one class of all images
        for key, value in (("per_class", settings.per_class), ("imbalance", settings.imbalance)):
            if value is not None:
                raise SettingError(f"target.{key}", f"must be null: {table.name} has no classes")
        labels, count = np.zeros(len(table), np.int64), 1
    kept = sizes = np.bincount(labels[rows], minlength=count)
    if settings.per_class is not None:
        exists = np.bincount(labels, minlength=count) > 0
        for label in np.flatnonzero(exists & (sizes < settings.per_class)).tolist():
            raise UserError(
                f"{table.name}: class '{classes[label]}' has {sizes[label]} training images after validation; "
                f"target.per_class is {settings.per_class}"
            )
        kept = np.where(exists, settings.per_class, 0)
    elif settings.share is not None:
        kept = np.minimum(np.maximum(np.round(settings.share * sizes).astype(np.int64), 1), sizes)
    if settings.imbalance is not None:
        kept = _long_tail(table, kept, settings.imbalance, classes)
    return first_of_each(labels, rows, kept, derive_seed(seed, "per_class"))


def _long_tail(table: Table, sizes: Rows, factor: float, classes: Sequence[str]) -> Rows:
    """n · factor^(-k / (K - 1)), rounded down, with n the smallest class's size (Cui et al. 2019, section 5.1)."""
    largest = int(sizes.min())
    # A small term against rounding errors: the last of 1,000 images at a factor of 10 must be 100, not 99.
    kept = np.floor(largest * factor ** (-np.arange(len(sizes)) / (len(sizes) - 1)) + 1e-9).astype(np.int64)
    if kept[-1] == 0:
        raise SettingError(
            "target.imbalance",
            f"{factor:g} leaves class '{classes[int(np.argmin(kept))]}' of {table.name} without training images: the "
            f"smallest class has {largest:,}, and the factor cannot be larger than that",
        )
    return kept
