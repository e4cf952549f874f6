"""Checking and converting values from YAML, the command line or Python to the declared type of a setting."""

from __future__ import annotations

import datetime
import functools
import numbers
import os
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from emoreg.config.strict_yaml import decimal_number, whole_number
from emoreg.errors import SettingError, closest, shortened

MAX_INTEGER = 2**63 - 1  # what NumPy, PyTorch and Parquet can hold

# Modes by their names in reports and the paper (docs/method.md). Settings accept either name.
NAMES_IN_REPORTS: Mapping[str, str] = {
    "Backbone": "none",
    "E-Reg": "fixed",
    "Rand-E-Reg": "random",
    "Learn-E-Reg": "learned",
    "Rand-Learn-E-Reg": "random_learned",
    "EmBP": "embp",
    "BEL": "bel",
    "LiAENN": "liaenn",
}
_MODES = {name.lower(): mode for name, mode in NAMES_IN_REPORTS.items()}

_TYPES: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false"}
# YAML 1.1 reads 010 as 8, 1:30 as 90 and 0x10 as 16; other versions do not.
_PLAIN = {
    int: "use only the digits 0 to 9, without a leading zero",
    float: "use the digits 0 to 9 with a decimal point, without a leading zero, as in 10.5 or 1e-3",
}


def settle(settings: Any) -> None:
    """Convert every field of a frozen dataclass to its declared type; call it in `__post_init__`.

    Raises:
        SettingError: a value of another type, or a word that is not allowed (names the closest match).
    """
    kind: Any = type(settings)
    for name, annotation in type_hints(kind).items():
        value = getattr(settings, name)
        converted = typed_value(annotation, value, name)
        if converted is not value:
            object.__setattr__(settings, name, converted)


def typed_value(annotation: Any, value: Any, key: str) -> Any:
    """Convert a value to the annotated type.

    Args:
        annotation: int, float, bool, str, a Literal of words, a settings class, a tuple or Mapping of these, or a
            union with None.
        value: a value of that type or an equivalent: a list for a tuple, a path for text, a NumPy number for Python's,
            a mode's name in reports.
        key: name of the setting or argument, for the error.

    Raises:
        SettingError: the value is of another type.
    """
    options = options_of(annotation)
    if value is None and NoneType in options:
        return None
    if (section := dataclass_of(annotation)) is not None:
        if not isinstance(value, section):
            raise SettingError(key, f"must be of {section.__name__}, not {_described(value)}")
        return value
    option = _option_for(options, value)
    if get_origin(option) is Mapping:
        return {name: typed_value(get_args(option)[1], inner, f"{key}.{name}") for name, inner in value.items()}
    if get_origin(option) is tuple:
        if not isinstance(value, list | tuple):
            hint = f"; write [{shown(value)}]" if isinstance(value, str | int) else ""
            raise SettingError(key, f"must be a list, not {_described(value)}{hint}")
        return tuple(typed_value(get_args(option)[0], inner, f"{key}[{index}]") for index, inner in enumerate(value))
    return _text(value, key) if option is str else _scalar(option, value, key)


def _option_for(options: tuple[Any, ...], value: Any) -> Any:
    """Return the type among `options` that is meant by a mapping or list; the first for any other value."""
    for kind, given in ((Mapping, Mapping), (tuple, list | tuple)):
        if isinstance(value, given):
            return next((option for option in options if get_origin(option) is kind), options[0])
    return options[0]


def path_of(value: Any, key: str) -> Path:
    """Convert a path or text to a Path, with a leading ~ expanded; raise SettingError for anything else."""
    if not isinstance(value, str | os.PathLike):
        raise SettingError(key, f"must be a path, not {_described(value)}")
    try:
        return Path(value).expanduser()  # shells expand ~ too, but not in --option=~/path
    except RuntimeError:  # ~name of an unknown user
        return Path(value)


