"""A study's file: base recipes, and the partial recipes that are laid over them to make a grid.

arms: [backbone, learned, random_encoder, shuffled_affect, neutral_pretext, ensemble]
seeds: 10
experience:            # stage 1, as for emoreg pretrain
  optimizer: {lr: 0.002}
experiences:           # one entry per stimulus set, laid over `experience`
  - stimuli: {name: oasis, root: oasis.zip}
  - stimuli: {name: procedural}
    training: {epochs: 15}
classifier:            # stage 2, as for emoreg train
  training: {epochs: 100}
targets:               # laid over `classifier`
  - target: {name: cifar10}
  - target: {name: cifar100}
backbones:             # laid over both
  - backbone: {name: resnet20}
  - backbone: {name: vit_tiny_patch16_224, patch_size: 4}
    optimizer: {name: adamw, lr: 0.001}
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from emoreg.config.recipe import SMOKE, build, flatten, put_setting, read_values
from emoreg.config.schema import Mode, PretrainRecipe, TrainRecipe, defaults
from emoreg.errors import SettingError, UserError, nearest
from emoreg.runtime.lock import LOCK
from emoreg.study.arms import ARMS

R = TypeVar("R", PretrainRecipe, TrainRecipe)
ControlMode = Literal["fixed", "random", "learned", "random_learned"]

FILE = "study.yaml"  # in a study's folder: a copy of the file that defines it
TABLE = "results.parquet"  # beside it, once the study has run
# More than anybody has time for: a typo such as one zero too many is refused before its plan fills the memory.
MAX_SEEDS, MAX_LISTED, MAX_RUNS = 1_000, 100, 100_000
# Settings that the arms, seeds and backbones of a study decide.
DECIDED = (
    *("experience.backbone", "experience.pretext", "experience.seed"),
    *("classifier.encoder.experience", "classifier.regulation.mode", "classifier.seed"),
)
# The lists of partial recipes that are laid over each base recipe.
LAID_OVER = {"experience": ("experiences",), "classifier": ("targets", "backbones")}


@dataclass(frozen=True)
class StudyFile:
    """The keys of a study's file. Recipes may be partial: settings left out keep the value of the recipe that the
    partial one is laid over, or else their default."""

    arms: tuple[str, ...] = tuple(ARMS)
    """Arms to compare: backbone, fixed, random, learned, random_learned, and the controls random_encoder,
    shuffled_affect, neutral_pretext, ensemble."""
    seeds: int = 5
    """Runs of each arm, with the seeds 0, 1, 2, ..., at most 1,000. At least 6 are needed to call a difference
    significant at 0.05."""
    control_mode: ControlMode = "learned"
    """Regulation mode of the controls random_encoder, shuffled_affect and neutral_pretext."""
    experience: PretrainRecipe = field(default_factory=PretrainRecipe)
    """Stage 1. The encoder has the architecture of classifier.encoder.backbone, or else of classifier.backbone; its
    image size is the target's unless given here."""
    experiences: tuple[PretrainRecipe, ...] = ()
    """Stimulus sets, each laid over `experience`; at most 100."""
    classifier: TrainRecipe = field(default_factory=TrainRecipe)
    """Stage 2."""
    targets: tuple[TrainRecipe, ...] = ()
    """Targets, each laid over `classifier`; at most 100."""
    backbones: tuple[TrainRecipe, ...] = ()
    """Backbones with the training that suits them, each laid over every target; at most 100."""

    def __post_init__(self) -> None:
        if not self.arms:
            raise SettingError("arms", "must name at least one arm")
        for number, arm in enumerate(self.arms):
            if arm not in ARMS:
                raise SettingError(f"arms[{number}]", f"no arm is called '{arm}'{nearest(arm, ARMS)}")
            if arm in self.arms[:number]:
                raise SettingError(f"arms[{number}]", f"'{arm}' appears twice")
        if not 1 <= self.seeds <= MAX_SEEDS:
            raise SettingError("seeds", f"must be 1 to {MAX_SEEDS:,}, not {self.seeds}")


@dataclass(frozen=True)
class ExperienceRecipe:
    """How an encoder learns from a stimulus set; each arm sets the pretext, each run the seed."""

    label: str  # in reports
    recipe: PretrainRecipe


@dataclass(frozen=True)
class GridPoint:
    """A target with a backbone, on which the arms are compared; each arm sets the mode, each run the seed."""

    target: str  # label in reports
    backbone: str  # label in reports
    recipe: TrainRecipe
    experiences: tuple[ExperienceRecipe, ...]


@dataclass(frozen=True)
class Study:
    """All that a study is to run."""

    name: str
    grid: tuple[GridPoint, ...]
    arms: tuple[str, ...] = tuple(ARMS)
    seeds: int = 5
    control_mode: Mode = "learned"
    values: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    """The values of its file: written as YAML they give the same study. None for a study made in Python."""


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


