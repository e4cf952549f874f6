"""The grid of a study: what its file lays over what, cell by cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from emoreg.config.read_recipe import build, flatten
from emoreg.config.recipe import PretrainRecipe, TrainRecipe, defaults
from emoreg.config.schema import LEARNED, BackboneSettings, TargetSettings
from emoreg.errors import SettingError
from emoreg.models.weight_source import is_source
from emoreg.study.arms import SHARED_LOSS_SETTINGS
from emoreg.study.definition import GridPoint, StimuliRecipe, Study, Variant

R = TypeVar("R", PretrainRecipe, TrainRecipe)

# Sections that a variant may change. Everything else is shared with the references, or a comparison compares it.
OF_VARIANTS = ("encoder", "regulation", "loss")
OF_ALL = tuple(f"loss.{name}" for name in SHARED_LOSS_SETTINGS)


@dataclass(frozen=True)
class FileValues:
    """The values of a study's file, by today's keys."""

    given: Mapping[str, Any]
    keys: Mapping[str, int]  # lines of the keys that stand in the file, dotted
    words: Mapping[str, str]  # today's keys that have another name in this file

    def get(self, key: str, default: Any) -> Any:
        """What the file has under one of today's keys."""
        return self.given.get(self.name(key), default)

    def name(self, key: str) -> str:
        """What the file calls a key."""
        head, dot, rest = key.partition(".")
        name, bracket, index = head.partition("[")
        return f"{self.words.get(name, name)}{bracket}{index}{dot}{rest}"


def grid_of(file: FileValues, study: Study) -> tuple[GridPoint, ...]:
    """Every target with every backbone, and what is laid over both; `study` has all else of the file."""
    targets = _parts("targets", file, "classifier", _target_name)
    backbones, variants = _backbones(file), _variants(file)
    return tuple(_grid_point(file, study, target, backbone, variants) for target in targets for backbone in backbones)


class _Part(NamedTuple):
    """A partial recipe of a list in the file."""

    key: str  # such as "targets[0]"
    label: str
    values: Mapping[str, Any]


class _BothStages(NamedTuple):
    """What a backbone or a variant of the file lays over the recipes of stage 2 and of stage 1."""

    classifier: _Part
    pretraining: _Part


def _backbones(file: FileValues) -> list[_BothStages]:
    """The backbones of a file, or the base recipes alone, as the only one."""
    found = []
    for part in _parts("backbones", file, "classifier", _backbone_name):
        classifier = {key: value for key, value in part.values.items() if key != "pretraining"}
        stage_1 = _Part(f"{part.key}.pretraining", part.label, part.values.get("pretraining", {}))
        found.append(_BothStages(part._replace(values=classifier), stage_1))
    return found


def _variants(file: FileValues) -> list[_BothStages]:
    """The variants of a file; none without any. SettingError for one that has no name of its own, or changes more."""
    variants: list[_BothStages] = []
    for number, part in enumerate(file.get("variants", ())):
        place, name = f"variants[{number}]", part.get("name")
        if not name:
            raise SettingError(f"{place}.name", "is missing: reports call a variant by its name")
        if any(name == earlier.classifier.label for earlier in variants):
            raise SettingError(f"{place}.name", f"'{name}' appears twice")
        overlay = part.get("classifier", {})
        for leaf, _ in flatten(overlay):
            if leaf.partition(".")[0] not in OF_VARIANTS or leaf in OF_ALL:
                reason = "must not differ between variants, which share the references: set it in the base recipe"
                raise SettingError(f"{place}.classifier.{leaf}", reason)
        parts = (_Part(f"{place}.{base}", name, part.get(base, {})) for base in ("classifier", "pretraining"))
        variants.append(_BothStages(*parts))
    return variants


def _grid_point(
    file: FileValues, study: Study, target: _Part, backbone: _BothStages, variants: Sequence[_BothStages]
) -> GridPoint:
    base = _over(_over(file.get("classifier", {}), target.values), backbone.classifier.values)
    sections = (backbone.classifier.key, target.key, "classifier")
    modes = tuple(dict.fromkeys(arm.mode for arm in study.arms if arm.is_regulated))
    default: TrainRecipe = defaults(TrainRecipe, study.edition)
    if study.edition > 1:
        is_exploration = study.purpose == "exploration"
        splits = TargetSettings(validation=0.1 if is_exploration else 0.0, test=not is_exploration)
        first = BackboneSettings(stem=file.get("stem", "auto"))
        default = replace(default, target=splits, backbone=first)
    if variants or not modes:
        loss = {key: value for key, value in base.get("loss", {}).items() if key in SHARED_LOSS_SETTINGS}
        recipe = _recipe(default, {**base, "regulation": {}, "loss": loss}, sections, file)
    else:
        recipe = _regulated(default, base, modes, sections, file)
    of_variants = []
    for classifier, pretraining in variants if modes else ():
        own_recipe = _regulated(default, _over(base, classifier.values), modes, (classifier.key, *sections), file)
        sets = tuple(_stimuli(file, study, own_recipe, backbone.pretraining, pretraining))
        of_variants.append(Variant(classifier.label, own_recipe, sets))
    sets = tuple(_stimuli(file, study, recipe, backbone.pretraining))
    return GridPoint(target.label, backbone.classifier.label, recipe, sets, tuple(of_variants))


