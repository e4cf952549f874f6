"""Recipes: settings read from YAML and the command line, written back whole."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_type_hints

import jsonargparse
import yaml

from emoreg.errors import UserError, nearest
from emoreg.settings import PretrainRecipe, Recipe, TrainRecipe

R = TypeVar("R", PretrainRecipe, TrainRecipe)

# One pass over few images: shows in seconds that a recipe runs; its accuracies mean nothing.
SMOKE: dict[type, dict[str, Any]] = {
    PretrainRecipe: {
        "training.epochs": 1,
        "training.batch_size": 16,
        "stimuli.limit": 64,
        "stimuli.count": 80,
    },
    TrainRecipe: {"training.epochs": 1, "training.batch_size": 16, "target.limit": 64},
}


def recipe_parser(kind: type[R], **options: Any) -> jsonargparse.ArgumentParser:
    """A parser with one dotted option per setting of `kind`; its help comes from the settings' docstrings."""
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = jsonargparse.ArgumentParser(exit_on_error=False, allow_abbrev=False, print_config=None, **options)
    parser.add_class_arguments(kind, None)
    parser.add_argument("--config", action="config", help=jsonargparse.SUPPRESS)
    return parser


def read_recipe(kind: type[R], path: Path | str | None = None, overrides: Sequence[str] | Mapping[str, Any] = ()) -> R:
    """Read `kind` (PretrainRecipe or TrainRecipe) from a YAML file and lay `overrides` over it.

    Args:
        kind: which recipe the file is.
        path: the YAML file; None starts from the defaults.
        overrides: `{"training.epochs": 5}` or `["--training.epochs", "5"]`.

    Raises:
        UserError: unreadable file, unknown key (the nearest known one is named), wrong type, value out of
            range; names the file, line and key.
    """
    arguments: list[str]
    if isinstance(overrides, Mapping):
        arguments = [f"--{key}={_as_text(value)}" for key, value in overrides.items()]
    else:
        arguments = list(overrides)
    lines: dict[str, int] = {}
    if path is not None:
        lines = _check_keys(kind, Path(path))
        if lines:  # jsonargparse refuses an empty file; to us it is a recipe of defaults
            arguments = [f"--config={path}", *arguments]
    parser = recipe_parser(kind)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            values = parser.instantiate_classes(parser.parse_args(arguments))
        return kind(**{f.name: values[f.name] for f in dataclasses.fields(kind)})
    except (jsonargparse.ArgumentError, ValueError, TypeError) as error:
        raise UserError(explain(kind, str(error), path, lines, arguments)) from None


def recipe_yaml(recipe: Recipe) -> str:
    """The whole recipe as YAML, every setting written out; `read_recipe` gives the same recipe back."""
    return yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False, allow_unicode=True)


def setting_keys(kind: type) -> list[str]:
    """The dotted names of all settings of `kind`, e.g. "training.epochs"."""
    return [key for key, nested in _walk(kind) if nested is None]


def differences(old: Recipe, new: Recipe) -> list[str]:
    """The settings in which two recipes differ, as "training.epochs: 5 -> 10"."""
    before, after = (dict(flatten(dataclasses.asdict(recipe))) for recipe in (old, new))
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    ]


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested settings as (dotted key, value)."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _as_text(value: Any) -> str:
    return str(yaml.safe_dump(value, default_flow_style=True, allow_unicode=True)).removesuffix("...\n").strip()


def _dataclass_of(annotation: Any) -> type | None:
    """The settings class behind `X` or `X | None`, None for plain values."""
    options = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return next((o for o in options if isinstance(o, type) and dataclasses.is_dataclass(o)), None)


def _walk(kind: type, prefix: str = "") -> Iterator[tuple[str, type | None]]:
    """All (dotted key, nested settings class or None) of a settings class."""
    hints = get_type_hints(kind)
    for item in dataclasses.fields(kind):
        nested = _dataclass_of(hints[item.name])
        yield f"{prefix}{item.name}", nested
        if nested is not None:
            yield from _walk(nested, f"{prefix}{item.name}.")


def _check_keys(kind: type, path: Path) -> dict[str, int]:
    """The line of every key in the file; UserError for a key that `kind` does not have.

    jsonargparse would refuse such a key too, but without the line and the nearest name.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the recipe {path}: {getattr(error, 'strerror', None) or error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(f"{place}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if root is None:
        return {}
    known = dict(_walk(kind))
    lines: dict[str, int] = {}

    def visit(node: yaml.Node, prefix: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            place = f"{path}:{node.start_mark.line + 1}"
            raise UserError(f"{place}: {prefix.rstrip('.') or 'a recipe'} must be a mapping of keys to values")
        for key_node, value_node in node.value:
            key, line = f"{prefix}{key_node.value}", key_node.start_mark.line + 1
            if key not in known:
                siblings = [k.removeprefix(prefix) for k in known if k.startswith(prefix)]
                siblings = [k for k in siblings if "." not in k]
                raise UserError(f"{path}:{line}: unknown key '{key}'{nearest(str(key_node.value), siblings)}")
            if key in lines:
                raise UserError(f"{path}:{line}: key '{key}' stands twice (first on line {lines[key]})")
            lines[key] = line
            if known[key] is not None and value_node.tag != "tag:yaml.org,2002:null":
                visit(value_node, f"{key}.")

    visit(root, "")
    return lines


_TYPES: dict[str, str] = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
_MESSAGES: list[tuple[re.Pattern[str], Callable[[re.Match[str]], str]]] = [
    (re.compile(r"Expected a <class '(\w+)'>"), lambda m: f"must be {_TYPES.get(m[1], m[1])}"),
    (
        re.compile(r"Expected a typing\.Literal\[(.*?)\]"),
        lambda m: f"must be one of {m[1].replace(chr(39), '')}",
    ),
]


def explain(
    kind: type,
    message: str,
    path: Path | str | None = None,
    lines: Mapping[str, int] | None = None,
    arguments: Sequence[str] = (),
) -> str:
    """jsonargparse's message in one line that names the place and what to do."""
    unknown = re.search(r"(?:unrecognized arguments: |does not accept option ')(?:--)?([\w.\-]+)", message)
    if unknown:
        group = re.search(r"Group '([\w.]+)'", message)
        key = f"{group[1]}.{unknown[1]}" if group else unknown[1]
        return f"unknown setting '{key}'{nearest(key, setting_keys(kind))}"
    named = re.search(r'key "([\w.]+)"', message) or re.search(r"^([a-z]+\.[a-z_]+)", message)
    key = named[1] if named else ""
    for pattern, say in _MESSAGES:
        found = pattern.search(message)
        if found:
            got = re.search(r"Got value: (.*)", message)
            message = f"{key} {say(found)}" + (f", not '{got[1].strip()}'" if got else "")
            break
    place = ""
    if path is not None and not any(argument.startswith(f"--{key}") for argument in arguments):
        place = f"{path}:{lines[key]}: " if lines and key in lines else f"{path}: "
    return place + " ".join(message.split())
