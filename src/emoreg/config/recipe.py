"""The recipes of the two stages, every setting of a run in one frozen object; editions, and what makes a run that run.

Checks across the sections of a recipe raise `SettingError` with dotted keys.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from emoreg.config.augment import AugmentSettings
from emoreg.config.contents import Contents
from emoreg.config.loss import LossSettings, LossWeights
from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.rules import check_at_least
from emoreg.config.schema import (
    LEARNED,
    RELATIVES,
    SINGLE,
    BackboneSettings,
    EncoderSettings,
    Pretext,
    RegulationSettings,
    StimuliSettings,
    TargetSettings,
)
from emoreg.config.setting_types import settle
from emoreg.config.training import TrainingSettings
from emoreg.errors import SettingError

# Of the method, docs/method.md. Recipes of the first edition differ in defaults, and stay readable.
EDITION = 2


@dataclass(frozen=True)
class PretrainRecipe:
    """Stage 1: an emotional encoder learns from affective stimuli."""

    stimuli: StimuliSettings = field(default_factory=StimuliSettings)
    also: tuple[StimuliSettings, ...] = ()
    """Further stimulus sets, learned at the same time, each with a head of its own: a list of settings as in
    stimuli. May repeat a set under other labels."""
    pretext: Pretext = "affect"
    """What the encoder learns: affect (the images' labels; stated), or for a twin (ours): shuffled (the same labels,
    permuted among the training images), neutral (a label that is no emotion: a published one, or brightness and
    colourfulness) or rotation (by which quarter turn an image was rotated; Gidaris et al. 2018)."""
    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    # No crop: its black border would change brightness, which the default stimuli's labels follow. AdamW and few
    # epochs: rating is a regression, which diverges at a classifier's learning rate; stimuli are few.
    augment: AugmentSettings = field(default_factory=lambda: AugmentSettings(crop_padding=0))
    optimizer: OptimizerSettings = field(
        default_factory=lambda: OptimizerSettings(name="adamw", lr=2e-3, weight_decay=0.05, warmup=0.1)
    )
    training: TrainingSettings = field(default_factory=lambda: TrainingSettings(epochs=40, batch_size=64))
    seed: int = 0
    """Seeds the weights, the splits, the order of the images and their augmentation; at least 0."""
    edition: int = EDITION
    """Of the method (docs/method.md), 1 or 2. A stored recipe without one is of the first."""

    def __post_init__(self) -> None:
        settle(self)
        check_at_least(0, self, "seed")
        _check_edition(self)
        _check_sets(self.sections)
        _check_mixing(self)
        if self.pretext == "rotation" and self.augment.policy == "trivial":
            reason = "must not be trivial with pretext rotation: it turns images by up to 135°, as the pretext does"
            raise SettingError("augment.policy", reason)

    @property
    def sets(self) -> tuple[StimuliSettings, ...]:
        """All stimulus sets, `stimuli` first."""
        return (self.stimuli, *self.also)

    @property
    def sections(self) -> dict[str, StimuliSettings]:
        """All stimulus sets by their keys: stimuli, also[0], ..."""
        return {"stimuli": self.stimuli} | {f"also[{number}]": other for number, other in enumerate(self.also)}


def _check_sets(sets: dict[str, StimuliSettings]) -> None:
    """SettingError for stimulus sets, by their keys, that cannot be learned together."""
    size, weight = sets["stimuli"].image_size, sets["stimuli"].weight
    for key, own in sets.items():
        if own.image_size != size:
            reason = f"must be {size} as in stimuli, not {own.image_size}: one encoder sees all sets at one size"
            raise SettingError(f"{key}.image_size", reason)
        if own.fit != sets["stimuli"].fit:
            reason = f"must be {sets['stimuli'].fit} as in stimuli, not {own.fit}: one encoder sees all sets alike"
            raise SettingError(f"{key}.fit", reason)
        if (own.weight is None) != (weight is None):
            kind = "null" if weight is None else "a number"
            raise SettingError(f"{key}.weight", f"must be {kind} as in stimuli: weight every set, or none")
    for (earlier, other), (key, own) in itertools.combinations(sets.items(), 2):
        if (own.name, Path(own.root or "")) != (other.name, Path(other.root or "")):
            continue
        # The same images under other labels must be split alike: no head may train on what another is measured on.
        for name in ("count", "validation", "skip_unreadable"):
            here, there = getattr(own, name), getattr(other, name)
            if here != there:
                reason = f"must be {there} as in {earlier}, not {here}: both are {own.name} and share held-out images"
                raise SettingError(f"{key}.{name}", reason)
        if own.labels == other.labels:
            reason = f"must not be {own.labels} as in {earlier}: the same set a second time needs other labels"
            raise SettingError(f"{key}.labels", reason)


def _check_mixing(recipe: PretrainRecipe | TrainRecipe) -> None:
    """SettingError for batches in which no image has another one to be mixed with."""
    if recipe.augment.mixing and recipe.training.batch_size < 2:
        reason = f"must be at least 2 with augment.{recipe.augment.mixing}, not 1: images are mixed in pairs"
        raise SettingError("training.batch_size", reason)


@dataclass(frozen=True)
class TrainRecipe:
    """Stage 2: a classifier whose two responses are balanced by λ."""

    target: TargetSettings = field(default_factory=TargetSettings)
    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    regulation: RegulationSettings = field(default_factory=RegulationSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    # No flip: the default target is digits, and a mirrored digit is none.
    augment: AugmentSettings = field(default_factory=lambda: AugmentSettings(flip=False))
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    seed: int = 0
    """Seeds the weights, λ's draw, the splits, the order of the images and their augmentation; at least 0."""
    edition: int = EDITION
    """Of the method (docs/method.md), 1 or 2. A stored recipe without one is of the first."""

    def __post_init__(self) -> None:
        settle(self)
        check_at_least(0, self, "seed")
        _check_edition(self)
        _check_mixing(self)
        if self.augment.mixing and self.encoder.views is not None:
            reason = "must be 0 with encoder.views: features that are looked up are those of images that are not mixed"
            raise SettingError(f"augment.{self.augment.mixing}", reason)
        loss, weights, mode = self.loss, self.loss_weights, self.regulation.mode
        if not self.has_two_responses:
            if mode != "transfer" and self.encoder.experience is not None:
                reason = (
                    f"must be null with regulation.mode {mode}; choose another mode (transfer fine-tunes the encoder "
                    "alone), or leave it out"
                )
                raise SettingError("encoder.experience", reason)
            without = f"without a second response (regulation.mode {mode})"
            if weights.regulated == 0:
                raise SettingError("loss.regulated", f"must be positive {without}: there is no other loss")
            for name in ("non_emotional", "emotional"):
                if getattr(weights, name) > 0:
                    raise SettingError(f"loss.{name}", f"must be 0 or null {without}, not {getattr(loss, name)}")
        if self.target.task != "classification":
            self._check_task()
        if weights[:3] == (0, 0, 0):
            reason = "must be positive where loss.non_emotional and loss.emotional are 0: nothing would be trained"
            raise SettingError("loss.regulated", reason)
        if self.edition > 1:
            self._check_second_edition(weights)

    def _check_task(self) -> None:
        labels, mode = self.target.labels, self.regulation.mode
        if mode in RELATIVES:
            raise SettingError("regulation.mode", f"must not be {mode} with target.labels {labels}: it tells classes")
        if self.loss.class_weights != "none":
            reason = f"must be none with target.labels {labels}: an image has no one class"
            raise SettingError("loss.class_weights", reason)
        if self.loss.label_smoothing and self.target.task == "regression":
            reason = f"must be 0 with target.labels {labels}, not {self.loss.label_smoothing:g}: values have no others"
            raise SettingError("loss.label_smoothing", reason)

    def _check_second_edition(self, weights: LossWeights) -> None:
        mode, lam = self.regulation.mode, self.regulation.lam
        if mode == "fixed" and lam in (0, 1):
            reason = f"must lie strictly between 0 and 1, not {lam}: for one branch alone set regulation.mode "
            raise SettingError("regulation.lam", reason + ("none" if lam == 0 else "transfer"))
        if mode in LEARNED and weights.regulated == 0:
            reason = f"must be positive in mode {mode}: no other loss trains λ"
            raise SettingError("loss.regulated", reason)
        if not self.has_two_responses or self.loss.budget == "as_given":
            return
        for name, given in (("non_emotional", weights.non_emotional), ("emotional", weights.emotional)):
            if weights.regulated == given == 0:
                reason = (
                    "must be positive where loss.regulated is 0 and loss.budget is matched: its branch would not learn"
                )
                raise SettingError(f"loss.{name}", reason)

    @property
    def sections(self) -> dict[str, TargetSettings]:
        """The target by its key, as `PretrainRecipe.sections`."""
        return {"target": self.target}

    @property
    def has_two_responses(self) -> bool:
        """Whether there is an emotional branch beside the backbone."""
        return self.regulation.mode not in SINGLE

    @property
    def loss_weights(self) -> LossWeights:
        """The weights of the loss, with defaults filled in."""
        return self.loss.weights(self.has_two_responses)

    @property
    def encoder_backbone(self) -> BackboneSettings:
        """Architecture of the emotional encoder: `encoder.backbone`, by default the backbone's."""
        return self.encoder.backbone or self.backbone


