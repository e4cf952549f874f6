"""From a study's file to the study."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from emoreg.config.read_recipe import build, flatten, put_setting, smoke_settings, typed_values
from emoreg.config.recipe import EDITION, PretrainRecipe, TrainRecipe, defaults
from emoreg.config.schema import LEARNED, BackboneSettings, TargetSettings
from emoreg.config.setting_types import path_of, typed_value
from emoreg.config.strict_yaml import read_yaml
from emoreg.errors import SettingError, UserError, printable
from emoreg.models.weight_source import is_source
from emoreg.runtime.lock import LOCK
from emoreg.runtime.progress import Progress
from emoreg.study import first_edition
from emoreg.study.arms import SHARED_OF_LOSS, factorial
from emoreg.study.definition import GridPoint, StimuliRecipe, Study, Variant, needs_machine, on_machine
from emoreg.study.kept_data import with_those_here
from emoreg.study.machine import Machine
from emoreg.study.study_file import StudyFile
from emoreg.suites.options import shrunk, written_out

R = TypeVar("R", PretrainRecipe, TrainRecipe)

FILE = "study.yaml"  # in a study's folder: a copy of the file that defines it
TABLE = "results.parquet"  # beside it, once the study has run
# More than anybody has time for: a typo such as one zero too many is refused before its plan fills the memory.
MAX_LISTED, MAX_RUNS = 100, 100_000
# Settings of the recipes that the study decides.
DECIDED = (
    *("pretraining.backbone", "pretraining.pretext", "pretraining.seed", "pretraining.edition"),
    *("classifier.encoder.experience", "classifier.encoder.moments_only", "classifier.regulation.mode"),
    *("classifier.seed", "classifier.edition", "classifier.target.test"),
)
INSTEAD = {
    "pretraining.backbone": "set classifier.encoder.backbone instead",
    "classifier.target.test": "set the study's purpose: an exploration leaves the test split unseen",
}
# The lists of partial recipes that are laid over each base recipe.
LAID_OVER = {"pretraining": ("stimuli",), "classifier": ("targets", "backbones")}
# Sections that a variant may change. Everything else is shared with the references, or a comparison compares it.
OF_VARIANTS = ("encoder", "regulation", "loss")
OF_ALL = tuple(f"loss.{name}" for name in SHARED_OF_LOSS)
# Keys that hold recipes, and those that hold anything else.
RECIPES = ("pretraining", "stimuli", "classifier", "targets", "backbones", "variants")
HEADER = tuple(item.name for item in fields(StudyFile) if item.name not in RECIPES)


def with_data(study: Study, out: Path) -> Study:
    """The study with what is known of its images: by its folder `out`, and of others by what is here now."""
    before = None if study.data else _kept(out)
    data = with_those_here(study.data if before is None else before.data, study.recipes)
    values = None if study.values is None else {**study.values, "data": [asdict(each) for each in data]}
    return replace(study, data=data, values=values)


def with_machine(study: Study, out: Path, here: Machine) -> Study:
    """The study with what its `auto` stands for, if a machine decides that: what it was when the folder was begun.

    Otherwise some of its runs would be of one precision, and the rest of another. On a device of another kind it is
    another study, with runs of its own.

    Args:
        study: whose machine is asked for if `needs_machine`.
        out: the study's folder.
        here: what `auto` stands for where the runs are done.
    """
    if not needs_machine(study):
        return study
    before = _kept(out)
    machine = None if before is None else before.machine
    return on_machine(study, here if machine is None or machine.device != here.device else machine)


def _kept(out: Path) -> Study | None:
    """The study whose copy a folder has; None without one."""
    copy = out / FILE
    if copy.is_file():
        with contextlib.suppress(UserError):  # a damaged copy knows nothing
            return read_study(copy)
    return None


def find_study(path: Path | str) -> Path:
    """The file of a study, given that file or the folder that 'emoreg study' made. UserError if there is none."""
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        what = f"{path} is not a study's folder: it has no {FILE}" if path.is_dir() else f"no study file {path}"
        raise UserError(f"{what}; give a YAML file, see recipes/studies/, or the folder that 'emoreg study' made")
    return file


def is_kept(path: Path) -> bool:
    """Whether this is the copy in a study's folder, rather than a user's own file of the same name."""
    return path.name == FILE and any((path.parent / trace).exists() for trace in (TABLE, LOCK))


def read_study(
    path: Path | str,
    seeds: int | None = None,
    smoke: bool = False,
    is_stored: bool | None = None,
    progress: Progress | None = None,
) -> Study:
    """Read a study's file. Keys of the first edition, in a file that does not say its edition, are read as today's.

    Args:
        path: the YAML file.
        seeds: how many to run for now, also more than the file plans; the plan stays. None for those of the file.
        smoke: one seed of one epoch over few images in every run, to see that all of it runs.
        is_stored: whether 'emoreg study' wrote the file. It is then read as it is: without an edition it is of the
            first, else of the current one. None to tell by its place.
        progress: says what keys of the first edition were taken for; None for the terminal.

    Raises:
        UserError: unreadable file.
        SettingError: unknown key (names the nearest known one), wrong type or value; names the file, line and key.
    """
    path, seeds = path_of(path, "path"), typed_value(int | None, seeds, "seeds")
    is_copy = is_kept(path)
    # The copy in a study's folder is always called study.yaml; the folder has the study's name.
    name = path.resolve().parent.name if is_copy else path.stem
    raw, lines = read_yaml(path)
    given = raw if isinstance(raw, Mapping) else {}
    is_stored = is_copy if is_stored is None else is_stored
    edition = given.get("edition", 1 if is_stored else EDITION)
    read_as = None
    if edition != 1 and "edition" in given and (old := first_edition.old_key(given)) is not None:
        raise SettingError(*old, path, lines.get(old[0]))
    if edition != 1:
        try:
            translation = first_edition.translated(given)
        except SettingError as error:
            raise error.at(path, lines.get(error.key)) from None
        if translation is not None:
            raw, lines, read_as = translation.values, translation.lines(lines), translation.read_as
    kind = first_edition.StudyFile if edition == 1 else StudyFile
    if edition != 1 and isinstance(raw, Mapping) and "suites" in raw:
        raw = {**raw, "suites": written_out(raw["suites"])}
    values = {"edition": edition, **typed_values(kind, raw, lines, path)}
    if edition == EDITION:
        values["stem"] = values.get("stem") or ("cifar" if is_stored else "auto")
    if seeds is not None:
        key = "seeds" if edition == 1 else "run_seeds"
        values[key] = seeds
        lines.pop(key, None)  # it is no longer the file's
    words = first_edition.WORDS if edition == 1 else {}
    try:
        study = _study(name, _File(values, lines, words))
        if not is_stored:  # what a study began with stays readable; of a smoke run, variants may be alike
            _refuse_without_effect(study)
    except SettingError as error:
        raise error.at(path, lines.get(error.key)) from None
    if read_as is not None:
        line = f"emoreg: {path}: keys of the first edition: {read_as}; now edition {EDITION} of the method, with its "
        (progress or Progress()).say(printable(f"{line}defaults; write 'edition: 1' to keep the first"))
    if smoke:
        values = {key: value for key, value in values.items() if key not in ("looks", "run_seeds")} | {"seeds": 1}
        _shrink(values, words)
        if "suites" in values:
            values["suites"] = shrunk(values["suites"])
        study = _study(name, _File(values, lines, words))
    return replace(study, read_as=read_as)


def _refuse_without_effect(study: Study) -> None:
    """SettingError for looks that nobody takes, suites that cannot be scored, and a variant under a second name."""
    if study.suites and (others := [point for point in study.grid if point.recipe.target.task != "classification"]):
        reason = f"must be left out with the target {others[0].target}: suites score classifiers of one class an image"
        raise SettingError("suites", reason)
    if study.purpose == "exploration" and study.looks is not None:
        raise SettingError("looks", "must be left out of an exploration, which gives no verdicts")
    variants = enumerate(zip(*(point.variants for point in study.grid), strict=True))
    for (first, one), (second, other) in itertools.combinations(variants, 2):
        if all((a.recipe, a.stimuli) == (b.recipe, b.stimuli) for a, b in zip(one, other, strict=True)):
            reason = f"has the same settings as variants[{first}], '{one[0].label}'; change one, or leave it out"
            raise SettingError(f"variants[{second}]", reason)


def _shrink(values: dict[str, Any], words: Mapping[str, str]) -> None:
    """Smoke settings in every recipe of a file's values."""
    for stage, base in ((PretrainRecipe, "pretraining"), (TrainRecipe, "classifier")):
        places = [words.get(name, name) for name in (base, *LAID_OVER[base])]
        for key, value in smoke_settings(stage, values["edition"]).items():
            for place in (places[0], *(f"{name}[]" for name in places[1:])):
                put_setting(values, f"{place}.{key}", value)
    for part in (*values.get("variants", ()), *values.get("backbones", ())):
        for key, value in smoke_settings(PretrainRecipe, values["edition"]).items() if "pretraining" in part else ():
            put_setting(part, f"pretraining.{key}", value)


