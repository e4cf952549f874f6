"""The columns of a table of results from a user's own training loop, and how their values are read."""

from __future__ import annotations

import difflib
import json
import math
import numbers
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from emoreg.config.outcomes import OUTCOMES, TEST, VALIDATION
from emoreg.config.strict_yaml import decimal_number
from emoreg.errors import UserError, closest, shortened
from emoreg.study.columns import BYTES, INTEGER, MACHINE, NUMBER, SETTINGS, SHARES, TEXT, type_of
from emoreg.study.conform import from_text

# docs/own-results.md says what they hold. Any other column of a study's table is read under its own name.
COLUMNS = (
    *("mode", "experience", "arm", "variant", "stimuli", "target", "backbone", "seed"),
    *("accuracy", "mean_average_precision", "ccc", "correct", "checksum", "classes"),
    *("purpose", "planned_seeds", "first_seed", "looks"),
    *("train_accuracy_non_emotional", "train_accuracy_emotional", "lambda"),
    *("seconds", "parameters", "device", "precision"),
)
STORED: Mapping[str, str] = {  # their names in a study's table
    **{outcome.name: f"test_{outcome.name}" for outcome in OUTCOMES.values()},
    "correct": "test_correct",
    "checksum": "test_checksum",
    "device": f"{MACHINE}device",
    "precision": f"{MACHINE}precision",
}
OF_A_STUDY = ("stage", "status")  # every table of a study has these
SCORES = (*(outcome.name for outcome in OUTCOMES.values()), *TEST)
OF_AN_ARM = ("mode", "experience", "variant", "stimuli")
MOST_CLASSES = 1_000_000


def is_own(names: Collection[str]) -> bool:
    """Whether a table with these columns is from a user's own training loop, not from a study."""
    return not any(name in names for name in OF_A_STUDY)


def column_of(name: str) -> str:
    """The column that a name stands for: a known column in any case, else the name itself."""
    return name.lower() if name.lower() in COLUMNS or name.lower() in STORED.values() else name


def check_columns(names: Sequence[str]) -> None:
    """Raise UserError for a column that is unknown, repeated or missing; the message names the closest known column."""
    if twice := [name for number, name in enumerate(names) if name in names[:number]]:
        raise UserError(f"the column '{shortened(twice[0])}' occurs twice; keep one")
    _check_missing(names)
    _check_unknown(names)
    given = [outcome.name for outcome in OUTCOMES.values() if {outcome.name, f"test_{outcome.name}"} & {*names}]
    if len(given) > 1:
        raise UserError(
            f"the table has {' and '.join(given)}: runs are compared by one of them; keep one, and give the rows of "
            "other targets as a table of their own"
        )
    if given and given != ["accuracy"] and (correct := {"correct", STORED["correct"]} & {*names}):
        raise UserError(f"{given[0]} has no right or wrong for each image: leave out {min(correct)}")
    for name, stored in STORED.items():
        if name in names and stored in names:
            raise UserError(f"the columns {name} and {stored} are the same; keep one")
    if "arm" in names and (double := [name for name in OF_AN_ARM if name in names]):
        raise UserError(
            f"the columns arm and {double[0]} say the same; keep the arm, as reports name it, or mode and experience "
            "(a table of the first edition is opened with emoreg.study.results_table.read_results)"
        )


def _check_missing(names: Sequence[str]) -> None:
    needed = ["seed"] if "arm" in names else ["mode", "experience", "seed"]
    missing = [name for name in needed if name not in names]
    if not {"correct", STORED["correct"], *SCORES, *VALIDATION} & {*names}:
        missing.append("accuracy")
    if missing == ["accuracy"] and any(map(_resembles_another_outcome, names)):
        _check_unknown(names)
    if missing:
        others = sorted(name for name in names if name not in COLUMNS)
        near = difflib.get_close_matches(missing[0], others, 1, cutoff=0.5)
        rename = f" (rename '{shortened(near[0])}' if that is it)" if near else ""
        raise UserError(
            f"the table has no column '{missing[0]}'{rename}: it needs a row per run with at least mode, experience, "
            "seed and accuracy, or arm, seed and accuracy; instead of accuracy, mean_average_precision or ccc"
        )


def _resembles_another_outcome(name: str) -> bool:
    """Whether a name is close to an outcome other than accuracy, such as CCC."""
    near = difflib.get_close_matches(name.lower(), [outcome.name for outcome in OUTCOMES.values()], 1)
    return bool(near) and near != ["accuracy"] and not "accuracy".startswith(name.lower())


