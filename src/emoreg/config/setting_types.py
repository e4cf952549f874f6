"""The type that a setting is declared with, and values as that type: from YAML, the command line or Python."""

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

# Modes as reports and the paper call them (docs/method.md). Wherever a mode is asked for, either name will do.
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
# YAML 1.1 takes 010 for 8, 1:30 for 90 and 0x10 for 16; other readers do not.
_PLAIN = {
    int: "write the digits 0 to 9 alone, without a leading zero",
    float: "write the digits 0 to 9, with a point and without a leading zero, as 10.5 or 1e-3",
}


def settle(settings: Any) -> None:
    """Give every setting of a frozen dataclass, as it is made, its declared type: lists become tuples, paths text.

    Raises:
        SettingError: a value that is not of its type; a word that is none of those allowed (names the nearest).
    """
    kind: Any = type(settings)
    for name, annotation in _hints(kind).items():
        value = getattr(settings, name)
        settled = typed_value(annotation, value, name)
        if settled is not value:
            object.__setattr__(settings, name, settled)


def typed_value(annotation: Any, value: Any, key: str) -> Any:
    """The value if it is of the annotated type, or stands for one that is.

    Args:
        annotation: of a setting, or of an argument: a number, a truth, text, a Literal of words, one of the settings'
            classes, a tuple of any of these; or None beside it.
        value: what is given. A list will do for a tuple, a path for text, a number of NumPy's for Python's, the name
            in reports for a mode.
        key: its name, for the error.

    Raises:
        SettingError: it is not.
    """
    options = options_of(annotation)
    if value is None and NoneType in options:
        return None
    if (section := dataclass_of(annotation)) is not None:
        if not isinstance(value, section):
            raise SettingError(key, f"must be of {section.__name__}, not {_told(value)}")
        return value
    option = meant_option(options, value)
    if get_origin(option) is tuple:
        return _elements(get_args(option)[0], value, key)
    if get_origin(option) is Mapping:
        return {name: typed_value(get_args(option)[1], inner, f"{key}.{name}") for name, inner in value.items()}
    return plain_value(option, value, key)


def meant_option(options: tuple[Any, ...], value: Any) -> Any:
    """Of the types that a setting may have the one that a value may be of; the first if there is none."""
    kind = Mapping if isinstance(value, Mapping) else tuple if isinstance(value, list | tuple) else None
    return next((option for option in options if kind is not None and get_origin(option) is kind), options[0])