Recipe = PretrainRecipe | TrainRecipe
R = TypeVar("R", PretrainRecipe, TrainRecipe)
AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def require_recipe(recipe: object, kind: type[R], taker: str) -> R:
    """The recipe, if it is of this kind.

    Args:
        recipe: what is given.
        kind: what the function `taker` takes.
        taker: its name, for the error.

    Raises:
        SettingError: it is another stage's, or no recipe.
    """
    if isinstance(recipe, kind):
        return recipe
    right = {PretrainRecipe: "pretrain", TrainRecipe: "train"}
    if isinstance(recipe, PretrainRecipe | TrainRecipe):
        mend = f"a {type(recipe).__name__}; emoreg.{right[type(recipe)]} takes that"
    elif isinstance(recipe, type) and recipe in right:
        mend = f"the class {kind.__name__}; emoreg.read_recipe(emoreg.{kind.__name__}) gives its defaults"
    elif isinstance(recipe, str | Path):
        mend = f"a path; emoreg.read_recipe(emoreg.{kind.__name__}, path) reads it"
    else:
        mend = f"a {type(recipe).__name__}; emoreg.read_recipe(emoreg.{kind.__name__}, path) reads one"
    raise SettingError("recipe", f"{taker} takes a {kind.__name__}, not {mend}")