@dataclass(frozen=True)
class _File:
    """The values of a study's file, by today's keys."""

    given: Mapping[str, Any]
    keys: Mapping[str, int]  # lines of the keys that stand in the file, dotted
    words: Mapping[str, str]  # today's keys that have another name in this file

    def get(self, key: str, default: Any) -> Any:
        return self.given.get(self.name(key), default)

    def name(self, key: str) -> str:
        """What the file calls a key."""
        head, dot, rest = key.partition(".")
        name, bracket, index = head.partition("[")
        return f"{self.words.get(name, name)}{bracket}{index}{dot}{rest}"


def _study(name: str, file: _File) -> Study:
    """The study that a file's values define."""
    if (edition := file.given["edition"]) == 1:
        old = build(first_edition.StudyFile(), _header(file, ("edition", "arms", "seeds", "control_mode", "data")))
        arms = tuple(first_edition.arm_of(arm, old.control_mode) for arm in old.arms)
        study = Study(name, (), arms, old.seeds, purpose=None, edition=1, data=old.data, values=file.given)
    else:
        new: StudyFile = build(StudyFile(), _header(file, HEADER))
        if edition != EDITION:
            raise SettingError("edition", f"must be 1 or {EDITION}, not {edition}")
        arms = factorial(new.modes, new.experiences, new.references, new.relatives)
        plan = (new.seeds, new.looks, new.run_seeds, new.first_seed, new.purpose, new.machine)
        study = Study(name, (), arms, *plan, EDITION, new.data, new.suites, values=file.given)
    runs = len(study.seed_numbers) * len(arms)
    for key in ("stimuli", "targets", "backbones", "variants"):
        entries = len(file.get(key, ()))
        if entries > MAX_LISTED:
            raise SettingError(
                file.name(key), f"must have at most {MAX_LISTED} entries, not {entries:,}; make several studies"
            )
        runs *= max(entries, 1)
    if runs > MAX_RUNS:
        seeds = len(study.seed_numbers)
        raise SettingError("seeds", f"{seeds:,} make up to {runs:,} runs; at most {MAX_RUNS:,} are possible")
    _refuse_decided(file)
    targets = _parts("targets", file, "classifier", _target_name)
    backbones = _backbones(file)
    variants = _variants(file)
    return replace(
        study,
        grid=tuple(
            _grid_point(file, study, target, backbone, variants) for target in targets for backbone in backbones
        ),
    )


