"""A study's file: base recipes, and the partial recipes that are laid over them to make a grid.

arms: [backbone, learned, random_encoder, shuffled_affect, neutral_pretext, ensemble]
seeds: 10
experience:            # stage 1, as for emoreg pretrain
  optimizer: {lr: 0.002}
experiences:           # a line a stimulus set, laid over `experience`
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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from emoreg.config.recipe import SMOKE, SMOKE_LISTS, build, flatten, put_setting, read_values
from emoreg.config.schema import Mode, PretrainRecipe, TrainRecipe
from emoreg.errors import UserError, nearest
from emoreg.runtime.lock import LOCK
from emoreg.study.arms import ARMS

R = TypeVar("R", PretrainRecipe, TrainRecipe)
ControlMode = Literal["fixed", "random", "learned", "random_learned"]

FILE = "study.yaml"  # in a study's folder: what was asked
TABLE = "results.parquet"  # beside it, once the study has been run
# Nobody has time for more, and a typo such as one zero too many is told before a plan of it fills the memory.
MAX_SEEDS, MAX_LISTED, MAX_RUNS = 1_000, 100, 100_000
# What the arms, seeds and backbones of a study decide.
DECIDED = (
    *("experience.backbone", "experience.pretext", "experience.seed"),
    *("classifier.encoder.experience", "classifier.regulation.mode", "classifier.seed"),
)


@dataclass(frozen=True)
class StudyFile:
    """The keys of a study's file. Recipes are given in part: what is left out is as in the recipe below, or default."""

    arms: tuple[str, ...] = tuple(ARMS)
    """What is compared, of: backbone, fixed, random, learned, random_learned, and the controls random_encoder,
    shuffled_affect, neutral_pretext, ensemble."""
    seeds: int = 5
    """Runs of each arm, with the seeds 0, 1, 2, ... To call anything significant at 0.05, 6 are the least."""
    control_mode: ControlMode = "learned"
    """Regulation of the controls random_encoder, shuffled_affect and neutral_pretext."""
    experience: PretrainRecipe = field(default_factory=PretrainRecipe)
    """Stage 1. The encoder's architecture is classifier.encoder.backbone, or else classifier.backbone; the image
    size that of the target unless it is given."""
    experiences: tuple[PretrainRecipe, ...] = ()
    """Stimulus sets, each laid over `experience`."""
    classifier: TrainRecipe = field(default_factory=TrainRecipe)
    """Stage 2."""
    targets: tuple[TrainRecipe, ...] = ()
    """Targets, each laid over `classifier`."""
    backbones: tuple[TrainRecipe, ...] = ()
    """Backbones with the training that suits them, each laid over every target."""


@dataclass(frozen=True)
class Experience:
    """A stimulus set and how an encoder learns from it, but for the pretext and the seed."""

    label: str  # in reports
    recipe: PretrainRecipe


@dataclass(frozen=True)
class Cell:
    """A target with a backbone: what the arms are compared on."""

    target: str  # labels in reports
    backbone: str
    recipe: TrainRecipe  # but for the arm and the seed
    experiences: tuple[Experience, ...]


@dataclass(frozen=True)
class Study:
    """All that a study is to run."""

    name: str
    cells: tuple[Cell, ...]
    arms: tuple[str, ...] = tuple(ARMS)
    seeds: int = 5
    control_mode: Mode = "learned"
    values: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    """Of its file: written as YAML they give the same study. None for a study made in Python."""


def find_study(path: Path | str) -> Path:
    """A study's file, given that file or the folder of a study that was run. UserError if there is none."""
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        what = f"{path} has no {FILE}: it is no study's folder" if path.is_dir() else f"no study's file {path}"
        raise UserError(f"{what}; give a YAML file, see recipes/studies/, or the folder that 'emoreg study' made")
    return file


def is_kept(path: Path) -> bool:
    """Whether this is the file that a study's folder keeps, and not one that a person called the same."""
    return path.name == FILE and any((path.parent / trace).exists() for trace in (TABLE, LOCK))


