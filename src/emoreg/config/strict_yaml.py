"""Reading YAML files from untrusted sources: plain values only, with the line of every key.

Values that versions of YAML read differently stay text, which numeric settings refuse: 010 (8 or 10), 1:30 (90), 1_000,
0x10, dates. 1e-3 stays text too, but `config.read_recipe` converts it to a number.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.events import AliasEvent, CollectionStartEvent

from emoreg.errors import SettingError, UserError
from emoreg.runtime.safe_io import read_bounded

MAX_BYTES, MAX_DEPTH = 2**20, 32  # shipped files have 2 kB and 4 levels
NULLS = ("null", "Null", "NULL", "~")
_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,99})")  # at most a hundred digits: Python refuses thousands
_NUMBER = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_ENCODINGS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the implicit types below instead of its own, and of plain nodes only."""

    depth = 0  # of the collections around the node that is composed

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node; SettingError for one by which a few lines can expand to any amount of data, or to code."""
        peek: Callable[[], Any] = self.peek_event  # its stub has no types
        event, problem = peek(), ""
        if isinstance(event, AliasEvent) or event.anchor:
            problem = "anchors and aliases (& and *) are not supported; write the value out, or put it in quotes"
        elif event.tag:
            problem = "tags (!) are not supported; write the plain value, or put it in quotes"
        elif self.depth == MAX_DEPTH and isinstance(event, CollectionStartEvent):
            problem = f"nested more than {MAX_DEPTH} deep"
        if problem:
            raise SettingError("", problem, line=event.start_mark.line + 1)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


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
    """Parse an integer in decimal digits without leading zeros, spaces or underscores; None for any other text."""
    return int(text) if _WHOLE.fullmatch(text) else None


def decimal_number(text: str) -> float | None:
    """Like `whole_number`, but the number may have a decimal point, an exponent, or both."""
    return float(text) if _NUMBER.fullmatch(text) else None


def read_yaml(path: Path) -> tuple[Any, dict[str, int]]:
    """Like `parse_yaml`, for a file of at most MAX_BYTES in UTF-8, or in UTF-16 with a byte-order mark.

    Raises:
        UserError: the file cannot be read.
        SettingError: as for `parse_yaml`, with the path; or the file is in another encoding.
    """
    try:
        content = read_bounded(path, MAX_BYTES)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path, or a file that is too large
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
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
    """Parse YAML text into its values (None if it is empty) and the lines of keys and list elements.

    Lines count from 1; keys are dotted, such as "training.epochs" and "also[0].name".

    Raises:
        SettingError: not YAML; nested deeper than MAX_DEPTH; anchors, aliases, merge keys or tags; a key that is not
            text, contains a dot, starts or ends with a space, or appears twice. The error has the line.
    """
    try:
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
    except (yaml.YAMLError, ValueError) as error:  # ValueError: from a constructor
        mark = getattr(error, "problem_mark", None)
        problem = " ".join(str(getattr(error, "problem", error)).split())
        if mark is None:
            raise SettingError("", f"not valid YAML: {problem}") from None
        if any("\t" in line for line in text.splitlines()[mark.line : mark.line + 1]):
            problem += "; indent with spaces, not with tabs"
        raise SettingError("", f"not valid YAML: {problem}", line=mark.line + 1) from None


def _lines(node: yaml.Node, key: str = "") -> Iterator[tuple[str, int]]:
    """Yield every key and list element below a node, in the order of the file, with its line."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            inner = _checked_key(name, key)
            yield inner, name.start_mark.line + 1
            yield from _lines(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for index, element in enumerate(node.value):
            yield f"{key}[{index}]", element.start_mark.line + 1
            yield from _lines(element, f"{key}[{index}]")


def _checked_key(name: yaml.Node, parent: str) -> str:
    """Return the dotted key of a mapping's key node; raise SettingError if it is not a plain name."""
    line = name.start_mark.line + 1
    if name.tag == _MERGE:
        raise SettingError(parent, "merge keys (<<) are not supported; write the settings out", line=line)
    if name.tag != _TEXT:
        shown = name.value if isinstance(name, yaml.ScalarNode) else "a list or mapping"
        raise SettingError(parent, f"keys must be text, not {shown}", line=line)
    key = f"{parent}.{name.value}" if parent else name.value
    if name.value != name.value.strip():
        space = next(end for end in (name.value[0], name.value[-1]) if end.isspace())
        shown = unicodedata.name(space, f"U+{ord(space):04X}").lower()
        raise SettingError(key, f"has a blank ({shown}) at an end; remove it", line=line)
    if "." in name.value:
        raise SettingError(key, "write sections as mappings, not with dots", line=line)
    return key
