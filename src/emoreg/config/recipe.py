"""Recipes: settings read from YAML and the command line, written back whole."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import jsonargparse
import yaml
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from emoreg.config.schema import PretrainRecipe, Recipe, TrainRecipe, identity
from emoreg.errors import SettingError, UserError, nearest, shortened
from emoreg.runtime.safe_io import read_bounded

R = TypeVar("R", bound=PretrainRecipe | TrainRecipe)

# Of files that strangers may have written; those that ship have 2 kB and 4 levels.
MAX_BYTES, MAX_DEPTH = 2**20, 32
MAX_INTEGER = 2**63 - 1  # what NumPy, PyTorch and Parquet can hold

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
SMOKE_LISTS: dict[type, dict[str, Any]] = {  # the same for every element of a list of settings
    PretrainRecipe: {"also[].limit": 64, "also[].count": 80},
    TrainRecipe: {},
}


def recipe_parser(kind: type[R], **options: Any) -> jsonargparse.ArgumentParser:
    """A parser with one dotted option per setting of `kind`; its help comes from the settings' docstrings."""
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = jsonargparse.ArgumentParser(exit_on_error=False, allow_abbrev=False, print_config=None, **options)
    parser.add_class_arguments(kind, None)
    return parser


def parse_options(
    parser: jsonargparse.ArgumentParser, kind: type[R], arguments: Sequence[str], others: Sequence[str] = ()
) -> dict[str, Any]:
    """The options that are given, by dotted name, without defaults.

    Args:
        parser: of `recipe_parser`.
        kind: the recipe whose settings it takes.
        arguments: of the command line.
        others: names of the parser's options that are no settings.

    Raises:
        UserError: unknown option (the nearest known one is named), or a value of the wrong type.
    """
    try:
        return dict(flatten(_plain(parser.parse_args(list(arguments), defaults=False))))
    except jsonargparse.ArgumentError as error:
        raise UserError(_explain(str(error), kind, others)) from None


def read_recipe(kind: type[R], path: Path | str | None = None, overrides: Sequence[str] | Mapping[str, Any] = ()) -> R:
    """Read `kind` (PretrainRecipe or TrainRecipe) from a YAML file and lay `overrides` over it.

    Args:
        kind: which recipe the file is.
        path: the YAML file; None starts from the defaults.
        overrides: `{"training.epochs": 5}` or `["--training.epochs", "5"]`; in a mapping, "also[].limit" is
            the limit of every set in the list `also`.

    Raises:
        UserError: unreadable file, unknown key (the nearest known one is named), wrong type, value out of
            range; names the file, line and key.
    """
    known = dict(_walk(kind))
    if isinstance(overrides, Mapping):
        given = dict(flatten(overrides))
    else:
        given = parse_options(recipe_parser(kind), kind, overrides) if overrides else {}
    for key in given:
        if key not in known:
            raise SettingError(key, f"unknown setting{_nearest_key(key, kind)}")
    values, lines = ({}, {}) if path is None else read_values(kind, Path(path))
    for key, value in sorted(given.items(), key=lambda item: "[]" in item[0]):  # a list before its elements
        put_setting(values, key, value)
    try:
        return build(kind(), values)
    except SettingError as error:
        if path is None or _unnumbered(error.key) in given or error.key.partition("[")[0] in given:
            raise
        raise error.at(path, lines.get(error.key)) from None


def recipe_yaml(recipe: Recipe) -> str:
    """The whole recipe as YAML, every setting written out; `read_recipe` gives the same recipe back."""
    return yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False, allow_unicode=True)


def setting_keys(kind: type) -> list[str]:
    """The dotted names of all settings of `kind`, e.g. "training.epochs"; a list of settings is one."""
    return [key for key, annotation in _walk(kind) if _dataclass_of(annotation) is None and "[]" not in key]


def differences(old: Recipe, new: Recipe) -> list[str]:
    """The settings in which two recipes differ, as "training.epochs: 5 -> 10" or "also[0].root: a -> b".

    Those of `schema.EXECUTION_ONLY` do not count.
    """
    before, after = (dict(_leaves(identity(recipe))) for recipe in (old, new))
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