def _check_unknown(names: Sequence[str]) -> None:
    for name in names:
        is_known = name in COLUMNS or type_of(name) is not None or name.startswith((SETTINGS, MACHINE))
        if not is_known:
            raise UserError(
                f"no column is called '{shortened(name)}'{closest(name, COLUMNS)}; leave it out, or, if runs differ in "
                "it, name the difference in the column variant"
            )


def read_value(name: str, value: Any, point: str = ".", is_text: bool = False) -> Any:
    """Read a cell, from text or as a library holds it; None if it is missing.

    Args:
        name: name of the column.
        value: the cell. Right or wrong per image may be a text of 0 and 1, a list of 0 and 1 or of truth values, or
            packed by numpy.packbits, as bytes or in base64.
        point: the decimal point in texts.
        is_text: whether the whole table is text. If not, a text of numbers is not read as a list.

    Returns:
        The value. Right or wrong per image is an array of truth values, or bytes if it is packed. The range of
        accuracies is not checked.

    Raises:
        UserError: the value is of the wrong kind or outside its range.
    """
    if _is_missing(value):
        return None
    stored = STORED.get(name, name)
    kind = type_of(stored)
    if name in ("looks", "classes") and (is_text or not isinstance(value, str)):
        return _whole_numbers(value) if name == "looks" else _classes(value)
    if kind == BYTES:
        return _correct(name, value)
    if kind in (INTEGER, NUMBER):
        return _whole(name, value) if kind == INTEGER else _in_range(name, _number(name, value, point))
    if isinstance(value, str):
        return value if name in ("looks", "classes") else _like_text(stored, value.strip())
    return str(value).strip() if kind in (None, TEXT) else value


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    if value is None or isinstance(value, numbers.Real):
        return value is None or math.isnan(value)
    return type(value).__name__ in ("NAType", "NaTType")  # those of pandas


def _like_text(name: str, text: str) -> Any:
    try:
        return from_text(name, text)
    except ValueError as error:
        raise UserError(str(error)) from None


def _in_range(name: str, number: float) -> float:
    stored = STORED.get(name, name)
    if stored in (*SCORES, *VALIDATION):  # `read_runs` checks these
        return number
    if math.isinf(number) and not name.endswith("loss"):
        raise UserError(f"{name} is infinite")
    if stored in SHARES and not 0 <= number <= 1:
        raise UserError(f"{name} holds {number:g}; it must be a share in [0, 1]")
    return number


def _number(name: str, value: Any, point: str) -> float:
    if isinstance(value, str):
        text = value.strip().replace(point, ".")
        if text.lower() in ("nan", "inf", "+inf", "-inf"):
            return float(text)
        number = decimal_number(text)
    else:
        is_number = isinstance(value, numbers.Number) and not isinstance(value, bool | np.bool_ | complex)
        number = float(value) if is_number else None
    if number is None:
        raise UserError(f"{name} holds '{shortened(str(value))}'; it must be a number")
    return number


def _whole(name: str, value: Any) -> int:
    number = _number(name, value, ".")
    if not number.is_integer() or abs(number) >= 2**53:  # beyond, floats are not exact
        subject = "a seed is" if name == "seed" else f"{name} holds"
        raise UserError(f"{subject} {shortened(str(value))}; it must be a whole number")
    return int(number)


def _whole_numbers(value: Any) -> list[int]:
    """A list of whole numbers, or a text: "[5, 8]", "5 8" or "5;8"."""
    if isinstance(value, str):
        parts: Any = re.split(r"[\s,;]+", value.strip().removeprefix("[").removesuffix("]").strip())
    else:
        parts = value if isinstance(value, Sequence | np.ndarray) else [value]
    return [_whole("looks", part) for part in parts]


def _classes(value: Any) -> int | list[str]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _like_text("classes", value)
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        return [str(name) for name in value]
    number = _whole("classes", value)
    if not 2 <= number <= MOST_CLASSES:
        raise UserError(f"classes holds '{number}'; give the number of classes, or a list of their names")
    return number


def _correct(name: str, value: Any) -> np.ndarray | bytes:
    """Right or wrong per image, as truth values or packed."""
    if isinstance(value, str):
        value = _correct_from_text(name, value.strip())
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    try:
        correct = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        correct = np.zeros(0)
    if correct.ndim != 1 or not correct.size or not np.isin(correct, (0, 1)).all():
        raise UserError(f"{name} holds '{shortened(str(value), 40)}'; give 1 (right) or 0 (wrong) for each test image")
    return correct == 1


def _correct_from_text(name: str, text: str) -> Any:
    if set(text) <= {"0", "1"}:
        return np.frombuffer(text.encode(), dtype=np.uint8) - ord("0")
    if text.startswith("["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise UserError(f"{name} holds a list that is not JSON; write a 0 or 1 for each image") from None
    return text if text.isdecimal() else _like_text("test_correct", text)
