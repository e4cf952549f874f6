"""Build the grid of a study from its file: merge the partial recipes of each cell."""

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

# Sections that a variant may change. All other settings are shared with the references.
VARIANT_SECTIONS = ("encoder", "regulation", "loss")
SHARED = tuple(f"loss.{name}" for name in SHARED_LOSS_SETTINGS)


@dataclass(frozen=True)
class FileValues:
    """The values of a study's file, which may have names of the first edition for some keys."""

    given: Mapping[str, Any]
    keys: Mapping[str, int]  # line numbers in the file, by dotted key
    words: Mapping[str, str]  # the file's names of current keys, where they differ

    def get(self, key: str, default: Any) -> Any:
        """Return the value of a current key."""
        return self.given.get(self.name(key), default)

    def name(self, key: str) -> str:
        """Return the file's name of a current key, which may be dotted."""
        head, dot, rest = key.partition(".")
        name, bracket, index = head.partition("[")
        return f"{self.words.get(name, name)}{bracket}{index}{dot}{rest}"


def grid_of(file: FileValues, study: Study) -> tuple[GridPoint, ...]:
    """Cross targets with backbones, and lay the file's partial recipes over each cell.

    Args:
        file: with the recipes.
        study: with all other values of the file.
    """
    targets = _parts("targets", file, "classifier", _target_name)
    backbones, variants = _backbones(file), _variants(file)
    return tuple(_grid_point(file, study, target, backbone, variants) for target in targets for backbone in backbones)


class _Part(NamedTuple):
    """A partial recipe of a list in the file."""

    key: str  # such as "targets[0]"
    label: str
    values: Mapping[str, Any]


class _BothStages(NamedTuple):
    """The partial recipes of a backbone or variant, for stage 2 and stage 1."""

    classifier: _Part
    pretraining: _Part


def _backbones(file: FileValues) -> list[_BothStages]:
    """The backbones of a file; without any, the one of the base recipes."""
    backbones = []
    for part in _parts("backbones", file, "classifier", _backbone_name):
        classifier = {key: value for key, value in part.values.items() if key != "pretraining"}
        stage_1 = _Part(f"{part.key}.pretraining", part.label, part.values.get("pretraining", {}))
        backbones.append(_BothStages(part._replace(values=classifier), stage_1))
    return backbones


def _variants(file: FileValues) -> list[_BothStages]:
    """The variants of a file. Raises SettingError for one without a name of its own, or with a shared setting."""
    variants: list[_BothStages] = []
    for number, part in enumerate(file.get("variants", ())):
        place, name = f"variants[{number}]", part.get("name")
        if not name:
            raise SettingError(f"{place}.name", "is missing: reports call a variant by its name")
        if any(name == earlier.classifier.label for earlier in variants):
            raise SettingError(f"{place}.name", f"'{name}' appears twice")
        overlay = part.get("classifier", {})
        for leaf, _ in flatten(overlay):
            if leaf.partition(".")[0] not in VARIANT_SECTIONS or leaf in SHARED:
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
    modes = tuple(dict.fromkeys(arm.mode for arm in study.arms if arm.has_regulated_mode))
    default: TrainRecipe = defaults(TrainRecipe, study.edition)
    if study.edition > 1:
        is_exploration = study.purpose == "exploration"
        splits = TargetSettings(validation=0.1 if is_exploration else 0.0, test=not is_exploration)
        default = replace(default, target=splits, backbone=BackboneSettings(stem=file.get("stem", "auto")))
    if variants or not modes:
        loss = {key: value for key, value in base.get("loss", {}).items() if key in SHARED_LOSS_SETTINGS}
        recipe = _recipe(default, {**base, "regulation": {}, "loss": loss}, sections, file)
    else:
        recipe = _regulated(default, base, modes, sections, file)
    variant_recipes = []
    for classifier, pretraining in variants if modes else ():
        variant = _regulated(default, _over(base, classifier.values), modes, (classifier.key, *sections), file)
        sets = tuple(_stimuli(file, study, variant, backbone.pretraining, pretraining))
        variant_recipes.append(Variant(classifier.label, variant, sets))
    sets = tuple(_stimuli(file, study, recipe, backbone.pretraining))
    return GridPoint(target.label, backbone.classifier.label, recipe, sets, tuple(variant_recipes))


def _regulated(
    default: TrainRecipe, values: Mapping[str, Any], modes: Sequence[str], sections: Sequence[str], file: FileValues
) -> TrainRecipe:
    """Build the recipe of regulated arms in one of their modes. Raises SettingError if it is wrong in any mode."""
    recipes = []
    # Learned modes come first: only their λ has a granularity, which `recipe_of` resets in the others.
    for mode in sorted(modes, key=lambda mode: mode not in LEARNED):
        regulation = {"mode": mode} if mode in LEARNED else {"mode": mode, "granularity": "scalar"}
        recipes.append(_recipe(default, _over(values, {"regulation": regulation}), sections, file))
    return recipes[0]


def _stimuli(file: FileValues, study: Study, classifier: TrainRecipe, *over: _Part) -> Iterator[StimuliRecipe]:
    """Yield stage 1 for a classifier on each of the file's stimuli, with the partial recipes `over` laid over it."""
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
    """Build a recipe from merged values. An error names the first of the `sections`, innermost first, with the key."""
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
    """Lay the nested settings of `part` over those of `base`."""
    merged = dict(base)
    for key, value in part.items():
        old = merged.get(key)
        merged[key] = _over(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _parts(key: str, file: FileValues, base: str, name_of: Callable[[Mapping[str, Any]], str]) -> list[_Part]:
    """The partial recipes of a list, labelled by name; equal names are followed by the settings that differ."""
    parts = file.get(key, ()) or [{}]
    merged = [_over(file.get(base, {}), part) for part in parts]
    names = [name_of(whole) for whole in merged]
    flat = [dict(flatten(whole)) for whole in merged]
    labelled: list[_Part] = []
    for number, (part, name, settings) in enumerate(zip(parts, names, flat, strict=True)):
        namesakes = [other for other, its_name in zip(flat, names, strict=True) if its_name == name]
        leaves = dict.fromkeys(leaf for other in namesakes for leaf in other)
        differing = [leaf for leaf in leaves if len({repr(other.get(leaf)) for other in namesakes}) > 1]
        details = [f"{leaf.rpartition('.')[2]} {settings[leaf]}" for leaf in differing if leaf in settings]
        label = ", ".join([name, *details])
        same = next((earlier.key for earlier in labelled if earlier.label == label), None)
        if same is not None:
            raise SettingError(file.name(f"{key}[{number}]"), f"is the same as {file.name(same)}")
        labelled.append(_Part(f"{key}[{number}]", label, part))
    return labelled


def _set_name(settings: Mapping[str, Any], default: str) -> str:
    """The name of a set; for the user's own folder or file, its stem."""
    name: str = settings.get("name", default)
    root: str | None = settings.get("root")
    return Path(root).stem if root and name in ("folder", "emotion_folder", "manifest") else name


def _target_name(values: Mapping[str, Any]) -> str:
    return _set_name(values.get("target", {}), TrainRecipe().target.name)


def _backbone_name(values: Mapping[str, Any]) -> str:
    name: str = values.get("backbone", {}).get("name", TrainRecipe().backbone.name)
    return Path(name).name if is_source(name) else name  # reports show no folders


def _stimuli_name(values: Mapping[str, Any]) -> str:
    sets = (values.get("stimuli", {}), *values.get("also", ()))
    return "+".join(_set_name(settings, PretrainRecipe().stimuli.name) for settings in sets)
