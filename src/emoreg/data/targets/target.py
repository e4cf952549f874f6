"""Targets, as the reader of any set returns them, and checks of user-supplied ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from emoreg.config.schema import Task
from emoreg.config.setting_types import typed_value
from emoreg.data.images.table import Table
from emoreg.errors import SettingError, UserError, is_plain

LARGE = 3.0  # larger values are neither standardised nor ratings in [-1, 1]
GIVEN_IMAGES = "given:"  # prefix of the name of a user-supplied target; no set's name starts with it


@dataclass(frozen=True, eq=False)  # == of arrays is an array
class Target:
    """A task: predict one class of each image, several labels, or values.

    Args:
        train: training images with class indices (N,). For `multilabel`, labels are float32 (N, K), 1 if a label
            applies and 0 otherwise; for `regression`, float32 (N, K) values.
        test: test images.
        classes: K names of the classes, labels or values.
        validation: the published validation split; None for a set without one.
        notes: lines about how splits, classes and images were read.
        left_out: lines that say which images below the root are in no table, and why.
        whole: number of classes of the whole set, if `classes` are only some of them; None otherwise.
        has_published_test: whether the test images are a published test split.
        task: classification, multilabel or regression.
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
    """Raise UserError if user-supplied images are not a valid task."""
    if not isinstance(target, Target):
        hint = "emoreg.Target(train, test, classes), each part an emoreg.Table"
        raise SettingError("data", f"must be {hint}, not a {type(target).__name__}")
    task = typed_value(Task, target.task, "data.task")
    classes = typed_value(tuple[str, ...], target.classes, "data.classes")
    _check_names(classes, task)
    parts: dict[str, Any] = {"train": target.train, "test": target.test}
    if target.validation is not None:
        parts["validation"] = target.validation
    for part, table in parts.items():
        if not isinstance(table, Table):
            raise SettingError(f"data.{part}", f"must be an emoreg.Table, not a {type(table).__name__}")
        if part != "train" and table.images is target.train.images:
            raise SettingError(
                f"data.{part}", "has the very images of data.train; an accuracy on them would say nothing"
            )
        if not table.name.strip() or not is_plain(table.name):
            raise SettingError(f"data.{part}", "must have a name, without line ends and other control characters")
        if task == "classification":
            _check_classes(table, len(classes))
        else:
            _check_values(table, len(classes), task)


def require_two_classes(target: Target) -> None:
    """Raise SettingError if user-supplied training images are all of one class."""
    labels = np.unique(target.train.labels).tolist() if target.task == "classification" else []
    if len(labels) == 1:
        only = target.classes[labels[0]]
        raise SettingError("data.train", f"has images of one class only, '{only}'; a classifier needs two")


def scale_note(target: Target) -> str | None:
    """A line about values so large that training may diverge; None if there are none."""
    largest = float(np.abs(target.train.labels).max()) if target.task == "regression" else 0.0
    if largest <= LARGE:
        return None
    return (
        f"{target.train.name}: values of up to {largest:.3g}, but predictions start near 0: map them to about -1 to 1, "
        "or training may diverge"
    )


def require_measurable(test: Table, task: Task) -> None:
    """Raise UserError if all test images have the same labels or values, so that metrics are undefined."""
    if task != "classification" and not (test.labels != test.labels[:1]).any():
        what = "labels" if task == "multilabel" else "ratings"
        raise UserError(f"{test.name}: its {len(test):,} test images all have the same {what}: nothing can be measured")


def _check_names(classes: tuple[str, ...], task: Task) -> None:
    least = 2 if task == "classification" else 1
    if len(set(classes)) != len(classes) or len(classes) < least or not all(map(is_plain, classes)):
        what = {"multilabel": "at least one label", "regression": "each value"}.get(task, "at least two classes")
        raise SettingError("data.classes", f"must name {what}, each once and without control characters")


def _check_classes(table: Table, classes: int) -> None:
    if table.labels.ndim != 1:
        advice = "task='regression' learns values"
        if ((table.labels == 0) | (table.labels == 1)).all():
            advice = "task='multilabel' learns several labels per image"
        raise UserError(
            f"{table.name}: labels must be class indices, int64 (N,), not {table.labels.dtype} values; for one class "
            f"per image give labels.argmax(1), and {advice}"
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
        allowed = "1 if a label applies and 0 otherwise" if task == "multilabel" else "finite"
        raise UserError(f"{table.name}: labels must be {allowed}, not {table.labels[row].tolist()} in row {row}")