def _leaves(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """As `flatten`, and the elements of lists too, as "also[0].name"."""
    for key, value in flatten(values):
        if isinstance(value, list | tuple):
            yield from _leaves({f"{key}[{index}]": element for index, element in enumerate(value)})
        else:
            yield key, value


def _plain(value: Any) -> Any:
    """jsonargparse's namespaces as dictionaries, those within lists too."""
    if isinstance(value, jsonargparse.Namespace):
        return {name: _plain(inner) for name, inner in vars(value).items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def put_setting(values: dict[str, Any], key: str, value: Any) -> None:
    """Set the value of a dotted key in nested settings; "also[].limit" sets it in every element of a list."""
    section, _, rest = key.partition(".")
    if section.endswith("[]"):
        section = section.removesuffix("[]")
        elements = values.get(section)
        if isinstance(elements, list) and all(isinstance(element, Mapping) for element in elements):
            values[section] = [dict(element) for element in elements]
            for element in values[section]:
                put_setting(element, rest, value)
    elif rest:
        old = values.get(section)
        values[section] = dict(old) if isinstance(old, Mapping) else {}
        put_setting(values[section], rest, value)
    else:
        values[section] = value


def _dataclass_of(annotation: Any) -> type | None:
    """The settings class behind `X` or `X | None`, None for plain values."""
    return next((o for o in _options(annotation) if isinstance(o, type) and dataclasses.is_dataclass(o)), None)


def _options(annotation: Any) -> tuple[Any, ...]:
    """The types that a setting may have: `int | None` gives int and NoneType."""
    return get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)


def _element_of(annotation: Any) -> Any:
    """What a list setting holds: `tuple[X, ...]` gives X; None for settings that are no lists."""
    option = _options(annotation)[0]
    return get_args(option)[0] if get_origin(option) is tuple else None


def _walk(kind: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All (dotted key, annotation) of a settings class; those of the elements of a list as "also[].name"."""
    hints = get_type_hints(kind)
    for item in dataclasses.fields(kind):
        key, annotation = f"{prefix}{item.name}", hints[item.name]
        yield key, annotation
        nested, element = _dataclass_of(annotation), _dataclass_of(_element_of(annotation))
        if nested is not None:
            yield from _walk(nested, f"{key}.")
        elif element is not None:
            yield from _walk(element, f"{key}[].")


def _unnumbered(key: str) -> str:
    """The key as `_walk` has it: "also[].name" of "also[0].name"."""
    return re.sub(r"\[\d+\]", "[]", key)


def _nearest_key(key: str, kind: type, others: Sequence[str] = ()) -> str:
    """As `nearest`: the same name in another section comes first, then a like name in the same section."""
    for stage, command in ((PretrainRecipe, "pretrain"), (TrainRecipe, "train")):
        if stage is not kind and key in dict(_walk(stage)):
            return f" (it belongs to 'emoreg {command}')"
    section, _, name = _unnumbered(key).rpartition(".")
    keys = [other for other in dict(_walk(kind)) if "[]" not in other or other.startswith(f"{section}.")]
    names = {other: other.rpartition(".") for other in (*keys, *others)}
    siblings = [leaf for there, _, leaf in names.values() if there == section]
    meant = [other for other, (_, _, leaf) in names.items() if leaf == name]
    meant = meant or [
        key.removesuffix(name) + leaf for leaf in difflib.get_close_matches(name, siblings, n=1, cutoff=0.5)
    ]
    if meant:
        return f" (did you mean {' or '.join(repr(other) for other in meant)}?)"
    return nearest(name, siblings or names)


def read_values(kind: type, path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The nested values in a file with the keys of `kind`, not yet of the right types, and the line of every key.

    Raises:
        UserError: unreadable file, no YAML, or a key that `kind` does not have; names file, line and key.
    """
    lines: dict[str, int] = {}
    values = read_yaml(path, lambda root: lines.update(_check_keys(kind, path, root)))
    return values or {}, lines


def read_yaml(path: Path, check: Callable[[yaml.Node], None] = lambda root: None) -> Any:
    """The values in a YAML file; None for an empty one.

    Args:
        path: of the file.
        check: is given the nodes, which know their lines, before they become values.

    Raises:
        UserError: unreadable file, over MAX_BYTES or MAX_DEPTH, no YAML, or YAML with anchors or tags, of which a
            recipe needs none and which a few lines can blow up; names file and line.
    """
    try:
        text = read_bounded(path, MAX_BYTES).decode()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path, no UTF-8
        raise UserError(f"cannot read the recipe {path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        _refuse_what_may_blow_up(path, text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2024-02-31 is written as a date but is none
        mark = getattr(error, "problem_mark", None)
        problem = " ".join(str(getattr(error, "problem", error)).split())
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(f"{place}: not valid YAML: {problem}") from None
    if root is not None:
        check(root)
    return values


def _refuse_what_may_blow_up(path: Path, text: str) -> None:
    """UserError for YAML that a recipe has no need of: with it a few lines can stand for any amount."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        problem = ""
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None):
            problem = "anchors and aliases (& and *) are not read; write the value out, or put it in quotes"
        elif getattr(event, "tag", None):
            problem = "tags (!) are not read; write the plain value, or put it in quotes"
        elif depth > MAX_DEPTH:
            problem = f"nested more than {MAX_DEPTH} deep"
        if problem:
            place = f"{path}:{event.start_mark.line + 1}" if event.start_mark else str(path)
            raise UserError(f"{place}: {problem}")


_NULL, _MAPPING = "tag:yaml.org,2002:null", "tag:yaml.org,2002:map"


def _check_keys(kind: type, path: Path, root: yaml.Node) -> dict[str, int]:
    """The line of every key; UserError for a key that `kind` does not have or that stands twice."""
    known = dict(_walk(kind))
    lines: dict[str, int] = {}

    def visit(node: yaml.Node, prefix: str) -> None:
        if node.tag != _MAPPING:
            hint = "; leave it out for the defaults" if node.tag == _NULL else ""
            reason = f"must be a mapping of keys to values{hint}"
            raise SettingError(prefix.rstrip("."), reason, path, node.start_mark.line + 1)
        assert isinstance(node, yaml.MappingNode)
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            name = shortened(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            key = f"{prefix}{name}"
            if "." in name:
                raise SettingError(key, "a key must not have a dot; write sections as mappings", path, line)
            if _unnumbered(key) not in known:
                raise SettingError(key, f"unknown setting{_nearest_key(key, kind)}", path, line)
            annotation = known[_unnumbered(key)]
            if key in lines:
                raise SettingError(key, f"stands twice (first on line {lines[key]})", path, line)
            lines[key] = line
            is_left_out = value_node.tag == _NULL and NoneType in _options(annotation)
            if _dataclass_of(annotation) and not is_left_out:
                visit(value_node, f"{key}.")
            elif isinstance(value_node, yaml.SequenceNode):
                for index, element in enumerate(value_node.value):
                    lines[f"{key}[{index}]"] = element.start_mark.line + 1
                    if _dataclass_of(_element_of(annotation)):
                        visit(element, f"{key}[{index}].")

    visit(root, "")
    return lines


def build(defaults: Any, values: Mapping[str, Any]) -> Any:
    """`defaults` with nested values in place of its own: a section that is given in part keeps the rest.

    Raises:
        SettingError: unknown key, wrong type or value; its key is relative to `defaults`.
    """
    hints = get_type_hints(type(defaults))
    typed = {}
    for name, value in values.items():
        if name not in hints:
            raise SettingError(name, f"unknown setting{nearest(name, hints)}")
        try:
            typed[name] = _typed(hints[name], value, getattr(defaults, name))
        except SettingError as error:
            raise error.within(name) from None
    return dataclasses.replace(defaults, **typed)


_TYPES: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _typed(annotation: Any, value: Any, default: Any = None) -> Any:
    """The value if it is of the annotated type. SettingError, its key relative to this setting, otherwise."""
    options = _options(annotation)
    if value is None and NoneType in options:
        return None
    wanted, nested = options[0], _dataclass_of(annotation)
    hint = ""
    if nested is not None:
        if isinstance(value, Mapping):
            return build(nested() if default is None else default, value)
        expected = "a mapping of keys to values"
        hint = "; leave it out for the defaults" if value is None else ""
    elif (element := _element_of(annotation)) is not None:
        if isinstance(value, list | tuple):
            return tuple(_typed_element(element, index, inner) for index, inner in enumerate(value))
        expected = "a list of mappings, each begun with '- '" if _dataclass_of(element) else "a list"
    elif get_origin(wanted) is Literal:
        if value in get_args(wanted):
            return value
        expected = f"one of {', '.join(get_args(wanted))}"
    else:
        if wanted is float and type(value) in (int, str):
            value = _number(value)  # YAML 1.1 takes 1e-3, without a dot, for text
        is_too_large = type(value) is int and abs(value) > MAX_INTEGER
        if isinstance(value, str) and wanted is str and not _is_writable(value):
            raise SettingError("", f"must be text without null bytes or half characters, not {_shown(value)}")
        if type(value) is wanted and not is_too_large:
            return value
        expected = f"at most {MAX_INTEGER}" if is_too_large and wanted is int else _TYPES[wanted]
        hint = "; write it in quotes" if wanted is str and value is not None else ""
    raise SettingError("", f"must be {expected}, not {_shown(value)}{hint}")


def _typed_element(annotation: Any, index: int, value: Any) -> Any:
    try:
        return _typed(annotation, value)
    except SettingError as error:
        raise error.within(f"[{index}]") from None


def _shown(value: Any) -> str:
    """A value in a message."""
    try:
        return "null" if value is None else shortened(repr(value))
    except ValueError:  # Python does not write whole numbers of thousands of digits
        return f"one of {value.bit_length():,} bits" if isinstance(value, int) else "that"


def _is_writable(text: str) -> bool:
    """Whether the operating system takes it for a path; bytes that are no UTF-8 are what Python makes of them."""
    try:
        return b"\0" not in text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False


def _number(value: int | str) -> float | int | str:
    try:
        return float(value)
    except (ValueError, OverflowError):
        return value


def _explain(message: str, kind: type, others: Sequence[str]) -> str:
    """jsonargparse's message about an option, in one line that names the setting and what to do."""
    key = ""
    for part in re.findall(r'key "([\w.]+)"', message):  # from the section to the setting
        key = part if part.startswith(key) else f"{key}.{part}"
    section, dot, rest = key.partition(".")
    if "Problem with given class_path" in message and _element_of(dict(_walk(kind)).get(section)) is not None:
        key = f"{section}[]{dot}{rest}"  # within an element of a list
    stray = re.search(r"unrecognized arguments: (-*)([^\s=]+)", message)
    refused = re.search(r"(?:Group '([\w.]+)' does not accept option|Option) '(.+?)'", message)
    if stray and not stray[1]:
        return f"unexpected argument '{stray[2]}'"
    if stray or refused:
        name = stray[2] if stray else f"{refused[1] or key}.{refused[2]}" if refused else ""
        return f"{name}: unknown setting{_nearest_key(name, kind, others)}"
    expected = re.search(r"Expected a (?:<class '(\w+)'>|typing\.Literal\[(.*?)\]|dot import path)", message)
    got = re.search(r"(?:(?:Got|Given) value|import path string): (.*)", message)
    got = got or re.search(r"Unable to load config '(.*)'", message)
    if key and got:
        types = {t.__name__: text for t, text in _TYPES.items()} | {"tuple": "a list, such as [{name: oasis}]"}
        of_type = types.get(expected[1] or "") if expected else None
        one_of = f"one of {expected[2].replace(chr(39), '')}" if expected and expected[2] else None
        return f"{key}: must be {of_type or one_of or 'a mapping of keys to values'}, not '{shortened(got[1])}'"
    return shortened(message, 300)