def _header(file: _File, keys: Sequence[str]) -> dict[str, Any]:
    return {key: file.given[key] for key in keys if key in file.given}


def _refuse_decided(file: _File) -> None:
    """SettingError for a setting that the study decides, in a base recipe or in a partial one laid over it."""
    for key in DECIDED:
        base, _, setting = key.partition(".")
        parts = [(base, file.get(base, {}))]
        parts += [(f"{name}[{n}]", part) for name in LAID_OVER[base] for n, part in enumerate(file.get(name, ()))]
        for name in ("variants", "backbones"):
            parts += [(f"{name}[{n}].{base}", part.get(base, {})) for n, part in enumerate(file.get(name, ()))]
        for place, part in parts:
            if any(leaf == setting or leaf.startswith(f"{setting}.") for leaf, _ in flatten(part)):
                reason = f"is decided by the study; {INSTEAD.get(key, 'leave it out')}"
                raise SettingError(f"{file.name(place)}.{setting}", reason)


class _Part(NamedTuple):
    """A partial recipe of a list in the file."""

    key: str  # such as "targets[0]"
    label: str
    values: Mapping[str, Any]


class _Backbone(NamedTuple):
    """A backbone of the file, with what its encoders need in stage 1."""

    classifier: _Part
    pretraining: _Part


def _backbones(file: _File) -> list[_Backbone]:
    """The backbones of a file, or the base recipes alone, as the only one."""
    found = []
    for part in _parts("backbones", file, "classifier", _backbone_name):
        own = {key: value for key, value in part.values.items() if key != "pretraining"}
        stage_1 = _Part(f"{part.key}.pretraining", part.label, part.values.get("pretraining", {}))
        found.append(_Backbone(part._replace(values=own), stage_1))
    return found


class _Variant(NamedTuple):
    """A variant of the file, or the base recipes alone, as the only one."""

    label: str | None
    classifier: _Part
    pretraining: _Part


def _variants(file: _File) -> list[_Variant]:
    """The variants of a file; none without any. SettingError for one that has no name of its own, or changes more."""
    variants: list[_Variant] = []
    for number, part in enumerate(file.get("variants", ())):
        place, name = f"variants[{number}]", part.get("name")
        if not name:
            raise SettingError(f"{place}.name", "is missing: reports call a variant by its name")
        if any(name == earlier.label for earlier in variants):
            raise SettingError(f"{place}.name", f"'{name}' appears twice")
        overlay = part.get("classifier", {})
        for leaf, _ in flatten(overlay):
            if leaf.partition(".")[0] not in OF_VARIANTS or leaf in OF_ALL:
                reason = "must not differ between variants, which share the references: set it in the base recipe"
                raise SettingError(f"{place}.classifier.{leaf}", reason)
        parts = (_Part(f"{place}.{base}", name, part.get(base, {})) for base in ("classifier", "pretraining"))
        variants.append(_Variant(name, *parts))
    return variants


