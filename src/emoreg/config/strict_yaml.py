"""YAML files from untrusted sources: plain values only, with the line of every key.

What the versions of YAML read differently is text here, which a setting that wants a number refuses: 010 (8 or 10),
1:30 (90), 1_000, 0x10, dates. 1e-3 is text too, and `config.read_recipe` takes it for a number.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from emoreg.errors import SettingError, UserError
from emoreg.runtime.safe_io import read_bounded

MAX_BYTES, MAX_DEPTH = 2**20, 32  # the files that ship have 2 kB and 4 levels
NULLS = ("null", "Null", "NULL", "~")
_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,99})")  # of a hundred digits: Python refuses thousands
_NUMBER = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_ENCODINGS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


class _Loader(yaml.SafeLoader):
    """PyYAML's, without its implicit types; those that are wanted follow."""


_Loader.yaml_implicit_resolvers = {}

for _tag, _form, _first in (
    (_MERGE, r"<<", "<"),
    ("null", rf"(?:{'|'.join(NULLS)}|)", [*"nN~", ""]),
    ("bool", r"(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)", [*"yYnNtTfFoO"]),
    ("int", _WHOLE.pattern, [*"-+0123456789"]),
    ("float", r"[-+]?(?:(?:0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?", [*"-+.0123456789"]),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", [*"-+."]),
):
    _name = _tag if ":" in _tag else f"tag:yaml.org,2002:{_tag}"
    _Loader.add_implicit_resolver(_name, re.compile(f"(?:{_form})$"), _first)


def whole_number(text: str) -> int | None:
    """The number in decimal digits without leading zeros, blanks or underscores; None for any other text."""
    return int(text) if _WHOLE.fullmatch(text) else None


def decimal_number(text: str) -> float | None:
    """As `whole_number`, with a decimal point or an exponent or both, or neither."""
    return float(text) if _NUMBER.fullmatch(text) else None


def read_yaml(path: Path) -> tuple[Any, dict[str, int]]:
    """As `parse_yaml`, of a file of at most MAX_BYTES in UTF-8, or in UTF-16 with a byte-order mark.

    Raises:
        UserError: the file cannot be read.
        SettingError: as `parse_yaml`, with the path; or it is in another encoding.
    """
    try:
        content = read_bounded(path, MAX_BYTES)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path, or a file that is too large
        raise UserError(f"cannot read the recipe {path}: {getattr(error, 'strerror', None) or error}") from None
    encoding = next((name for mark, name in _ENCODINGS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise SettingError("", f"not text in {encoding.upper()}; save it as UTF-8", path, line) from None
    try:
        return parse_yaml(text)
    except SettingError as error:
        raise error.at(path, error.line) from None


def parse_yaml(text: str) -> tuple[Any, dict[str, int]]:
    """The values in a YAML text (None in an empty one), and the lines of keys and list elements.

    Lines count from 1; keys are dotted, such as "training.epochs" and "also[0].name".

    Raises:
        SettingError: not YAML; nested deeper than MAX_DEPTH; anchors, aliases, merge keys or tags; a key that is not
            text, has a dot or outer blanks, or appears twice. It has the line.
    """
    try:
        _refuse_expansion(text)
        loader = _Loader(text)
        root = loader.get_single_node()
        lines: dict[str, int] = {}
        for key, line in () if root is None else _lines(root):
            if key in lines:
                raise SettingError(key, f"appears twice (first on line {lines[key]})", line=line)
            lines[key] = line
        return None if root is None else loader.construct_document(root), lines
    except SettingError:
        raise
    except yaml.reader.ReaderError as error:
        line, character = text[: error.position].count("\n") + 1, f"U+{error.character:04X}"
        problem = f"a character that YAML does not allow, {character}; remove it, or save the file as UTF-8"
        raise SettingError("", problem, line=line) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: of a constructor
        mark = getattr(error, "problem_mark", None)
        problem = " ".join(str(getattr(error, "problem", error)).split())
        here = "" if mark is None else text.splitlines()[mark.line : mark.line + 1]
        hint = "; indent with blanks, not with tabs" if any("\t" in line for line in here) else ""
        raise SettingError("", f"not valid YAML: {problem}{hint}", line=mark.line + 1 if mark else None) from None


def _refuse_expansion(text: str) -> None:
    """SettingError for YAML that no recipe needs and that makes a few lines stand for any amount of data, or code."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        problem = ""
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            problem = "anchors and aliases (& and *) are not supported; write the value out, or put it in quotes"
        elif getattr(event, "tag", None):
            problem = "tags (!) are not supported; write the plain value, or put it in quotes"
        elif depth > MAX_DEPTH:
            problem = f"nested more than {MAX_DEPTH} deep"
        if problem:
            raise SettingError("", problem, line=event.start_mark.line + 1 if event.start_mark else None)


def _lines(node: yaml.Node, key: str = "") -> Iterator[tuple[str, int]]:
    """Every key and list element below a node, in the order of the file, with its line."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            line = name.start_mark.line + 1
            if name.tag == _MERGE:
                raise SettingError(key, "merge keys (<<) are not supported; write the settings out", line=line)
            if name.tag != _TEXT:
                shown = name.value if isinstance(name, yaml.ScalarNode) else "a list or mapping"
                raise SettingError(key, f"keys must be text, not {shown}", line=line)
            if name.value != name.value.strip():
                blank = next(one for one in (name.value[0], name.value[-1]) if one.isspace())
                shown = f"a blank ({unicodedata.name(blank, f'U+{ord(blank):04X}').lower()})"
                raise SettingError(f"{key}.{name.value}".strip("."), f"has {shown} at an end; remove it", line=line)
            if "." in name.value:
                raise SettingError(
                    f"{key}.{name.value}".strip("."), "write sections as mappings, not with dots", line=line
                )
            inner = f"{key}.{name.value}" if key else name.value
            yield inner, line
            yield from _lines(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for index, element in enumerate(node.value):
            yield f"{key}[{index}]", element.start_mark.line + 1
            yield from _lines(element, f"{key}[{index}]")
