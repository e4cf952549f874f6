"""Reading recipes from YAML and the command line, and writing them in full."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import yaml

from emoreg.config.recipe import EDITION, AnyRecipe, PretrainRecipe, Recipe, TrainRecipe, defaults, resolved
from emoreg.config.setting_types import dataclass_of, element_of, options_of, path_of, shown, type_hints, typed_value
from emoreg.config.strict_yaml import NULLS, parse_yaml, read_yaml
from emoreg.errors import SettingError, UserError, nearest

MAPPINGS = ("class_weights",)  # names of settings whose value may be a mapping and is not a section

# One epoch over few images shows within seconds that a recipe runs; its accuracies mean nothing.
SMOKE: dict[type, dict[str, Any]] = {
    PretrainRecipe: {
        "training.epochs": 1,
        "training.batch_size": 16,
        "stimuli.limit": 64,
        "stimuli.count": 80,
        "stimuli.test_limit": 64,
        "also[].limit": 64,
        "also[].count": 80,
        "also[].test_limit": 64,
    },
    TrainRecipe: {"training.epochs": 1, "training.batch_size": 16, "target.limit": 64, "target.test_limit": 64},
}


def smoke_settings(kind: type, edition: int) -> dict[str, Any]:
    """Return the settings of `SMOKE` that an edition has; the first has no `test_limit`."""
    return {key: value for key, value in SMOKE[kind].items() if edition > 1 or not key.endswith(".test_limit")}


def read_recipe(
    kind: type[AnyRecipe],
    path: Path | str | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    is_stored: bool = False,
) -> AnyRecipe:
    """Read a recipe from a YAML file and apply `overrides` to it.

    Args:
        kind: class of the recipe, PretrainRecipe or TrainRecipe.
        path: the YAML file; None starts from the defaults.
        overrides: `{"training.epochs": 5}` or `["--training.epochs", "5"]`; in a mapping, "also[].limit" is
            the limit of every set in the list `also`.
        is_stored: whether a run wrote the file. If it names no edition, it then belongs to the first edition, otherwise
            to the current one.

    Raises:
        UserError: unreadable file.
        SettingError: unknown key (names the closest known one), wrong type or value; names the file, line and key.
    """
    if kind not in (PretrainRecipe, TrainRecipe):
        given = shown(str(kind)) if isinstance(kind, str | Path) else f"a {type(kind).__name__}"
        hint = "; dataclasses.replace changes a recipe" if isinstance(kind, Recipe) else ""
        raise SettingError("kind", f"must be the class PretrainRecipe or TrainRecipe, not {given}{hint}")
    if isinstance(overrides, str):
        raise SettingError("overrides", f"must be a mapping or a list of words, not {shown(overrides)}; split it")
    nested = overrides if isinstance(overrides, Mapping) else parse_options(kind, overrides)
    flat = copy.deepcopy(dict(flatten(nested)))  # elements of its lists may be changed
    known = dict(_walk(kind))
    for key in flat:
        if key not in known:
            raise SettingError(str(key), f"unknown setting{_nearest_key(key, kind)}")
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    if path is not None:
        file = path_of(path, "path")
        written, lines = read_yaml(file)
        values = typed_values(kind, written, lines, file)
    for key, value in sorted(flat.items(), key=lambda item: "[]" in item[0]):  # a list before its elements
        put_setting(values, key, value)
    edition = values.setdefault("edition", 1 if is_stored else EDITION)
    try:
        recipe: AnyRecipe = build(defaults(kind, 1 if edition == 1 else EDITION), values)
        return recipe
    except SettingError as error:
        if path is None or _unnumbered(error.key) in flat or error.key.partition("[")[0] in flat:
            raise
        raise error.at(path, lines.get(error.key)) from None


def has_edition(path: Path | str) -> bool:
    """Whether the YAML file of a recipe or study names its edition of the method."""
    keys, _ = read_yaml(path_of(path, "path"))
    return isinstance(keys, Mapping) and "edition" in keys


def parse_options(kind: type, arguments: Sequence[str], others: Sequence[str] = ()) -> dict[str, Any]:
    """Parse the settings in command-line arguments into values by dotted key.

    Values are read as in a recipe's YAML, except that text needs no quotes outside lists.

    Args:
        kind: the recipe that the settings belong to.
        arguments: such as `["--training.epochs", "5"]` or `["--training.epochs=5"]`; the last value of a key counts.
        others: names of the command's other options, suggested for misspelt ones.

    Raises:
        UserError: an argument that is not an option.
        SettingError: unknown setting (names the closest known one), or a value that is missing or not valid YAML.
    """
    known = {key: annotation for key, annotation in _walk(kind) if "[]" not in key}
    given: dict[str, Any] = {}
    words = iter(arguments)
    for word in words:
        if not word.startswith("-"):
            raise UserError(f"unexpected argument '{word}'")
        key, is_joined, text = word.lstrip("-").partition("=")
        if key not in known:
            raise SettingError(key, f"unknown setting{_nearest_key(key, kind, others)}")
        value = text if is_joined else next(words, None)
        if value is None:
            raise SettingError(key, f"needs a value: --{key} VALUE")
        given.update(flatten({key: _read_option(known[key], key, value)}))
    return given


def _read_option(annotation: Any, key: str, text: str) -> Any:
    if str in options_of(annotation):
        return None if text in NULLS and NoneType in options_of(annotation) else text
    try:
        return parse_yaml(text)[0]
    except SettingError as error:
        raise error.within(key) from None


def recipe_yaml(recipe: Recipe) -> str:
    """Return the recipe as YAML with every setting written out; `read_recipe` gives the same recipe back."""
    return yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False, allow_unicode=True)


def all_settings(kind: type) -> dict[str, Any]:
    """Return the types of all settings of `kind` by dotted name, such as "training.epochs"; a list is one setting."""
    return {key: hint for key, hint in _walk(kind) if dataclass_of(hint) is None and "[]" not in key}


def differences(old: Recipe, new: Recipe, ignored: Collection[str] = ()) -> list[str]:
    """List the settings in which two recipes differ, such as "training.epochs: 5 -> 10" or "also[0].root: a -> b".

    Settings in `recipe.EXECUTION_ONLY` do not count, nor do different paths to the same place.

    Args:
        old: a recipe.
        new: another recipe of the same stage.
        ignored: keys that are not compared.
    """
    before, after = (dict(_leaves(resolved(recipe))) for recipe in (old, new))
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in dict.fromkeys([*before, *after])
        if key not in ignored and not _is_same(key, before.get(key), after.get(key))
    ]


def _is_same(key: str, before: Any, after: Any) -> bool:
    is_path = key == "encoder.experience" or key.endswith(".root")
    if is_path and before is not None and after is not None:
        before, after = (os.path.realpath(path.replace("\\", "/")) for path in (before, after))
    return before == after


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested settings as (dotted key, value)."""
    for key, value in values.items():
        if isinstance(value, Mapping) and key not in MAPPINGS:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _leaves(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Like `flatten`, but descend into lists too, with keys such as "also[0].name"."""
    for key, value in flatten(values):
        if isinstance(value, list | tuple):
            yield from _leaves({f"{key}[{index}]": element for index, element in enumerate(value)})
        else:
            yield key, value


def put_setting(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested settings; "also[].limit" sets it in every element of the list `also`."""
    section, _, rest = key.partition(".")
    if not rest:
        values[section] = value
    elif section.endswith("[]"):
        elements = values.get(section.removesuffix("[]"))
        for element in elements if isinstance(elements, list) else ():
            if isinstance(element, dict):
                put_setting(element, rest, value)
    else:
        if not isinstance(values.get(section), dict):
            values[section] = {}
        put_setting(values[section], rest, value)


def typed_values(kind: type, values: Any, lines: Mapping[str, int], path: Path) -> dict[str, Any]:
    """Convert the values that `read_yaml` returns, None for an empty file, to the keys and types of `kind`.

    Raises:
        SettingError: unknown key or wrong type; names file, line and key.
    """
    try:
        return _section(kind, {} if values is None else values, "", kind)
    except SettingError as error:
        raise error.at(path, lines.get(error.key) if error.key else 1) from None


def build(defaults: Any, values: Mapping[str, Any]) -> Any:
    """Return `defaults` with nested values replaced; settings that `values` leaves out keep their defaults.

    Raises:
        SettingError: unknown key, wrong type or value; its key is relative to `defaults`.
    """
    return _build(defaults, _section(type(defaults), values, "", type(defaults)), "")


def _build(defaults: Any, values: Mapping[str, Any], place: str) -> Any:
    """Build from values of the right types; `place` is the dotted key of `defaults` in the recipe."""
    hints = type_hints(defaults.__class__)
    settings = {}
    for name, value in values.items():
        key = f"{place}.{name}" if place else name
        section, element = dataclass_of(hints[name]), element_of(hints[name])
        if section is not None and value is not None:
            settings[name] = _build(getattr(defaults, name) or section(), value, key)
        elif (kind := dataclass_of(element)) is not None:
            settings[name] = tuple(_build(kind(), inner, f"{key}[{index}]") for index, inner in enumerate(value))
        else:
            settings[name] = tuple(value) if isinstance(value, list) else value
    try:
        return dataclasses.replace(defaults, **settings)
    except SettingError as error:
        raise error.within(place) from None


def _section(kind: type, values: Any, place: str, root: type) -> dict[str, Any]:
    """Return nested values converted to the keys and types of `kind`; raise SettingError if that is impossible.

    Args:
        kind: settings class; its defaults and checks are not used.
        values: nested mappings and lists.
        place: dotted key of `kind` within `root`.
        root: class of the whole recipe, for suggestions.
    """
    if not isinstance(values, Mapping):
        hint = "; leave it out for the defaults" if values is None else ""
        if isinstance(values, str) and not place:
            hint = "; write 'key: value', with a space after the colon"
        raise SettingError(place, f"must be a mapping of keys to values, not {shown(values)}{hint}")
    hints = type_hints(kind)
    typed = {}
    for name, value in values.items():
        key = f"{place}.{name}" if place else str(name)
        if name not in hints:
            raise SettingError(key, f"unknown setting{_nearest_key(key, root)}")
        typed[name] = _typed(hints[name], value, key, root)
    return typed


def _typed(annotation: Any, value: Any, key: str, root: type) -> Any:
    """Return the value converted to the annotated type, with sections as mappings and tuples as lists."""
    section, element = dataclass_of(annotation), dataclass_of(element_of(annotation))
    if section is not None and not (value is None and NoneType in options_of(annotation)):
        return _section(section, value, key, root)
    if element is None:
        converted = typed_value(annotation, value, key)
        return list(converted) if isinstance(converted, tuple) else converted
    if not isinstance(value, list | tuple):
        raise SettingError(key, f"must be a list of mappings, each starting with '- ', not {shown(value)}")
    return [_section(element, inner, f"{key}[{index}]", root) for index, inner in enumerate(value)]


def _walk(kind: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every (dotted key, annotation) of a settings class; keys within a list are like "also[].name"."""
    hints = type_hints(kind)
    for item in dataclasses.fields(kind):
        key, annotation = f"{prefix}{item.name}", hints[item.name]
        yield key, annotation
        nested, element = dataclass_of(annotation), dataclass_of(element_of(annotation))
        if nested is not None:
            yield from _walk(nested, f"{key}.")
        elif element is not None:
            yield from _walk(element, f"{key}[].")


def _unnumbered(key: str) -> str:
    """Return the key without list indices, as in `_walk`: "also[].name" for "also[0].name"."""
    return re.sub(r"\[\d+\]", "[]", key)


def _nearest_key(key: str, kind: type, others: Sequence[str] = ()) -> str:
    """Return the end of a sentence that suggests known keys for an unknown one.

    Suggests, in this order: a typo's correction in the same section, the command that has the key, the same name in
    other sections, any similar name in the same section, known names.
    """
    section, _, name = _unnumbered(key).rpartition(".")
    keys = [other for other in dict(_walk(kind)) if "[]" not in other or other.startswith(f"{section}.")]
    names = {other: other.rpartition(".") for other in (*keys, *others)}
    siblings = [leaf for parent, _, leaf in names.values() if parent == section]
    if typo := difflib.get_close_matches(name, siblings, n=1, cutoff=0.85):
        return f" (did you mean {key.removesuffix(name) + typo[0]!r}?)"
    for stage, command in ((PretrainRecipe, "pretrain"), (TrainRecipe, "train")):
        if stage is not kind and key in dict(_walk(stage)):
            return f" (it belongs to 'emoreg {command}')"
    suggestions = [other for other, (_, _, leaf) in names.items() if leaf == name]
    if not suggestions:
        similar = difflib.get_close_matches(name, siblings, n=1, cutoff=0.5)
        suggestions = [key.removesuffix(name) + leaf for leaf in similar]
    if suggestions:
        return f" (did you mean {' or '.join(map(repr, suggestions))}?)"
    return nearest(name, siblings or names)