# Device count and trackers are not part of a run's identity: with other values of these it is the same run.
EXECUTION_ONLY = ("devices", "trackers")  # of `TrainingSettings`

# Settings that the second edition added, by their class, and what the first edition did.
ADDED: dict[type, dict[str, Any]] = {
    StimuliSettings: {"classes": None},
    TargetSettings: {"test": True},
    BackboneSettings: {"zero_gamma": None, "width": None},
    EncoderSettings: {"takeover": "as_is", "shrink": 0.5, "moments_only": False},
    LossSettings: {"budget": "as_given"},
    TrainRecipe: {"edition": 1},
    PretrainRecipe: {"edition": 1},
}

# Settings that came while the second edition was in use, by their class, and what was done without them. At this value
# they are no part of a run's identity, so that runs from before keep their ids; the first edition has no other value.
LATER: dict[type, dict[str, Any]] = {
    BackboneSettings: {"weights": None, "pool": None, "class_token": None},
    StimuliSettings: {"fit": "crop", "test_limit": None, "share": None, "valence": "all", "arousal": "all"},
    TargetSettings: {
        "labels": "majority",
        "fit": "crop",
        "test_limit": None,
        "share": None,
        "imbalance": None,
        "label_noise": "none",
        "noise_share": None,
    },
    EncoderSettings: {"anchor": 0.0, "rehearsal": 0.0},
    RegulationSettings: {"warmup": 0.0},
    LossSettings: {"class_weights": "none"},
    OptimizerSettings: {"lr_per_batch": None, "layer_decay": None},
    TrainingSettings: {"accumulate": 1, "cuda_graphs": False},
    AugmentSettings: {
        "resized_crop": None,
        "alternate_flip": False,
        "policy": "none",
        "policy_ops": 2,
        "policy_magnitude": 9,
        "jitter": 0.0,
        "erase": 0.0,
        "cutout": 0.0,
        "mixup": 0.0,
        "cutmix": 0.0,
        "mix_share": 1.0,
    },
}


def defaults(kind: type, edition: int = EDITION) -> Any:
    """A recipe of an edition with all its defaults."""
    if edition == EDITION:
        return kind()
    if kind is PretrainRecipe:
        return PretrainRecipe(edition=edition)
    return TrainRecipe(
        regulation=RegulationSettings(mix="logits"),
        loss=LossSettings(regulated=1.0, non_emotional=0.0, emotional=0.0, budget="as_given"),
        edition=edition,
    )