def _elements(annotation: Any, value: Any, key: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        hint = f"; write ({shown(value)},)" if isinstance(value, str | int) else ""
        raise SettingError(key, f"must be a tuple, not {_told(value)}{hint}")
    return tuple(typed_value(annotation, inner, f"{key}[{index}]") for index, inner in enumerate(value))


def path_of(value: Any, key: str) -> Path:
    """A path that is given as one, or as text, from ~ on where it begins so. SettingError for anything else."""
    if not isinstance(value, str | os.PathLike):
        raise SettingError(key, f"must be a path, not {_told(value)}")
    try:
        return Path(value).expanduser()  # as a shell does, but not in every place: ~ is the home directory
    except RuntimeError:  # ~name of no user here
        return Path(value)


def expand_paths(settings: Any, *names: str) -> None:
    """In a frozen dataclass, as it is made, let the named paths that begin with ~ begin with the home directory."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value.startswith("~"):
            object.__setattr__(settings, name, str(path_of(value, name)))


def plain_value(wanted: Any, value: Any, key: str) -> Any:
    """Text, a number, a truth or a word of the wanted type. SettingError for anything else."""
    return _text(value, key) if wanted is str else _scalar(wanted, value, key)


def _text(value: Any, key: str) -> str:
    """The value if it is text that the operating system takes for a path. SettingError otherwise."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        hint = ""
        if isinstance(value, int | float | datetime.date):
            hint = f"; write it in quotes, as '{'no' if value is False else 'yes' if value is True else value}'"
        raise SettingError(key, f"must be text, not {_told(value)}{hint}")
    if not value.strip():
        raise SettingError(key, "must be text, not empty; leave it out for its default")
    if not _is_writable(value):
        raise SettingError(key, f"must be text without null bytes or half characters, not {shown(value)}")
    return value


def _scalar(wanted: Any, value: Any, key: str) -> Any:
    """The value if it is a number, a truth or a word of the wanted type. SettingError otherwise."""
    if get_origin(wanted) is Literal:
        return _word(get_args(wanted), value, key)
    if wanted in (int, float):
        value = _pythons(value)
    if wanted is float and isinstance(value, int | str) and not isinstance(value, bool):
        value = _number(value)
    is_too_large = type(value) is int and abs(value) > MAX_INTEGER
    if type(value) is wanted and not is_too_large:
        return value
    expected, hint = f"at most {MAX_INTEGER}" if is_too_large and wanted is int else _TYPES[wanted], ""
    if wanted is not bool and isinstance(value, str) and any(character.isdigit() for character in value):
        is_quoted = whole_number(value) is not None
        hint = "; write it without quotes" if is_quoted else f"; {_PLAIN[wanted]}"
    raise SettingError(key, f"must be {expected}, not {_told(value)}{hint}")


def _word(words: tuple[str, ...], value: Any, key: str) -> str:
    """One of the words. Among them `learned` or `bel`, they are modes, which have names in reports too."""
    are_modes = "learned" in words or "bel" in words
    if isinstance(value, str):
        if value in words:
            return value
        if are_modes and _MODES.get(value.strip().lower()) in words:
            return _MODES[value.strip().lower()]
    names = [name for name, mode in NAMES_IN_REPORTS.items() if are_modes and mode in words]
    hint = (closest(value, [*words, *names]) or closest(value.lower(), words)) if isinstance(value, str) else ""
    raise SettingError(key, f"must be one of {', '.join(words)}, not {_told(value)}{hint}")


def _pythons(value: Any) -> Any:
    """A number of NumPy's as Python's; anything else as it is."""
    if isinstance(value, bool | str) or type(value) in (int, float):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


def shown(value: Any) -> str:
    """A value in a message, as in YAML where that is short."""
    try:
        return "null" if value is None else shortened(repr(value))
    except ValueError:  # Python does not write whole numbers of thousands of digits
        return f"one of {value.bit_length():,} bits" if isinstance(value, int) else "that"


def _told(value: Any) -> str:
    """As `shown`; of what is no plain value its kind alone, as a network or an array fills pages."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    is_plain = value is None or isinstance(value, str | bytes | numbers.Number | datetime.date | list | tuple | Mapping)
    return shown(value) if is_plain else f"a {type(value).__name__}"


def _is_writable(text: str) -> bool:
    """Whether the operating system takes it for a path; bytes that are not UTF-8 are surrogates in Python."""
    try:
        return b"\0" not in text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False


def _number(value: int | str) -> float | int | str:
    """The number as a float, or the value itself if it is none or too large for one; YAML 1.1 takes 1e-3 for text."""
    try:
        number = decimal_number(value) if isinstance(value, str) else float(value)
    except OverflowError:
        return value
    return value if number is None else number


def dataclass_of(annotation: Any) -> type | None:
    """The settings class behind `X` or `X | None`, None for plain values."""
    return next((o for o in options_of(annotation) if isinstance(o, type) and is_dataclass(o)), None)


def options_of(annotation: Any) -> tuple[Any, ...]:
    """The types that a setting may have: `int | None` gives int and NoneType."""
    # `Literal[...] | None` is a Union, and not a UnionType.
    return get_args(annotation) if get_origin(annotation) in (UnionType, Union) else (annotation,)


def element_of(annotation: Any) -> Any:
    """What a list setting holds: `tuple[X, ...]` gives X; None for settings that are not lists."""
    option = options_of(annotation)[0]
    return get_args(option)[0] if get_origin(option) is tuple else None


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