def _regulated(
    default: TrainRecipe, values: Mapping[str, Any], modes: Sequence[str], sections: Sequence[str], file: FileValues
) -> TrainRecipe:
    """The recipe of regulated arms, with one of their modes; SettingError if it is wrong in any of them."""
    recipes = []
    # Only a learned λ can differ between classes or samples: where there is one, it stands for the others.
    for mode in sorted(modes, key=lambda mode: mode not in LEARNED):
        regulation = {"mode": mode} if mode in LEARNED else {"mode": mode, "granularity": "scalar"}
        recipes.append(_recipe(default, _over(values, {"regulation": regulation}), sections, file))
    return recipes[0]


def _stimuli(file: FileValues, study: Study, classifier: TrainRecipe, *over: _Part) -> Iterator[StimuliRecipe]:
    """Stage 1 for a classifier on each of the file's stimulus sets, a backbone's and a variant's settings over it."""
    default: PretrainRecipe = defaults(PretrainRecipe, study.edition)
    for part in _parts("stimuli", file, "pretraining", _stimuli_name):
        settings = _over(file.get("pretraining", {}), part.values)
        sections = [part.key, "pretraining"]
        for each in over:
            settings, sections = _over(settings, each.values), [each.key, *sections]
        sized = _over({"stimuli": {"image_size": classifier.target.image_size}}, settings)
        size = {"image_size": sized["stimuli"]["image_size"]}
        sized["also"] = [_over(size, other) for other in sized.get("also", ())]
        recipe = _recipe(default, sized, sections, file)
        yield StimuliRecipe(part.label, replace(recipe, backbone=classifier.encoder_backbone))


def _recipe(default: R, values: Mapping[str, Any], sections: Sequence[str], file: FileValues) -> R:
    """A recipe from merged values. An error names the first of the `sections`, innermost first, that has the key."""
    stem = file.get("stem", "auto")
    encoder = values.get("encoder", {}).get("backbone")
    if stem != "auto" and encoder is not None and "stem" not in encoder:
        values = _over(values, {"encoder": {"backbone": {"stem": stem}}})
    try:
        recipe: R = build(default, values)
    except SettingError as error:
        names = [file.name(section) for section in sections]
        section = next((one for one in names if error.within(one).key in file.keys), names[-1])
        raise error.within(section) from None
    return recipe


def _over(base: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with those of `part` laid over them."""
    merged = dict(base)
    for key, value in part.items():
        old = merged.get(key)
        merged[key] = _over(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _parts(key: str, file: FileValues, base: str, name_of: Callable[[Mapping[str, Any]], str]) -> list[_Part]:
    """The partial recipes of a list, labelled by name; where names are equal, by the settings that differ too."""
    parts = file.get(key, ()) or [{}]
    merged = [_over(file.get(base, {}), part) for part in parts]
    names = [name_of(whole) for whole in merged]
    flat = [dict(flatten(whole)) for whole in merged]
    labelled: list[_Part] = []
    for number, (part, name, set_to) in enumerate(zip(parts, names, flat, strict=True)):
        namesakes = [other for other, its_name in zip(flat, names, strict=True) if its_name == name]
        leaves = dict.fromkeys(leaf for other in namesakes for leaf in other)
        differing = [leaf for leaf in leaves if len({repr(other.get(leaf)) for other in namesakes}) > 1]
        label = ", ".join(
            [name, *(f"{leaf.rpartition('.')[2]} {set_to[leaf]}" for leaf in differing if leaf in set_to)]
        )
        same = next((earlier.key for earlier in labelled if earlier.label == label), None)
        if same is not None:
            raise SettingError(file.name(f"{key}[{number}]"), f"is the same as {file.name(same)}")
        labelled.append(_Part(f"{key}[{number}]", label, part))
    return labelled


def _set_name(settings: Mapping[str, Any], default: str) -> str:
    """The name of a set; of a folder or file of the user's own, its stem."""
    name: str = settings.get("name", default)
    root: str | None = settings.get("root")
    return Path(root).stem if root and name in ("folder", "emotion_folder", "manifest") else name


def _target_name(values: Mapping[str, Any]) -> str:
    return _set_name(values.get("target", {}), TrainRecipe().target.name)


def _backbone_name(values: Mapping[str, Any]) -> str:
    name: str = values.get("backbone", {}).get("name", TrainRecipe().backbone.name)
    return Path(name).name if is_source(name) else name  # a report tells no folders


def _stimuli_name(values: Mapping[str, Any]) -> str:
    sets = (values.get("stimuli", {}), *values.get("also", ()))
    return "+".join(_set_name(settings, PretrainRecipe().stimuli.name) for settings in sets)
