"""What the reader of any target returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from emoreg.config.schema import Task
from emoreg.config.setting_types import typed_value
from emoreg.data.images.table import Table
from emoreg.errors import SettingError, UserError, is_plain

LARGE = 3.0  # a value beyond this is no standardised one, and no rating in [-1, 1]
GIVEN_IMAGES = "given:"  # before the name of a target that a caller brings; no set is called so


@dataclass(frozen=True, eq=False)  # arrays have no single truth of being equal
class Target:
    """A task: one class of each image, or several labels, or values.

    Args:
        train: training images with class indices; of several labels float32 (N, K), 1 where a label holds, else 0; of
            values float32 (N, K).
        test: test images.
        classes: K names, of the classes, labels or values.
        validation: the published validation split; None for a set without one.
        notes: lines that say what was taken for what: splits, classes, images.
        left_out: lines that say which images below the root are in no table, and why.
        whole: number of classes of the whole set, of which `classes` may be some; None for all.
        has_published_test: whether the test images are a published test split, and not cut or brought by anybody.
        task: what is answered.
    """

    train: Table
    test: Table
    classes: tuple[str, ...]
    validation: Table | None = None
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    whole: int | None = None
    has_published_test: bool = False
    task: Task = "classification"


def check_target(target: Any) -> None:
    """UserError for a caller's own images that are no task; says what is wrong where."""
    if not isinstance(target, Target):
        hint = "emoreg.Target(train, test, classes), each part an emoreg.Table"
        raise SettingError("data", f"must be {hint}, not a {type(target).__name__}")
    task = typed_value(Task, target.task, "data.task")
    classes = typed_value(tuple[str, ...], target.classes, "data.classes")
    least = 2 if task == "classification" else 1
    if len(set(classes)) != len(classes) or len(classes) < least or not all(map(is_plain, classes)):
        what = "at least two classes" if least == 2 else "at least one label" if task == "multilabel" else "each value"
        raise SettingError("data.classes", f"must name {what}, each once and without control characters")
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
        if not table.name.strip() or not is_plain(table.name):
            raise SettingError(f"data.{part}", "must have a name, without line ends and other control characters")
        if task == "classification":
            _check_classes(table, len(classes))
        else:
            _check_values(table, len(classes), task)


def require_two_classes(target: Target) -> None:
    """SettingError for a caller's own training images that are all of one class."""
    found = np.unique(target.train.labels).tolist() if target.task == "classification" else []
    if len(found) == 1:
        only = target.classes[found[0]]
        raise SettingError("data.train", f"has images of one class only, '{only}'; a classifier needs two")


def scale_note(target: Target) -> str | None:
    """A line on values that are far from where answers begin, which training may not survive; None for others."""
    largest = float(np.abs(target.train.labels).max()) if target.task == "regression" else 0.0
    if largest <= LARGE:
        return None
    return (
        f"{target.train.name}: values of up to {largest:.3g}; answers begin near 0: map them to about -1 to 1, or "
        "training may diverge"
    )


def require_measurable(test: Table, task: Task) -> None:
    """UserError for test images from which the outcome of a task cannot be told: labels that are the same for all."""
    if task != "classification" and not (test.labels != test.labels[:1]).any():
        what = "labels" if task == "multilabel" else "ratings"
        raise UserError(f"{test.name}: its {len(test):,} test images all have the same {what}: nothing can be measured")


def _check_classes(table: Table, classes: int) -> None:
    if table.labels.ndim != 1:
        mend = "task='regression' learns values"
        if ((table.labels == 0) | (table.labels == 1)).all():
            mend = "task='multilabel' learns several labels an image"
        raise UserError(
            f"{table.name}: labels must be class indices, int64 (N,), not {table.labels.dtype} values; of one class an "
            f"image give labels.argmax(1), and {mend}"
        )
    lowest, highest = int(table.labels.min()), int(table.labels.max())
    if lowest < 0 or highest >= classes:
        wrong = lowest if lowest < 0 else highest
        raise UserError(f"{table.name}: labels must be 0 to {classes - 1} with {classes} classes, not {wrong}")


def _check_values(table: Table, width: int, task: Task) -> None:
    if table.labels.ndim != 2 or table.labels.shape[1] != width:
        given = f"{table.labels.dtype} {table.labels.shape}"
        raise UserError(
            f"{table.name}: labels must be float32 (N, {width}) with {width} names in a {task}, not {given}"
        )
    wrong = ~np.isfinite(table.labels)
    if task == "multilabel":
        wrong |= (table.labels != 0) & (table.labels != 1)
    if wrong.any():
        row = int(np.flatnonzero(wrong.any(axis=1))[0])
        allowed = "1 where a label holds and else 0" if task == "multilabel" else "finite"
        raise UserError(f"{table.name}: labels must be {allowed}, not {table.labels[row].tolist()} in row {row}")
