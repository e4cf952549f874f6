"""The schema of a study's table of results, for the code that writes, checks and reads it.

A row is a run of either stage. Every file has the same columns in the same order, and the type of a column depends only
on its name, so that any library can read the tables of several studies as one. Every column may have missing values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from emoreg.config.read_recipe import all_settings
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.setting_types import options_of

if TYPE_CHECKING:
    import pandas as pd

SETTINGS = "recipe."  # a setting, such as recipe.training.epochs; lists as JSON
MACHINE = "env."  # environment of the run's last session
CURVES = "epochs."  # a column of metrics.csv as a list, one value per epoch
# Columns of files: JSON objects of the metrics and curves that only some studies have, such as those of one of several
# stimulus sets. In memory each has its own column.
MORE_METRICS, MORE_CURVES = "more_metrics", "more_curves"
FORMAT = 2  # in a file's metadata; files of format 1 had only the columns that their runs needed

TEXT, INTEGER, NUMBER, FLAG, BYTES = pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.binary()
NUMBERS, COUNTS = pa.list_(NUMBER), pa.list_(INTEGER)


class RunStatus(StrEnum):
    """How a run of a study stands: the values of the column `status`."""

    WAITING = "waiting"  # not started, or stopped
    FINISHED = "finished"
    FAILED = "failed"
    DIVERGED = "diverged"  # losses, weights or outputs are not finite: a result without an accuracy
    BLOCKED = "blocked"  # not started, because the stage-1 run that it needs has failed


def has_result(table: pd.DataFrame) -> pd.Series[bool]:
    """A mask of the runs with a result: finished ones, and those of stage 2 that diverged."""
    has_diverged = (table["status"] == RunStatus.DIVERGED) & (table["stage"] == 2)
    return (table["status"] == RunStatus.FINISHED) | has_diverged


def each_once(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the first row of each run: a run that several arms or variants share has a row for each of them."""
    return table[~table["id"].duplicated() | table["id"].isna()] if "id" in table else table


# What tells the rows of a table apart: arms or variants with one recipe share a run, and have a row each.
ROW = ("id", "mode", "experience", "variant")

# The identity of a run.
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
    "experience": TEXT,  # affect or one of its twins; null for Backbone, ensemble, wide and the relatives
    "variant": TEXT,  # label; null without variants, and for networks that they do not apply to
    "stimuli": TEXT,  # label of the sets of stage 1; null without stage 1
    "target": TEXT,
    "backbone": TEXT,
    "seed": INTEGER,
    "edition": INTEGER,  # of the method
    "purpose": TEXT,  # exploration or confirmation; null, like the rest of the plan, in the first edition
    "planned_seeds": INTEGER,
    "first_seed": INTEGER,  # null for 0, or 1000 in an exploration
    "looks": COUNTS,  # numbers of seeds at which verdicts were planned; the last is planned_seeds
}
# Metrics of a split, without the prefix of the split.
OF_BOTH_STAGES = ("accuracy", "loss", "images", "ccc", "ccc_valence", "ccc_arousal", "ccc_dominance")
OF_A_BRANCH = ("accuracy_non_emotional", "accuracy_emotional")
OF_CLASSES = ("balanced_accuracy", "macro_f1", "top5_accuracy", "majority_baseline", "answered_classes")
OF_ANSWERS = ("ece", "lambda", "per_class", "reliability_confidence", "reliability_accuracy", "reliability_count")
# The types of metrics and curves, by the first pattern that matches the whole name.
FAMILIES: tuple[tuple[str, pa.DataType], ...] = (
    (r"(test|validation|train)_correct", BYTES),  # right (1) or wrong (0) per image, in order, from numpy.packbits
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
            "train": (*OF_BOTH_STAGES, *OF_A_BRANCH),  # stage 2: on training images at the end
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
    "suites": TEXT,  # JSON: the suites that the run was scored in, with their options; see `suite_columns`
    "images_sha256": TEXT,  # of the files or folders at the roots of the run's image sets, see `runs.inputs`
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


RECIPES: Mapping[str, pa.DataType] = {
    f"{SETTINGS}{key}": {int: INTEGER, float: NUMBER, bool: FLAG}.get(options_of(hint)[0], TEXT)  # lists as JSON
    for recipe in (TrainRecipe, PretrainRecipe)
    for key, hint in all_settings(recipe).items()
}
# All columns of a table in memory, except the metrics and curves that only some studies have.
FIXED: Mapping[str, pa.DataType] = {**IDENTITY, **METRICS, **RECIPES, **MACHINES, **EPOCHS}


def type_of(name: str) -> pa.DataType | None:
    """The type of a column; None for the name of a column that emoreg does not write."""
    return FIXED.get(name) or next((kind for pattern, kind in FAMILIES if re.fullmatch(pattern, name)), None)


def in_order(names: Iterable[str]) -> list[str]:
    """All columns of a table in memory with these names, in order: the fixed ones, with others before the settings."""
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
    """Convert a value for Arrow: tuples and mappings to JSON; undecodable bytes in text, as of a path, are escaped."""
    if isinstance(value, tuple | Mapping):
        return json.dumps(value)
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
