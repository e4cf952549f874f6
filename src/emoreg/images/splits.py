"""Cutting a table in two, by seed and with the classes in proportion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emoreg.errors import UserError
from emoreg.images.table import Table
from emoreg.randomness import derive_seed


def cut_validation(table: Table, share: float, limit: int | None, seed: int) -> tuple[Table, Table | None]:
    """Training and validation part of `table`, the same for every arm of a study with this seed.

    Args:
        table: the training images of a set; its test images are not here.
        share: of the validation part, in [0, 1); None is returned for a part of no images.
        limit: keep at most this many training images (and, in proportion, validation images).
        seed: of both cuts.
    """
    train, held_out = split_rows(table.labels, share, derive_seed(seed, "validation"))
    if len(train) == 0:
        raise UserError(f"{table.name}: a validation share of {share} leaves none of {len(table)} images to train on")
    if limit is not None and limit < len(train):
        part = limit / len(train)
        train = train[_subset(table.labels[train], part, derive_seed(seed, "limit"))]
        held_out = held_out[_subset(table.labels[held_out], part, derive_seed(seed, "limit"))]
    return table.take(train), table.take(held_out) if len(held_out) else None


def _subset(labels: NDArray[np.int64] | NDArray[np.float32], part: float, seed: int) -> NDArray[np.int64]:
    return split_rows(labels, part, seed)[1]


def split_rows(
    labels: NDArray[np.int64] | NDArray[np.float32], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the larger and of the smaller part, `share` in the smaller; classes kept in proportion.

    Class labels are stratified where every class has at least two images and the parts can hold all classes.
    """
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(labels))
    held_out = round(share * len(labels))
    if held_out == 0:
        return rows, rows[:0]
    if held_out >= len(labels):
        return rows[:0], rows
    classes, counts = np.unique(labels, return_counts=True) if labels.ndim == 1 else (rows, rows[:0])
    can_stratify = labels.ndim == 1 and counts.min() >= 2 and min(held_out, len(labels) - held_out) >= len(classes)
    larger, smaller = train_test_split(
        rows, test_size=held_out, random_state=seed % 2**32, stratify=labels if can_stratify else None
    )
    return np.sort(larger), np.sort(smaller)
