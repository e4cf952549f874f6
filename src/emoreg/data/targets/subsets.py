"""Parts of a target, cut the same way for every set: some of its classes, and a test split if it has none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emoreg.data.images.splits import split_rows
from emoreg.data.images.table import Table
from emoreg.errors import SettingError, UserError, nearest


def keep_classes(
    table: Table, classes: Sequence[str], kept: Sequence[str], split: str, may_lack: bool = False
) -> Table:
    """The images of some classes only, labelled by the place of their class in `kept`.

    Args:
        table: labels are indices into `classes`.
        classes: names, all different.
        kept: those to keep, in the order of the new labels.
        split: name of this split, for messages.
        may_lack: whether a class may have no images in it.

    Raises:
        UserError: a name that is not in `classes` (the nearest is named); a class without images.
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
    """Training and test table of a set that is published without a test split: always the same fifth is held out.

    Classes are kept in proportion; the image of a class that has one only is trained on. Images without one class,
    labelled (N, E), are cut without regard to their labels.
    """
    if table.labels.ndim != 1:
        train, test = split_rows(table.labels, share=0.2, seed=0)
        if not len(test):
            raise UserError(f"{table.name} has {len(table)} images, of which no fifth can be held out for testing")
        return table.take(train), table.take(test)
    single = np.bincount(table.labels)[table.labels] < 2
    rows = np.flatnonzero(~single)
    train, test = split_rows(table.labels[rows], share=0.2, seed=0)
    return table.take(np.sort(np.concatenate([np.flatnonzero(single), rows[train]]))), table.take(rows[test])
