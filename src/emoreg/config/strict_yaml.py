"""YAML files from untrusted sources: plain values only, with the line of every key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from emoreg.errors import SettingError, UserError
from emoreg.runtime.safe_io import read_bounded

MAX_BYTES, MAX_DEPTH = 2**20, 32  # the files that ship have 2 kB and 4 levels
_TEXT = "tag:yaml.org,2002:str"


def read_yaml(path: Path) -> tuple[Any, dict[str, int]]:
    """As `parse_yaml`, of a file of at most MAX_BYTES.

    Raises:
        UserError: the file cannot be read.
        SettingError: as `parse_yaml`, with the path.
    """
    try:
        text = read_bounded(path, MAX_BYTES).decode()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path, or not UTF-8
        raise UserError(f"cannot read the recipe {path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        return parse_yaml(text)
    except SettingError as error:
        raise error.at(path, error.line) from None


def parse_yaml(text: str) -> tuple[Any, dict[str, int]]:
    """The values in a YAML text (None in an empty one), and the lines of keys and list elements.

    Lines count from 1; keys are dotted, such as "training.epochs" and "also[0].name".

    Raises:
        SettingError: not YAML; nested deeper than MAX_DEPTH; anchors, aliases or tags; a key that is not text, has a
            dot or appears twice. It has the line.
    """
    try:
        _refuse_expansion(text)
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        lines: dict[str, int] = {}
        for key, line in () if root is None else _lines(root):
            if key in lines:
                raise SettingError(key, f"appears twice (first on line {lines[key]})", line=line)
            lines[key] = line
        return None if root is None else loader.construct_document(root), lines
    except SettingError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2024-02-31 has the form of a date but is none
        mark = getattr(error, "problem_mark", None)
        problem = " ".join(str(getattr(error, "problem", error)).split())
        raise SettingError("", f"not valid YAML: {problem}", line=mark.line + 1 if mark else None) from None


def _refuse_expansion(text: str) -> None:
    """SettingError for YAML that no recipe needs and that makes a few lines stand for any amount of data, or code."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
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
            if name.tag != _TEXT:
                shown = name.value if isinstance(name, yaml.ScalarNode) else "a list or mapping"
                raise SettingError(key, f"keys must be text, not {shown}", line=line)
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
