"""The schema of a study's table of results, for the code that writes, checks and reads it.

A row is a run of either stage. The types depend on the name alone, never on the values, so that the tables of several
studies can be read as one. Every column may have missing values.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc

from emoreg.config.schema import PretrainRecipe, TrainRecipe
from emoreg.errors import shortened

SETTINGS = "recipe."  # a setting, such as recipe.training.epochs; lists as JSON
MACHINE = "env."  # where the run's last session ran
CURVES = "epochs."  # a column of metrics.csv as a list, one value per epoch

TEXT, INTEGER, NUMBER, FLAG, BYTES = pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.binary()


class RunStatus(StrEnum):
    """How a run of a study stands: the values of the column `status`."""

    WAITING = "waiting"  # not begun, or stopped
    FINISHED = "finished"
    FAILED = "failed"
    DIVERGED = "diverged"  # its losses, weights or answers are not finite: it counts, with no accuracy
    BLOCKED = "blocked"  # not begun, because the stage-1 run that it needs has failed


# Which run it is. All of these are in every table.
IDENTITY: Mapping[str, pa.DataType] = {
    "stage": INTEGER,
    "status": TEXT,  # a RunStatus
    "error": TEXT,
    "run": TEXT,
    "id": TEXT,
    "folder": TEXT,
    "mode": TEXT,  # none (Backbone), fixed, random, learned, random_learned, ensemble, wide, transfer; null in stage 1
    "experience": TEXT,  # affect or a twin of it; null without an encoder that has or lacks one
    "variant": TEXT,  # label of the settings laid over those with two branches; null without
    "stimuli": TEXT,  # label of the sets of stage 1; null where it plays no part
    "target": TEXT,
    "backbone": TEXT,
    "seed": INTEGER,
    "edition": INTEGER,  # of the method
    "purpose": TEXT,  # exploration or confirmation; the first edition had none, and no plan
    "planned_seeds": INTEGER,
    "looks": pa.list_(INTEGER),  # numbers of seeds at which verdicts were planned; the last is planned_seeds
}
# Final metrics that every table has a column for. Further metrics of the splits stand beside them as test_* and
# validation_*; their types are in FAMILIES.
METRICS: Mapping[str, pa.DataType] = {
    "test_accuracy": NUMBER,
    "test_correct": BYTES,  # right (1) or wrong per test image, in order, packed by numpy.packbits
    "test_checksum": TEXT,  # of the test images' pixels in their order
    "validation_accuracy": NUMBER,
    "train_loss": NUMBER,  # in the last epoch
    "train_accuracy_non_emotional": NUMBER,  # of each response alone, on training images at the end
    "train_accuracy_emotional": NUMBER,
    "images_train": INTEGER,
    "images_validation": INTEGER,
    "images_test": INTEGER,
    "lambda": NUMBER,
    "lambda_per_class": pa.list_(NUMBER),
    "images_per_second": NUMBER,
    "seconds": NUMBER,
    "parameters": INTEGER,
    "flops": INTEGER,
    "classes": pa.list_(TEXT),
}
SESSION = ("git", "python", "platform", "cpu", "cores", "threads", "gpu", "device", "precision", "command", "started")
PACKAGES = ("emoreg", "torch", "torchvision", "timm")
COUNTS = ("cores", "threads", "sessions")
MACHINES: Mapping[str, pa.DataType] = {
    f"{MACHINE}{name}": INTEGER if name in COUNTS else TEXT for name in (*SESSION, *PACKAGES, "sessions")
}
# The types of all other columns, by the first pattern that matches the whole name.
FAMILIES: tuple[tuple[str, pa.DataType], ...] = (
    (r"validation_correct", BYTES),
    (r"validation_checksum", TEXT),
    (r"(test|validation|train)_images", INTEGER),
    (r"(test|validation|train)_reliability_count", pa.list_(INTEGER)),
    (r"(test|validation|train)_(per_class|reliability_.+)", pa.list_(NUMBER)),
    (r"(test|validation|train)_.+", NUMBER),
    (r"env\..+", TEXT),
    (r"epochs\.epoch", pa.list_(INTEGER)),
    (r"epochs\..+", pa.list_(NUMBER)),
)
RESPONSES = ("train_accuracy_non_emotional", "train_accuracy_emotional")
SHARES = ("test_accuracy", "test_ece", "test_per_class", "validation_accuracy", "lambda", *RESPONSES)  # in [0, 1]


def _settings(recipe: type, prefix: str) -> Iterator[tuple[str, pa.DataType]]:
    """Names and types of a recipe's settings, from its annotations."""
    for name, hint in get_type_hints(recipe).items():
        is_optional = NoneType in get_args(hint)
        kind = next(part for part in get_args(hint) if part is not NoneType) if is_optional else hint
        if get_origin(kind) in (Literal, tuple):  # a tuple is written as JSON
            kind = str
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from _settings(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", {str: TEXT, int: INTEGER, float: NUMBER, bool: FLAG}[kind]


RECIPES: Mapping[str, pa.DataType] = dict((*_settings(TrainRecipe, SETTINGS), *_settings(PretrainRecipe, SETTINGS)))
FIXED: Mapping[str, pa.DataType] = {**IDENTITY, **METRICS, **RECIPES, **MACHINES}


def type_of(name: str) -> pa.DataType | None:
    """The type of a column; None for a name that emoreg does not write."""
    return FIXED.get(name) or next((kind for pattern, kind in FAMILIES if re.fullmatch(pattern, name)), None)


def in_order(names: Iterable[str]) -> list[str]:
    """All columns of a table that has these: the fixed ones too, and curves last."""
    others = [name for name in dict.fromkeys(names) if name not in FIXED]
    curves = [name for name in others if name.startswith(CURVES)]
    return [*IDENTITY, *METRICS, *(name for name in others if name not in curves), *RECIPES, *MACHINES, *curves]


def stored(value: Any) -> Any:
    """Text as Arrow can hold it, with what is not Unicode in a path or command as escapes; tuples as JSON."""
    if isinstance(value, tuple):
        return json.dumps(value)
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def fits(name: str, value: Any) -> bool:
    """Whether a value can stand in the column of this name."""
    try:
        _converted(name, pa.array([value]))
    except (pa.ArrowException, ValueError, OverflowError, TypeError):
        return False
    return True


def conform(table: pa.Table) -> pa.Table:
    """The table with the types of the schema, whichever library wrote it.

    An index that pandas wrote is left out. Columns that emoreg does not write are kept as they are: settings of another
    version, or the user's own. But a name close to that of a column that the table lacks is taken for a misspelling.

    Raises:
        ValueError: a column has values of another type, a misspelt name, or the name of another one.
    """
    names = [name for name in table.column_names if not re.fullmatch(r"__index_level_\d+__", name)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"it has two columns '{shortened(twice[0])}'")
    absent = [name for name in FIXED if name not in names]
    for name in names:
        is_unknown = type_of(name) is None and not name.startswith(SETTINGS)
        if is_unknown and (meant := difflib.get_close_matches(name, absent, n=1, cutoff=0.75)):
            raise ValueError(f"no column is called '{shortened(name)}' (did you mean '{meant[0]}'?)")
    columns = [_converted(name, table.column(name)) for name in names]
    return pa.table(columns, names=names)


def _converted(name: str, column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """A column with the type of its name. ValueError if its values are of another kind."""
    wanted = type_of(name)
    if pa.types.is_dictionary(column.type):  # a categorical
        column = column.cast(column.type.value_type)
    if wanted is None:
        return column
    if pc.all(column.is_null(nan_is_null=True)).as_py() is not False:  # libraries give such a column any type
        return pa.nulls(len(column), wanted)
    found, expected = _kind(column.type), _kind(wanted)
    if found != expected and (found != "lists of nothing" or not pa.types.is_list(wanted)):
        raise ValueError(f"column '{shortened(name)}' holds {shortened(found)} in place of {expected}")
    if pa.types.is_integer(wanted) and pa.types.is_floating(column.type):  # pandas has no missing integers
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    try:
        return column.cast(wanted)
    except pa.ArrowException as error:
        if pa.types.is_integer(wanted):
            raise ValueError(f"a number in column '{shortened(name)}' is not a whole number") from None
        raise ValueError(f"column '{shortened(name)}': {shortened(str(error))}") from None


def _kind(of: pa.DataType) -> str:
    """What a column holds, in words. Types of the same kind differ in width and encoding alone."""
    types = pa.types
    if types.is_list(of) or types.is_large_list(of) or types.is_fixed_size_list(of):
        return f"lists of {_kind(of.value_type)}"
    if types.is_string(of) or types.is_large_string(of) or str(of) == "string_view":  # pyarrow 16 cannot test for it
        return "text"
    if types.is_integer(of) or types.is_floating(of) or types.is_decimal(of):
        return "numbers"
    if types.is_binary(of) or types.is_large_binary(of) or types.is_fixed_size_binary(of) or str(of) == "binary_view":
        return "bytes"
    return "truth values" if types.is_boolean(of) else "nothing" if types.is_null(of) else str(of)