def expand_paths(settings: Any, *names: str) -> None:
    """Expand a leading ~ in the named fields of a frozen dataclass; call it in `__post_init__`."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value.startswith("~"):
            object.__setattr__(settings, name, str(path_of(value, name)))


def _text(value: Any, key: str) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        hint = ""
        if isinstance(value, bool):
            hint = f"; write it in quotes, as '{'yes' if value else 'no'}'"
        elif isinstance(value, int | float | datetime.date):
            hint = f"; write it in quotes, as '{value}'"
        raise SettingError(key, f"must be text, not {_described(value)}{hint}")
    if not value.strip():
        raise SettingError(key, "must be text, not empty; leave it out for its default")
    if not _is_path_text(value):
        raise SettingError(key, f"must be text without null bytes or half characters, not {shown(value)}")
    return value


def _scalar(wanted: Any, value: Any, key: str) -> Any:
    if get_origin(wanted) is Literal:
        return _word(get_args(wanted), value, key)
    if wanted is not bool:
        value = _as_number(wanted, value)
    expected = _TYPES[wanted]
    if type(value) is wanted:
        if wanted is not int or abs(value) <= MAX_INTEGER:
            return value
        expected = f"at most {MAX_INTEGER}"
    hint = ""
    if wanted is not bool and isinstance(value, str) and any(character.isdigit() for character in value):
        is_quoted = whole_number(value) is not None
        hint = "; write it without quotes" if is_quoted else f"; {_PLAIN[wanted]}"
    raise SettingError(key, f"must be {expected}, not {_described(value)}{hint}")


def _word(words: tuple[str, ...], value: Any, key: str) -> str:
    """Return the word that a value stands for; words that include `learned` or `bel` are modes, with report names."""
    are_modes = "learned" in words or "bel" in words
    hint = ""
    if isinstance(value, str):
        if value in words:
            return value
        if are_modes and _MODES.get(value.strip().lower()) in words:
            return _MODES[value.strip().lower()]
        names = [name for name, mode in NAMES_IN_REPORTS.items() if are_modes and mode in words]
        hint = closest(value, [*words, *names]) or closest(value.lower(), words)
    raise SettingError(key, f"must be one of {', '.join(words)}, not {_described(value)}{hint}")


def _as_number(wanted: Any, value: Any) -> Any:
    """Convert a number, also NumPy's, to Python's int or float, and text to float (YAML 1.1 reads 1e-3 as text).

    Anything else is returned as it is, and so is an integer that is too large for a float.
    """
    if isinstance(value, str) and wanted is float:
        number = decimal_number(value)
        return value if number is None else number
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return value
    if isinstance(value, numbers.Integral) and wanted is int:
        return int(value)
    try:
        return float(value)
    except OverflowError:
        return value


def shown(value: Any) -> str:
    """Return the value as text for a message, shortened."""
    try:
        return "null" if value is None else shortened(repr(value))
    except ValueError:  # Python does not print integers of thousands of digits
        return f"one of {value.bit_length():,} bits" if isinstance(value, int) else "that"


def _described(value: Any) -> str:
    """Like `shown` for plain values; only the type of anything else, since a network or an array fills pages."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    is_plain = value is None or isinstance(value, str | bytes | numbers.Number | datetime.date | list | tuple | Mapping)
    return shown(value) if is_plain else f"a {type(value).__name__}"


def _is_path_text(text: str) -> bool:
    """Whether the operating system accepts the text as a path; in Python, bytes that are not UTF-8 are surrogates."""
    try:
        return b"\0" not in text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False


@functools.cache
def dataclass_of(annotation: Any) -> type | None:
    """Return the settings class in `X` or `X | None`; None for plain values. Kept, as it is asked at every setting."""
    return next((o for o in options_of(annotation) if isinstance(o, type) and is_dataclass(o)), None)


@functools.cache
def options_of(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union: int and NoneType for `int | None`. Kept, as it is asked at every setting."""
    # `Literal[...] | None` is a Union, not a UnionType.
    return get_args(annotation) if get_origin(annotation) in (UnionType, Union) else (annotation,)


def element_of(annotation: Any) -> Any:
    """Return the element type of a list setting, X for `tuple[X, ...]`; None for other settings."""
    option = options_of(annotation)[0]
    return get_args(option)[0] if get_origin(option) is tuple else None


@functools.cache
def type_hints(kind: Any) -> dict[str, Any]:
    """The types of a settings class by field; kept, because resolving them is slow."""
    return get_type_hints(kind)
