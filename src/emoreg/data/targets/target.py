"""What the reader of any target returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emoreg.config.setting_types import typed_value
from emoreg.data.images.table import Table
from emoreg.errors import SettingError, UserError, is_plain

GIVEN_IMAGES = "given:"  # before the name of a target that a caller brings; no set is called so


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


def check_target(target: Any) -> None:
    """UserError for a caller's own images that are no classification task; says what is wrong where."""
    if not isinstance(target, Target):
        hint = "emoreg.Target(train, test, classes), each part an emoreg.Table"
        raise SettingError("data", f"must be {hint}, not a {type(target).__name__}")
    classes = typed_value(tuple[str, ...], target.classes, "data.classes")
    if len(set(classes)) != len(classes) or len(classes) < 2 or not all(map(is_plain, classes)):
        raise SettingError("data.classes", "must name at least two classes, each once and without control characters")
    parts = {"train": target.train, "test": target.test, "validation": target.validation}
    for part, table in (("test", target.test), ("validation", target.validation)):
        if isinstance(table, Table) and isinstance(target.train, Table) and table.images is target.train.images:
            raise SettingError(
                f"data.{part}", "has the very images of data.train; an accuracy on them would say nothing"
            )
    for part, table in parts.items():
        if table is None and part == "validation":
            continue
        if not isinstance(table, Table):
            raise SettingError(f"data.{part}", f"must be an emoreg.Table, not a {type(table).__name__}")
        if table.labels.ndim != 1:
            raise UserError(f"{table.name}: labels must be class indices, int64 (N,), not {table.labels.dtype} values")
        lowest, highest = int(table.labels.min()), int(table.labels.max())
        if lowest < 0 or highest >= len(classes):
            wrong = lowest if lowest < 0 else highest
            raise UserError(
                f"{table.name}: labels must be 0 to {len(classes) - 1} with {len(classes)} classes, not {wrong}"
            )
