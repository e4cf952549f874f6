"""Any images in folders: `[<split>/]<class>/*.jpg|png`, in a folder or in a zip (`images.layout`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emoreg.config.recipe import EDITION
from emoreg.data.images.layout import Layout, Part, find_layout
from emoreg.data.images.names import Split, composed
from emoreg.data.images.splits import split_rows
from emoreg.data.images.table import Table
from emoreg.data.targets.subsets import hold_out_fifth
from emoreg.data.targets.target import Target
from emoreg.errors import UserError, nearest, printable


def read_folder(root: str | Path, edition: int = EDITION) -> Target:
    """The task of a folder or zip.

    With train, val and test folders val is the validation split; with train and val alone val is the test split.
    Without splits a fifth of each class, always the same, becomes the test split.

    Args:
        root: folder or zip.
        edition: of the run; the first one left a third split alone, and cut sets without splits by `split_rows`.

    Raises:
        UserError: nothing at `root`, no images, fewer than two classes, a class without images in train or test.
    """
    layout = find_layout(root)
    layout.refuse_empty_folders()
    classes = layout.classes
    if len(classes) < 2:
        raise UserError(f"{root} holds one class only, '{classes[0]}'; a classifier needs two")
    if layout.whole is not None:
        table = _table(layout, layout.whole, classes)
        if edition == 1:
            train, test = (table.take(rows) for rows in split_rows(table.labels, 0.2, 0, edition))
        else:
            train, test = hold_out_fifth(table)
        note = layout.describe({"": layout.whole}, more=", of each class a fifth for testing")
        return Target(train, test, classes, None, (*layout.notes, note), layout.left_out)
    parts = dict(layout.splits)
    if "test" not in parts and "validation" in parts:
        parts["test"] = parts.pop("validation")
    needed: tuple[Split, Split] = ("train", "test")
    for split, other in (needed, needed[::-1]):
        if split not in parts:
            why = "; ".join(layout.left_out) or "without splits, give the folder of the classes as the root"
            raise UserError(f"{root} has a split '{other}' but no folder '{split}' with classes ({why})")
    for split in needed:
        for name in classes:
            if name not in parts[split].classes:
                raise UserError(f"{root}: class '{name}' has no images in the split '{parts[split].folder}'")
    tables = {split: _table(layout, part, classes) for split, part in parts.items()}
    note = layout.describe(parts)
    validation = tables.get("validation") if edition > 1 else None
    return Target(tables["train"], tables["test"], classes, validation, (*layout.notes, note), layout.left_out)


def read_for_scoring(
    root: str | Path, classes: tuple[str, ...], skip_others: bool = False
) -> tuple[Table, tuple[str, ...], tuple[str, ...]]:
    """The test split, labelled by place in `classes`, and lines on what was read and on what was left out.

    Without a test split it is the validation split; of a set without splits, or with a training split alone, all.

    Args:
        root: folder or zip.
        classes: the classifier's.
        skip_others: skip images of classes that are not in `classes`.

    Raises:
        UserError: as `read_folder`; a class that is not in `classes` (the nearest is named), or none that is.
    """
    own = tuple(map(composed, classes))
    layout = find_layout(root, own)
    part = layout.splits.get("test") or layout.splits.get("validation") or layout.parts[0]
    known = [(image, name) for image, name in zip(part.images, part.classes, strict=True) if name in own]
    others = len(part.images) - len(known)
    left_out = layout.left_out
    if not known or (others and not skip_others):
        image, name = next(pair for pair in zip(part.images, part.classes, strict=True) if pair[1] not in own)
        raise UserError(f"{image}: no class '{printable(name)}' in this run{nearest(name, own)}")
    if others:
        left_out += (f"{Path(root).name}: left out {others:,} images of classes that are not target.classes",)
    kept = Part(part.folder, tuple(image for image, _ in known), tuple(name for _, name in known))
    return _table(layout, kept, own), (*layout.notes, layout.describe({"scored on": kept})), left_out


def _table(layout: Layout, part: Part, classes: tuple[str, ...]) -> Table:
    index = {name: number for number, name in enumerate(classes)}
    return Table(layout.root.stem, list(part.images), np.array([index[name] for name in part.classes], np.int64))
