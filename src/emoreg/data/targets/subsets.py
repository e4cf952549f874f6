"""Subsets of a target: some of its classes, and a test split for sets without one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emoreg.data.images.splits import split_rows
from emoreg.data.images.table import Table
from emoreg.errors import SettingError, UserError, nearest


def keep_classes(
    table: Table, classes: Sequence[str], kept: Sequence[str], split: str, may_lack: bool = False
) -> Table:
    """Keep only the images of some classes, with labels as indices into `kept`.

    Args:
        table: images with labels as indices into `classes`.
        classes: class names, all different.
        kept: names of the classes to keep.
        split: name of this split, for messages.
        may_lack: whether a class may have no images in this split.

    Raises:
        UserError: `classes` lacks a name, or a class has no images.
    """
    new_labels = np.full(len(classes), -1, np.int64)
    for label, name in enumerate(kept):
        if name not in classes:
            raise SettingError("target.classes", f"{table.name} has no class '{name}'{nearest(name, classes)}")
        old_label = list(classes).index(name)
        if not may_lack and not np.any(table.labels == old_label):
            raise UserError(f"{table.name}: class '{name}' has no images in the {split} split")
        new_labels[old_label] = label
    labels = new_labels[table.labels.astype(np.int64)]
    rows = np.flatnonzero(labels >= 0)
    return Table(table.name, table.take(rows).images, labels[rows])


def hold_out_fifth(table: Table) -> tuple[Table, Table]:
    """Split a set without a published test split into training and test images, always in the same way.

    The split is stratified by class, and the only image of a class is trained on. Labels (N, E) are not stratified.
    """
    rows = np.arange(len(table))
    if table.labels.ndim == 1:
        rows = np.flatnonzero(np.bincount(table.labels)[table.labels] > 1)
    test = rows[split_rows(table.labels[rows], share=0.2, seed=0)[1]]
    if not len(test):
        raise UserError(f"{table.name} has {len(table)} images, too few to hold out a fifth for testing")
    return table.take(np.setdiff1d(np.arange(len(table)), test)), table.take(test)