def read_study(path: Path | str, seeds: int | None = None, smoke: bool = False) -> Study:
    """Read a study's file.

    Args:
        path: the YAML file.
        seeds: replaces the file's number of seeds.
        smoke: one seed of one epoch over few images in every run, to see that all of it runs.

    Raises:
        UserError: unreadable file.
        SettingError: unknown key (names the nearest known one), wrong type or value; names the file, line and key.
    """
    path = Path(path)
    values, lines = read_values(StudyFile, path)
    if seeds is not None:
        values["seeds"] = seeds
        lines.pop("seeds", None)  # it is no longer the file's
    if smoke:
        values["seeds"] = 1
        for stage, base in ((PretrainRecipe, "experience"), (TrainRecipe, "classifier")):
            for key, value in SMOKE[stage].items():
                for place in (base, *(f"{name}[]" for name in LAID_OVER[base])):
                    put_setting(values, f"{place}.{key}", value)
    try:
        # The copy in a study's folder is always called study.yaml; the folder has the study's name.
        return _study(path.resolve().parent.name if is_kept(path) else path.stem, values, lines)
    except SettingError as error:
        raise error.at(path, lines.get(error.key)) from None


def _study(name: str, values: Mapping[str, Any], keys: Container[str]) -> Study:
    """The study that a file's values define; `keys` are those that stand in the file, dotted."""
    header = build(StudyFile(), {key: values[key] for key in ("arms", "seeds", "control_mode") if key in values})
    runs = header.seeds * len(header.arms)
    for key in ("experiences", "targets", "backbones"):
        entries = len(values.get(key, ()))
        if entries > MAX_LISTED:
            raise SettingError(key, f"must have at most {MAX_LISTED} entries, not {entries:,}; make several studies")
        runs *= max(entries, 1)
    if runs > MAX_RUNS:
        raise SettingError("seeds", f"{header.seeds:,} make up to {runs:,} runs; at most {MAX_RUNS:,} are possible")
    _refuse_decided(values)
    targets = _parts("targets", values, "classifier", _target_name)
    backbones = _parts("backbones", values, "classifier", _backbone_name)
    grid = tuple(_grid_point(values, target, backbone, keys) for target in targets for backbone in backbones)
    return Study(name, grid, header.arms, header.seeds, header.control_mode, values)


def _refuse_decided(values: Mapping[str, Any]) -> None:
    """SettingError for a setting that the study decides, in a base recipe or in a partial one laid over it."""
    for key in DECIDED:
        instead = "set classifier.encoder.backbone instead" if key == "experience.backbone" else "leave it out"
        base, _, setting = key.partition(".")
        parts = [(base, values.get(base, {}))]
        parts += [(f"{name}[{n}]", part) for name in LAID_OVER[base] for n, part in enumerate(values.get(name, ()))]
        for place, part in parts:
            if any(leaf == setting or leaf.startswith(f"{setting}.") for leaf, _ in flatten(part)):
                raise SettingError(f"{place}.{setting}", f"is decided by the study; {instead}")


class _Part(NamedTuple):
    """A partial recipe of a list in the file."""

    key: str  # such as "targets[0]"
    label: str
    values: Mapping[str, Any]


def _grid_point(values: Mapping[str, Any], target: _Part, backbone: _Part, keys: Container[str]) -> GridPoint:
    # A stand-in for each arm's own mode, with which a λ of any granularity is valid.
    base = _over(values.get("classifier", {}), {"regulation": {"mode": "learned"}})
    classifier = _over(_over(base, target.values), backbone.values)
    recipe = _recipe(defaults(TrainRecipe, 1), classifier, (backbone.key, target.key, "classifier"), keys)
    experiences = []
    for part in _parts("experiences", values, "experience", _experience_name):
        own = _over(values.get("experience", {}), part.values)
        sized = _over({"stimuli": {"image_size": recipe.target.image_size}}, own)
        size = {"image_size": sized["stimuli"]["image_size"]}
        sized["also"] = [_over(size, other) for other in sized.get("also", ())]
        stage1 = _recipe(defaults(PretrainRecipe, 1), sized, (part.key, "experience"), keys)
        experiences.append(ExperienceRecipe(part.label, replace(stage1, backbone=recipe.encoder_backbone)))
    return GridPoint(target.label, backbone.label, recipe, tuple(experiences))


def _recipe(default: R, values: Mapping[str, Any], sections: Sequence[str], keys: Container[str]) -> R:
    """A recipe from merged values. An error names the first of the `sections`, innermost first, that has the key."""
    try:
        recipe: R = build(default, values)
    except SettingError as error:
        section = next((one for one in sections if error.within(one).key in keys), sections[-1])
        raise error.within(section) from None
    return recipe


def _over(base: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with those of `part` laid over them."""
    merged = dict(base)
    for key, value in part.items():
        old = merged.get(key)
        merged[key] = _over(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _parts(key: str, values: Mapping[str, Any], base: str, name_of: Callable[[Mapping[str, Any]], str]) -> list[_Part]:
    """The partial recipes of a list, labelled by name; where names are equal, by the settings that differ too."""
    parts = values.get(key) or [{}]
    merged = [_over(values.get(base, {}), part) for part in parts]
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
            raise SettingError(f"{key}[{number}]", f"is the same as {same}")
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
    return name


def _experience_name(values: Mapping[str, Any]) -> str:
    sets = (values.get("stimuli", {}), *values.get("also", ()))
    return "+".join(_set_name(settings, PretrainRecipe().stimuli.name) for settings in sets)