def read_study(path: Path | str, seeds: int | None = None, smoke: bool = False) -> Study:
    """Read a study's file.

    Args:
        path: of the YAML file.
        seeds: in place of the file's.
        smoke: one seed of one epoch over few images in every run, to see that all of it runs.

    Raises:
        UserError: unreadable file, unknown key (the nearest known one is named), wrong type, value out of range;
            names the file, line and key.
    """
    path = Path(path)
    values, lines = read_values(StudyFile, path)
    if seeds is not None:
        values["seeds"] = seeds
    if smoke:
        values["seeds"] = 1
        for stage, base, lists in (
            (PretrainRecipe, "experience", ("experiences",)),
            (TrainRecipe, "classifier", ("targets", "backbones")),
        ):
            for key, value in (SMOKE[stage] | SMOKE_LISTS[stage]).items():
                for place in (base, *(f"{name}[]" for name in lists)):
                    put_setting(values, f"{place}.{key}", value)
    try:
        # The file that a folder keeps is called like any other's; the folder has the study's name.
        name = path.resolve().parent.name if is_kept(path) else path.stem
        return _study(name, values)
    except _WrongKey as error:
        line = next((f":{lines[key]}" for place in error.places for key in lines if _is_within(key, place)), "")
        raise UserError(f"{path}{line}: {error}") from None


def _is_within(key: str, place: str) -> bool:
    return key == place or key.startswith((f"{place}.", f"{place}["))


class _WrongKey(Exception):
    """A message, and the keys of the file that it may be about, the likeliest first."""

    def __init__(self, message: str, places: Sequence[str]) -> None:
        super().__init__(message)
        self.places = places


def _study(name: str, values: Mapping[str, Any]) -> Study:
    try:
        header = build(StudyFile(), {key: values[key] for key in ("arms", "seeds", "control_mode") if key in values})
    except ValueError as error:
        raise _WrongKey(str(error), [str(error).split(" ")[0].partition("[")[0]]) from None
    for arm in header.arms:
        if arm not in ARMS:
            raise _WrongKey(f"no arm is called '{arm}'{nearest(arm, ARMS)}", ["arms"])
        if header.arms.count(arm) > 1:
            raise _WrongKey(f"arms names '{arm}' twice", ["arms"])
    if not header.arms:
        raise _WrongKey("arms is empty; name at least one", ["arms"])
    if not 1 <= header.seeds <= MAX_SEEDS:
        limit = "at least 1" if header.seeds < 1 else f"at most {MAX_SEEDS:,}"
        raise _WrongKey(f"seeds is {header.seeds}; it must be {limit}", ["seeds"])
    assert header.control_mode in get_args(Mode)
    runs = header.seeds * len(header.arms)
    for key in ("experiences", "targets", "backbones"):
        listed = values.get(key) or []
        if not isinstance(listed, list):
            raise _WrongKey(f"{key} must be a list of mappings, each begun with '- '", [key])
        if len(listed) > MAX_LISTED:
            raise _WrongKey(f"{key} has {len(listed):,} entries; at most {MAX_LISTED}: make several studies", [key])
        runs *= max(len(listed), 1)
    if runs > MAX_RUNS:
        raise _WrongKey(f"seeds {header.seeds} makes up to {runs:,} runs; at most {MAX_RUNS:,}", ["seeds"])
    for key in DECIDED:
        for place in _places(key, values):
            hint = "the encoder has classifier.encoder.backbone" if key == "experience.backbone" else "leave it out"
            raise _WrongKey(f"{place} is decided by the study; {hint}", [place])
    targets, backbones = values.get("targets") or [{}], values.get("backbones") or [{}]
    target_labels = _labels("targets", targets, values.get("classifier"), _target_name)
    backbone_labels = _labels("backbones", backbones, values.get("classifier"), _backbone_name)
    cells = [
        _cell(values, (target_label, number, target), (backbone_label, index, backbone))
        for number, (target_label, target) in enumerate(zip(target_labels, targets, strict=True))
        for index, (backbone_label, backbone) in enumerate(zip(backbone_labels, backbones, strict=True))
    ]
    return Study(name, tuple(cells), header.arms, header.seeds, header.control_mode, values)


