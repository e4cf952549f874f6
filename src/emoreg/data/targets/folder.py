"""User-supplied images, `[<split>/]<class>/*.jpg|png` in a folder or in a zip; see `images.layout`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from emoreg.config.recipe import EDITION
from emoreg.data.images.layout import Layout, Part, find_layout
from emoreg.data.images.names import Split
from emoreg.data.images.splits import split_rows
from emoreg.data.images.table import Table
from emoreg.data.targets.subsets import hold_out_fifth
from emoreg.data.targets.target import Target
from emoreg.errors import UserError, nearest, printable


def read_folder(root: str | Path, edition: int = EDITION) -> Target:
    """Read the task of a folder or zip.

    With train, val and test folders, val is the validation split; with only train and val, val is the test split.
    Without splits, a fifth of each class, always the same, is the test split.

    Args:
        root: folder or zip.
        edition: edition of the run. The first ignores a third split, and splits sets without splits by `split_rows`.

    Raises:
        UserError: nothing at `root`, no images, fewer than two classes, or a class without images in train or test.
    """
    layout = find_layout(root)
    layout.refuse_empty_folders()
    classes = layout.classes
    if len(classes) < 2:
        raise UserError(f"{root} holds one class only, '{classes[0]}'; a classifier needs two")
    parts = dict(layout.parts)
    if None in parts:
        table = _table(layout, parts[None], classes)
        if edition == 1:
            train, test = (table.take(rows) for rows in split_rows(table.labels, 0.2, 0, edition))
        else:
            train, test = hold_out_fifth(table)
        note = layout.describe(parts, more=", a fifth of each class for testing")
        return Target(train, test, classes, None, (*layout.notes, note), layout.left_out)
    if "test" not in parts and "validation" in parts:
        parts["test"] = parts.pop("validation")
    _check_parts(layout, parts)
    tables = {split: _table(layout, part, classes) for split, part in parts.items()}
    note = layout.describe(parts)
    validation = tables.get("validation") if edition > 1 else None
    return Target(tables["train"], tables["test"], classes, validation, (*layout.notes, note), layout.left_out)


def _check_parts(layout: Layout, parts: Mapping[Split | None, Part]) -> None:
    """Raise UserError unless there are a training and a test split with images of all classes."""
    splits: tuple[Split, Split] = ("train", "test")
    for split, other in (splits, splits[::-1]):
        if split not in parts:
            why = "; ".join(layout.left_out) or "without splits, give the folder of the classes as the root"
            raise UserError(f"{layout.root} has a split '{other}' but no folder '{split}' with classes ({why})")
    for split in splits:
        for name in layout.classes:
            if name not in parts[split].classes:
                raise UserError(f"{layout.root}: class '{name}' has no images in the split '{parts[split].folder}'")


def read_for_scoring(
    root: str | Path, classes: tuple[str, ...], skip_others: bool = False
) -> tuple[Table, tuple[str, ...], tuple[str, ...]]:
    """Read the test split of a folder for a trained classifier, with labels as indices into `classes`.

    Without a test split, the validation split is read; without both, all images.

    Args:
        root: folder or zip.
        classes: the classifier's classes, in composed form.
        skip_others: skip images of other classes.

    Returns:
        The table, lines about how it was read, and lines about what was left out.

    Raises:
        UserError: nothing at `root`, no images, an unknown class unless `skip_others`, or no known class.
    """
    layout = find_layout(root, classes)
    part = layout.parts.get("test") or layout.parts.get("validation") or next(iter(layout.parts.values()))
    pairs = list(zip(part.images, part.classes, strict=True))
    known = [(image, name) for image, name in pairs if name in classes]
    others = [(image, name) for image, name in pairs if name not in classes]
    left_out = layout.left_out
    if others and (not known or not skip_others):
        image, name = others[0]
        raise UserError(f"{image}: no class '{printable(name)}' in this run{nearest(name, classes)}")
    if others:
        left_out += (f"{layout.root.name}: left out {len(others):,} images of classes that are not target.classes",)
    kept = Part(part.folder, tuple(image for image, _ in known), tuple(name for _, name in known))
    return _table(layout, kept, classes), (*layout.notes, layout.describe({"scored on": kept})), left_out


def _table(layout: Layout, part: Part, classes: tuple[str, ...]) -> Table:
    index = {name: number for number, name in enumerate(classes)}
    return Table(layout.root.stem, list(part.images), np.array([index[name] for name in part.classes], np.int64))