def _grid_point(
    file: _File, study: Study, target: _Part, backbone: _Backbone, variants: Sequence[_Variant]
) -> GridPoint:
    base = _over(_over(file.get("classifier", {}), target.values), backbone.classifier.values)
    sections = (backbone.classifier.key, target.key, "classifier")
    modes = tuple(dict.fromkeys(arm.mode for arm in study.arms if arm.is_regulated))
    default: TrainRecipe = defaults(TrainRecipe, study.edition)
    if study.edition > 1:
        is_exploration = study.purpose == "exploration"
        own = TargetSettings(validation=0.1 if is_exploration else 0.0, test=not is_exploration)
        first = BackboneSettings(stem=file.get("stem", "auto"))
        default = replace(default, target=own, backbone=first)
    if variants or not modes:
        loss = {key: value for key, value in base.get("loss", {}).items() if key in SHARED_OF_LOSS}
        recipe = _recipe(default, {**base, "regulation": {}, "loss": loss}, sections, file)
    else:
        recipe = _regulated(default, base, modes, sections, file)
    of_variants = []
    for label, classifier, pretraining in variants if modes else ():
        own_recipe = _regulated(default, _over(base, classifier.values), modes, (classifier.key, *sections), file)
        sets = tuple(_stimuli(file, study, own_recipe, backbone.pretraining, pretraining))
        of_variants.append(Variant(label, own_recipe, sets))
    sets = tuple(_stimuli(file, study, recipe, backbone.pretraining))
    return GridPoint(target.label, backbone.classifier.label, recipe, sets, tuple(of_variants))


def _regulated(
    default: TrainRecipe, values: Mapping[str, Any], modes: Sequence[str], sections: Sequence[str], file: _File
) -> TrainRecipe:
    """The recipe of regulated arms, with one of their modes; SettingError if it is wrong in any of them."""
    recipes = []
    # Only a learned λ can differ between classes or samples: where there is one, it stands for the others.
    for mode in sorted(modes, key=lambda mode: mode not in LEARNED):
        own = {"mode": mode} if mode in LEARNED else {"mode": mode, "granularity": "scalar"}
        recipes.append(_recipe(default, _over(values, {"regulation": own}), sections, file))
    return recipes[0]


def _stimuli(file: _File, study: Study, classifier: TrainRecipe, *over: _Part) -> Iterator[StimuliRecipe]:
    """Stage 1 for a classifier on each of the file's stimulus sets, a backbone's and a variant's settings over it."""
    default: PretrainRecipe = defaults(PretrainRecipe, study.edition)
    for part in _parts("stimuli", file, "pretraining", _stimuli_name):
        own = _over(file.get("pretraining", {}), part.values)
        sections = [part.key, "pretraining"]
        for each in over:
            own, sections = _over(own, each.values), [each.key, *sections]
        sized = _over({"stimuli": {"image_size": classifier.target.image_size}}, own)
        size = {"image_size": sized["stimuli"]["image_size"]}
        sized["also"] = [_over(size, other) for other in sized.get("also", ())]
        recipe = _recipe(default, sized, sections, file)
        yield StimuliRecipe(part.label, replace(recipe, backbone=classifier.encoder_backbone))


def _recipe(default: R, values: Mapping[str, Any], sections: Sequence[str], file: _File) -> R:
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


def _parts(key: str, file: _File, base: str, name_of: Callable[[Mapping[str, Any]], str]) -> list[_Part]:
    """The partial recipes of a list, labelled by name; where names are equal, by the settings that differ too."""
    parts = file.get(key, ()) or [{}]
    merged = [_over(file.get(base, {}), part) for part in parts]
    names = [name_of(whole) for whole in merged]
    flat = [dict(flatten(whole)) for whole in merged]
    labelled: list[_Part] = []
    for number, (part, name, own) in enumerate(zip(parts, names, flat, strict=True)):
        namesakes = [other for other, its_name in zip(flat, names, strict=True) if its_name == name]
        leaves = dict.fromkeys(leaf for other in namesakes for leaf in other)
        differing = [leaf for leaf in leaves if len({repr(other.get(leaf)) for other in namesakes}) > 1]
        label = ", ".join([name, *(f"{leaf.rpartition('.')[2]} {own[leaf]}" for leaf in differing if leaf in own)])
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
