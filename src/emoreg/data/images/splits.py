"""Cutting a table in two, by seed and with the classes in proportion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emoreg.data.images.table import Table
from emoreg.errors import UserError
from emoreg.runtime.seeding import derive_seed


def cut_validation(
    table: Table,
    share: float,
    limit: int | None,
    seed: int,
    per_class: int | None = None,
    classes: Sequence[str] = (),
) -> tuple[Table, Table | None]:
    """Training and validation part of `table`, the same for every arm of a study with this seed.

    Args:
        table: the training images of a set, without its test images.
        share: share of the validation part, in [0, 1); None is returned for an empty part.
        limit: keep at most this many training images (and, in proportion, validation images).
        seed: seed of all cuts.
        per_class: keep this many training images of each class. The validation part does not depend on it,
            and the images for a smaller number are among those for a larger one.
        classes: class names, for messages.

    Raises:
        UserError: nothing is left to train on, or a class has fewer than `per_class` images.
    """
    train, held_out = split_rows(table.labels, share, derive_seed(seed, "validation"))
    if len(train) == 0:
        raise UserError(f"{table.name}: a validation share of {share} leaves none of {len(table)} images to train on")
    part = 1.0 if limit is None else limit / len(train)
    if per_class is not None:
        train = _few(table, train, per_class, derive_seed(seed, "per_class"), classes)
    if part < 1:
        held_out = held_out[_subset(table.labels[held_out], part, derive_seed(seed, "limit"))]
    if limit is not None and limit < len(train):
        train = train[_subset(table.labels[train], limit / len(train), derive_seed(seed, "limit"))]
    return table.take(train), table.take(held_out) if len(held_out) else None


def _few(table: Table, rows: NDArray[np.int64], per_class: int, seed: int, classes: Sequence[str]) -> NDArray[np.int64]:
    """`per_class` of the `rows` of each class, in order."""
    shuffled = np.random.default_rng(seed).permutation(rows)
    kept = []
    for label in np.unique(table.labels):
        of_class = shuffled[table.labels[shuffled] == label]
        if len(of_class) < per_class:
            name = classes[label] if classes else label
            raise UserError(
                f"{table.name}: class '{name}' has {len(of_class)} training images after validation; "
                f"target.per_class is {per_class}"
            )
        kept.append(of_class[:per_class])
    return np.sort(np.concatenate(kept))


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