def _check_edition(recipe: PretrainRecipe | TrainRecipe) -> None:
    """SettingError for an unknown edition, and for a setting that the first one did not have."""
    if recipe.edition not in (1, EDITION):
        raise SettingError("edition", f"must be 1 or {EDITION}, not {recipe.edition}")
    if recipe.edition == 1:
        if isinstance(recipe, TrainRecipe) and recipe.regulation.mode in RELATIVES:
            mode = recipe.regulation.mode
            raise SettingError("regulation.mode", f"must not be {mode} in edition 1, which had none of the relatives")
        _use_first_stem(recipe)
        for key, value, first in added(recipe):
            if value != first:
                raise SettingError(key, f"must be {first} in edition 1, which had no other, not {value}")


def _use_first_stem(recipe: PretrainRecipe | TrainRecipe) -> None:
    """The first edition knew no `auto`: a backbone without a stem had that for small images, whatever its images."""
    if recipe.backbone.stem == "auto":
        object.__setattr__(recipe, "backbone", replace(recipe.backbone, stem="cifar"))
    own = recipe.encoder.backbone if isinstance(recipe, TrainRecipe) else None
    if isinstance(recipe, TrainRecipe) and own is not None and own.stem == "auto":
        object.__setattr__(recipe, "encoder", replace(recipe.encoder, backbone=replace(own, stem="cifar")))


def added(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Key, value, and what was done without it, of every setting that the first edition did not have."""
    for name, first in (ADDED.get(type(settings), {}) | LATER.get(type(settings), {})).items():
        yield f"{prefix}{name}", getattr(settings, name), first
    for item in fields(settings):
        value = getattr(settings, item.name)
        for number, part in enumerate(value if isinstance(value, tuple) else (value,)):
            if is_dataclass(part):
                place = f"{item.name}[{number}]" if isinstance(value, tuple) else item.name
                yield from added(part, f"{prefix}{place}.")


def with_stems(recipe: AnyRecipe) -> AnyRecipe:
    """The recipe with what `stem: auto` stands for, by the images of its stage."""
    sets: list[StimuliSettings | TargetSettings] = [*recipe.sections.values()]
    size = sets[0].image_size
    if isinstance(recipe, TrainRecipe) and recipe.encoder.backbone is not None:
        own = recipe.encoder.backbone.for_images(size)
        if own != recipe.encoder.backbone:
            recipe = replace(recipe, encoder=replace(recipe.encoder, backbone=own))
    return replace(recipe, backbone=recipe.backbone.for_images(size)) if recipe.backbone.stem == "auto" else recipe


def identity(recipe: Recipe, contents: Mapping[str, Contents] | None = None) -> dict[str, Any]:
    """What makes a run that run: `resolved`, without later settings that are not used.

    Args:
        recipe: of either stage.
        contents: what stands at the roots of its image sets, by section ("target", "also[0]"): their checksums replace
            the paths, which stay as they are written where nothing is known of the images.
    """
    content = _resolved(recipe, LATER)
    for section, found in (contents or {}).items():
        name, _, index = section.rstrip("]").partition("[")
        (content[name][int(index)] if index else content[name])["root"] = found.sha256
    return content


def resolved(recipe: Recipe) -> dict[str, Any]:
    """The settings of a recipe, nested, without those that are execution only, and as `with_stems`.

    Of the first edition also without those that it did not have, so that its runs keep their ids; of later ones with
    the resolved weights of the loss.
    """
    return _resolved(recipe, {})


def _resolved(recipe: Recipe, unused: Mapping[type, Mapping[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = _plain(with_stems(recipe), recipe.edition, unused)
    content["training"] = {key: value for key, value in content["training"].items() if key not in EXECUTION_ONLY}
    if isinstance(recipe, TrainRecipe) and recipe.edition > 1:
        content["loss"] |= recipe.loss_weights._asdict()
    return content


def _plain(settings: Any, edition: int, unused: Mapping[type, Mapping[str, Any]]) -> Any:
    """Nested dictionaries of settings that an edition has, without those, by class and name, that have this value."""
    if isinstance(settings, tuple):
        return tuple(_plain(part, edition, unused) for part in settings)
    if not is_dataclass(settings):
        return settings
    kind = type(settings)
    missing = ADDED.get(kind, {}) | LATER.get(kind, {}) if edition == 1 else {}
    values = {item.name: getattr(settings, item.name) for item in fields(settings) if item.name not in missing}
    without = unused.get(kind, {})
    return {
        name: _plain(value, edition, unused)
        for name, value in values.items()
        if name not in without or value != without[name]
    }
