"""What the reader of any target returns."""

from __future__ import annotations

from dataclasses import dataclass

from emoreg.data.images.table import Table


@dataclass(frozen=True)
class Target:
    """A classification task.

    Args:
        train: training images with class indices.
        test: test images.
        classes: the classes' names.
        validation: the published validation split; None for a set without one.
        notes: lines that say what was taken for what: splits, classes, images.
        left_out: lines that say which images below the root are in no table, and why.
        whole: number of classes of the whole set, of which `classes` may be some; None for all.
        has_published_test: whether the test images are a published test split, and not cut or brought by anybody.
    """

    train: Table
    test: Table
    classes: tuple[str, ...]
    validation: Table | None = None
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    whole: int | None = None
    has_published_test: bool = False