def _places(key: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Where a key of a base recipe, or of the partial recipes over it, stands in the file."""
    base, _, rest = key.partition(".")
    lists = ("experiences",) if base == "experience" else ("targets", "backbones")
    parts = [(base, values.get(base) or {})]
    parts += [(f"{name}[{n}]", part) for name in lists for n, part in enumerate(values.get(name) or ())]
    for place, part in parts:
        if any(leaf == rest or leaf.startswith(f"{rest}.") for leaf, _ in flatten(part)):
            yield f"{place}.{rest}"


Part = tuple[str, int, Mapping[str, Any]]  # label, number in its list, values


def _cell(values: Mapping[str, Any], target: Part, backbone: Part) -> Cell:
    # The mode is a stand-in, so that what needs a learned λ can be checked; each arm sets its own.
    base = _over(values.get("classifier") or {}, {"regulation": {"mode": "learned"}})
    places = [f"backbones[{backbone[1]}]", f"targets[{target[1]}]", "classifier"]
    recipe = _recipe(TrainRecipe(), _over(_over(base, target[2]), backbone[2]), places)
    encoder = recipe.encoder.backbone or recipe.backbone

    shared, parts = values.get("experience") or {}, values.get("experiences") or [{}]
    experiences = []
    for number, (label, part) in enumerate(
        zip(_labels("experiences", parts, shared, _experience_name), parts, strict=True)
    ):
        own = _over(shared, part)
        size = (own.get("stimuli") or {}).get("image_size", recipe.target.image_size)
        sized = _over(own, {"stimuli": {"image_size": size}})
        if isinstance(sized.get("also"), list):
            sized["also"] = [_over({"image_size": size}, other) for other in sized["also"]]
        stage1 = _recipe(PretrainRecipe(), sized, [f"experiences[{number}]", "experience"])
        experiences.append(Experience(label, replace(stage1, backbone=encoder)))
    return Cell(target[0], backbone[0], recipe, tuple(experiences))


def _recipe(default: R, values: Mapping[str, Any], places: Sequence[str]) -> R:
    try:
        recipe: R = build(default, values)
    except ValueError as error:
        key = str(error).split(" ")[0].rstrip(":")
        raise _WrongKey(str(error), [f"{place}.{key}" for place in places]) from None
    return recipe


def _over(base: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with those of `part` laid over them."""
    merged = dict(base)
    for key, value in part.items():
        old = merged.get(key)
        merged[key] = _over(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _labels(key: str, parts: Sequence[Mapping[str, Any]], base: Mapping[str, Any] | None, name: Any) -> list[str]:
    """A name for each partial recipe; where two would have the same, with the settings in which they differ."""
    whole = [_over(base or {}, part) for part in parts]
    names = [str(name(values)) for values in whole]
    labels = []
    for own, values in zip(names, whole, strict=True):
        alike = [dict(flatten(other)) for other, its in zip(whole, names, strict=True) if its == own]
        flat = dict(flatten(values))
        differing = [leaf for leaf in dict.fromkeys(k for other in alike for k in other) if _differs(leaf, alike)]
        told = [f"{leaf.rpartition('.')[2]} {flat[leaf]}" for leaf in differing if leaf in flat]
        labels.append(", ".join([own, *told]))
    for number, label in enumerate(labels):
        if label in labels[:number]:
            raise _WrongKey(f"{key}[{number}] is the same as {key}[{labels.index(label)}]", [f"{key}[{number}]", key])
    return labels


def _differs(leaf: str, alike: Sequence[Mapping[str, Any]]) -> bool:
    return len({repr(values.get(leaf)) for values in alike}) > 1


def _set_name(settings: Mapping[str, Any], default: str) -> str:
    """A set's name; for those that are a folder or file of the user's, that."""
    name = settings.get("name", default)
    own = name in ("folder", "emotion_folder", "manifest") and settings.get("root")
    return Path(str(settings["root"])).stem if own else str(name)


def _target_name(values: Mapping[str, Any]) -> str:
    return _set_name(values.get("target") or {}, TrainRecipe().target.name)


def _backbone_name(values: Mapping[str, Any]) -> str:
    return (values.get("backbone") or {}).get("name", TrainRecipe().backbone.name)


def _experience_name(values: Mapping[str, Any]) -> str:
    first = _set_name(values.get("stimuli") or {}, PretrainRecipe().stimuli.name)
    also = values.get("also")
    others = (
        [_set_name(other, "procedural") for other in also if isinstance(other, Mapping)]
        if isinstance(also, list)
        else []
    )
    return "+".join([first, *others])
