"""The schema of a study's table of results, for the code that writes, checks and reads it.

A row is a run of either stage. Every file has the same columns, in the same order, whatever the runs have, and a type
depends on the name alone, so that the tables of several studies can be read as one by any library. Every column may
have missing values.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

import pyarrow as pa

from emoreg.config.recipe import PretrainRecipe, TrainRecipe

if TYPE_CHECKING:
    import pandas as pd

SETTINGS = "recipe."  # a setting, such as recipe.training.epochs; lists as JSON
MACHINE = "env."  # where the run's last session ran
CURVES = "epochs."  # a column of metrics.csv as a list, one value per epoch
# In a file alone: JSON objects of the metrics and the curves that only some studies have, such as those of one of
# several stimulus sets. In memory each is a column.
MORE_METRICS, MORE_CURVES = "more_metrics", "more_curves"
FORMAT = 2  # of a file, in its metadata; the columns of 1 followed from what the runs had

TEXT, INTEGER, NUMBER, FLAG, BYTES = pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.binary()
NUMBERS, COUNTS = pa.list_(NUMBER), pa.list_(INTEGER)


class RunStatus(StrEnum):
    """How a run of a study stands: the values of the column `status`."""

    WAITING = "waiting"  # not begun, or stopped
    FINISHED = "finished"
    FAILED = "failed"
    DIVERGED = "diverged"  # its losses, weights or answers are not finite: it counts, with no accuracy
    BLOCKED = "blocked"  # not begun, because the stage-1 run that it needs has failed


def has_result(table: pd.DataFrame) -> pd.Series[bool]:
    """Which runs of a table have a result: the finished ones, and those of stage 2 that diverged, which count."""
    has_diverged = (table["status"] == RunStatus.DIVERGED) & (table["stage"] == 2)
    return (table["status"] == RunStatus.FINISHED) | has_diverged


def each_once(table: pd.DataFrame) -> pd.DataFrame:
    """The first row of each run: one that several variants share has a row for each of them."""
    return table[~table["id"].duplicated() | table["id"].isna()] if "id" in table else table


# Which run it is. All of these are in every table.
IDENTITY: Mapping[str, pa.DataType] = {
    "stage": INTEGER,
    "status": TEXT,  # a RunStatus
    "error": TEXT,
    "run": TEXT,
    "id": TEXT,
    "folder": TEXT,
    # none (Backbone), fixed, random, learned, random_learned, ensemble, wide, transfer, unregulated, embp, bel, liaenn;
    # null in stage 1
    "mode": TEXT,
    "experience": TEXT,  # affect or a twin of it; null without an encoder that has or lacks one
    "variant": TEXT,  # label of the settings laid over those with two branches; null without
    "stimuli": TEXT,  # label of the sets of stage 1; null where it plays no part
    "target": TEXT,
    "backbone": TEXT,
    "seed": INTEGER,
    "edition": INTEGER,  # of the method
    "purpose": TEXT,  # exploration or confirmation; the first edition had none, and no plan
    "planned_seeds": INTEGER,
    "first_seed": INTEGER,  # of those that were planned; null for 0, or 1000 in an exploration
    "looks": COUNTS,  # numbers of seeds at which verdicts were planned; the last is planned_seeds
}
# Metrics of a split by their names without it.
OF_BOTH_STAGES = ("accuracy", "loss", "images", "ccc", "ccc_valence", "ccc_arousal", "ccc_dominance")
OF_A_BRANCH = ("accuracy_non_emotional", "accuracy_emotional")
OF_CLASSES = ("balanced_accuracy", "macro_f1", "top5_accuracy", "majority_baseline", "answered_classes")
OF_ANSWERS = ("ece", "lambda", "per_class", "reliability_confidence", "reliability_accuracy", "reliability_count")
# The types of metrics and curves, by the first pattern that matches the whole name.
FAMILIES: tuple[tuple[str, pa.DataType], ...] = (
    (r"(test|validation|train)_correct", BYTES),  # right (1) or wrong per image, in order, packed by numpy.packbits
    (r"(test|validation|train)_checksum", TEXT),  # of the images' pixels in their order
    (r"(test|validation|train)_(images|answered_classes)", INTEGER),
    (r"(test|validation|train)_reliability_count", COUNTS),
    (r"(test|validation|train)_(per_class|reliability_.+)", NUMBERS),
    (r"(test|validation|train)_.+", NUMBER),
    (r"suite\.[a-z_]+\..+", NUMBER),  # a figure of a suite, such as suite.calibration.ece
    (r"epochs\.epoch", COUNTS),
    (r"epochs\..+", NUMBERS),
)


def _of_families(names: Iterable[str]) -> dict[str, pa.DataType]:
    return {name: next(kind for pattern, kind in FAMILIES if re.fullmatch(pattern, name)) for name in names}


METRICS: Mapping[str, pa.DataType] = {
    **_of_families(
        f"{split}_{name}"
        for split, names in {
            "test": (*OF_BOTH_STAGES, *OF_A_BRANCH, *OF_CLASSES, *OF_ANSWERS, "correct", "checksum"),
            "validation": (*OF_BOTH_STAGES, *OF_A_BRANCH, *OF_CLASSES, *OF_ANSWERS),
            "train": (*OF_BOTH_STAGES, *OF_A_BRANCH),  # of stage 2 on training images at the end
        }.items()
        for name in names
    ),
    "images_train": INTEGER,
    "images_validation": INTEGER,
    "images_test": INTEGER,
    "lambda": NUMBER,
    "lambda_per_class": NUMBERS,
    "images_per_second": NUMBER,
    "seconds": NUMBER,
    "parameters": INTEGER,
    "flops": INTEGER,
    "classes": pa.list_(TEXT),
    "whole_classes": INTEGER,  # of the whole target, of which `classes` may be some
    "suites": TEXT,  # JSON: the suites that the run has scored, with their options; see `suite_columns`
    "images_sha256": TEXT,  # of what stood at the roots of the run's image sets, see `runs.inputs`
}
EPOCH = ("epoch", "train_loss", "lr", "seconds", "images_per_second", "lambda")
EPOCH_VALIDATION = ("val_accuracy", "val_loss", "val_ccc", "val_ccc_valence", "val_ccc_arousal", "val_ccc_dominance")
EPOCH_BRANCHES = ("gradient_share", "norm_non_emotional", "norm_emotional")
EPOCHS: Mapping[str, pa.DataType] = _of_families(
    f"{CURVES}{name}" for name in (*EPOCH, *EPOCH_VALIDATION, *EPOCH_BRANCHES)
)
SESSION = ("git", "python", "platform", "cpu", "cores", "threads", "gpu", "device", "precision", "command", "started")
PACKAGES = ("emoreg", "torch", "torchvision", "timm")
WHOLE = ("cores", "threads", "sessions")
MACHINES: Mapping[str, pa.DataType] = {
    f"{MACHINE}{name}": INTEGER if name in WHOLE else TEXT for name in (*SESSION, *PACKAGES, "sessions")
}
RESPONSES = ("train_accuracy_non_emotional", "train_accuracy_emotional")
# In [0, 1].
SHARES = (
    *("test_accuracy", "test_ece", "test_per_class", "validation_accuracy", "lambda", *RESPONSES),
    *(f"{split}_{name}" for split in ("test", "validation") for name in OF_CLASSES[:-1]),
)


def _settings(recipe: type, prefix: str) -> Iterator[tuple[str, pa.DataType]]:
    """Names and types of a recipe's settings, from its annotations."""
    for name, hint in get_type_hints(recipe).items():
        is_optional = NoneType in get_args(hint)
        kind = next(part for part in get_args(hint) if part is not NoneType) if is_optional else hint
        if get_origin(kind) in (Literal, tuple, Union, UnionType):  # a tuple or mapping is written as JSON
            kind = str
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from _settings(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", {str: TEXT, int: INTEGER, float: NUMBER, bool: FLAG}[kind]


RECIPES: Mapping[str, pa.DataType] = dict((*_settings(TrainRecipe, SETTINGS), *_settings(PretrainRecipe, SETTINGS)))
# All columns of a table in memory, but for the metrics and curves that only some studies have.
FIXED: Mapping[str, pa.DataType] = {**IDENTITY, **METRICS, **RECIPES, **MACHINES, **EPOCHS}


def type_of(name: str) -> pa.DataType | None:
    """The type of a column; None for a name that emoreg does not write."""
    return FIXED.get(name) or next((kind for pattern, kind in FAMILIES if re.fullmatch(pattern, name)), None)


def in_order(names: Iterable[str]) -> list[str]:
    """All columns of a table in memory that has these: the fixed ones too, and others before the settings."""
    others = [name for name in dict.fromkeys(names) if name not in FIXED]
    curves = [name for name in others if name.startswith(CURVES)]
    return [
        *IDENTITY,
        *METRICS,
        *(name for name in others if name not in curves),
        *RECIPES,
        *MACHINES,
        *EPOCHS,
        *curves,
    ]


def stored(value: Any) -> Any:
    """Text as Arrow can hold it, with what is not Unicode in a path or command as escapes; tuples, mappings as JSON."""
    if isinstance(value, tuple | Mapping):
        return json.dumps(value)
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
