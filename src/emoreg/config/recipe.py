"""The recipes of the two stages, frozen objects with every setting of a run; their editions and identity.

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
    SMALL_IMAGES,
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

EDITION = 2  # of the method (docs/method.md); recipes of the first have other defaults, and can still be read


@dataclass(frozen=True)
class PretrainRecipe:
    """Stage 1: an emotional encoder learns from affective stimuli."""

    stimuli: StimuliSettings = field(default_factory=StimuliSettings)
    also: tuple[StimuliSettings, ...] = ()
    """Further stimulus sets that are learned at the same time, each with its own head: a list of settings as in
    stimuli. May repeat a set with other labels."""
    pretext: Pretext = "affect"
    """What the encoder learns: affect (the images' labels; stated), or for a twin (ours): shuffled (the same labels,
    permuted among the training images), neutral (a label that is no emotion: a published one, or brightness and
    colourfulness) or rotation (by which quarter turn an image was rotated; Gidaris et al. 2018)."""
    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    # No crop: its black border would change the brightness, on which the labels of the default stimuli depend. AdamW
    # and few epochs: ratings are a regression, which diverges at a classifier's learning rate; stimuli are few.
    augment: AugmentSettings = field(default_factory=lambda: AugmentSettings(crop_padding=0))
    optimizer: OptimizerSettings = field(
        default_factory=lambda: OptimizerSettings(name="adamw", lr=2e-3, weight_decay=0.05, warmup=0.1)
    )
    training: TrainingSettings = field(default_factory=lambda: TrainingSettings(epochs=40, batch_size=64))
    seed: int = 0
    """Seed of the weights, the splits, the order of the images and their augmentation; at least 0."""
    edition: int = EDITION
    """Edition of the method (docs/method.md), 1 or 2. A stored recipe without one belongs to the first."""

    def __post_init__(self) -> None:
        settle(self)
        _check_common(self)
        _check_sets(self.sections)
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
    """Raise SettingError for stimulus sets, by their keys, that cannot be learned together."""
    first = sets["stimuli"]
    for key, other in sets.items():
        _require_equal("image_size", key, other, "stimuli", first, "one encoder sees all sets at one size")
        _require_equal("fit", key, other, "stimuli", first, "one encoder sees all sets alike")
        if (other.weight is None) != (first.weight is None):
            kind = "null" if first.weight is None else "a number"
            raise SettingError(f"{key}.weight", f"must be {kind} as in stimuli: weight every set, or none")
    for (earlier_key, earlier), (key, later) in itertools.combinations(sets.items(), 2):
        if (later.name, Path(later.root or "")) != (earlier.name, Path(earlier.root or "")):
            continue
        # The same images with other labels need the same split: no head may train on what another is measured on.
        for name in ("count", "validation", "skip_unreadable"):
            why = f"both are {later.name} and share held-out images"
            _require_equal(name, key, later, earlier_key, earlier, why)
        if later.labels == earlier.labels:
            reason = f"must not be {later.labels} as in {earlier_key}: the same set a second time needs other labels"
            raise SettingError(f"{key}.labels", reason)


def _require_equal(
    name: str, key: str, settings: StimuliSettings, other_key: str, other: StimuliSettings, why: str
) -> None:
    value, wanted = getattr(settings, name), getattr(other, name)
    if value != wanted:
        raise SettingError(f"{key}.{name}", f"must be {wanted} as in {other_key}, not {value}: {why}")


def _check_common(recipe: Recipe) -> None:
    """Make the checks that both stages share, and resolve `stem: auto` of the first edition."""
    check_at_least(0, recipe, "seed")
    _check_edition(recipe)
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
    """Seed of the weights, λ's draw, the splits, the order of the images and their augmentation; at least 0."""
    edition: int = EDITION
    """Edition of the method (docs/method.md), 1 or 2. A stored recipe without one belongs to the first."""

    def __post_init__(self) -> None:
        settle(self)
        _check_common(self)
        if self.augment.mixing and self.encoder.views is not None:
            reason = "must be 0 with encoder.views: features are looked up for unmixed images"
            raise SettingError(f"augment.{self.augment.mixing}", reason)
        if not self.has_two_responses:
            self._check_single_response()
        if self.target.task != "classification":
            self._check_task()
        if self.loss_weights[:3] == (0, 0, 0):
            reason = "must be positive if loss.non_emotional and loss.emotional are 0: nothing would be trained"
            raise SettingError("loss.regulated", reason)
        if self.edition > 1:
            self._check_second_edition()

    def _check_single_response(self) -> None:
        mode, weights = self.regulation.mode, self.loss_weights
        if mode != "transfer" and self.encoder.experience is not None:
            reason = (
                f"must be null with regulation.mode {mode}; choose another mode (transfer fine-tunes the encoder "
                "alone), or leave it out"
            )
            raise SettingError("encoder.experience", reason)
        without = f"without a second response (regulation.mode {mode})"
        if weights.regulated == 0:
            raise SettingError("loss.regulated", f"must be positive {without}: there is no other loss")
        for name, weight in (("non_emotional", weights.non_emotional), ("emotional", weights.emotional)):
            if weight > 0:
                raise SettingError(f"loss.{name}", f"must be 0 or null {without}, not {weight}")

    def _check_task(self) -> None:
        labels, mode = self.target.labels, self.regulation.mode
        if mode in RELATIVES:
            reason = f"must not be {mode} with target.labels {labels}: it predicts classes"
            raise SettingError("regulation.mode", reason)
        if self.loss.class_weights != "none":
            reason = f"must be none with target.labels {labels}: an image has no one class"
            raise SettingError("loss.class_weights", reason)
        if self.loss.label_smoothing and self.target.task == "regression":
            reason = f"must be 0 with target.labels {labels}, not {self.loss.label_smoothing:g}: values have no others"
            raise SettingError("loss.label_smoothing", reason)

    def _check_second_edition(self) -> None:
        mode, lam, weights = self.regulation.mode, self.regulation.lam, self.loss_weights
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
                    "must be positive if loss.regulated is 0 and loss.budget is matched: its branch would not learn"
                )
                raise SettingError(f"loss.{name}", reason)

    @property
    def sections(self) -> dict[str, TargetSettings]:
        """The target by its key, like `PretrainRecipe.sections`."""
        return {"target": self.target}

    @property
    def has_two_responses(self) -> bool:
        """Whether there is an emotional branch in addition to the backbone."""
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
AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def require_recipe(recipe: object, kind: type[AnyRecipe], taker: str) -> AnyRecipe:
    """Return the recipe; raise SettingError if it is not of this kind.

    Args:
        recipe: the caller's argument.
        kind: the expected class.
        taker: name of the function that expects it, for the error.
    """
    if isinstance(recipe, kind):
        return recipe
    functions = {PretrainRecipe: "pretrain", TrainRecipe: "train"}
    if isinstance(recipe, Recipe):
        given = f"a {type(recipe).__name__}; emoreg.{functions[type(recipe)]} takes that"
    elif isinstance(recipe, type) and recipe in functions:
        given = f"the class {recipe.__name__}; emoreg.read_recipe(emoreg.{kind.__name__}) gives one with the defaults"
    elif isinstance(recipe, str | Path):
        given = f"a path; emoreg.read_recipe(emoreg.{kind.__name__}, path) reads it"
    else:
        given = f"a {type(recipe).__name__}; emoreg.read_recipe(emoreg.{kind.__name__}, path) reads one"
    raise SettingError("recipe", f"{taker} takes a {kind.__name__}, not {given}")


EXECUTION_ONLY = ("devices", "trackers")  # fields of `TrainingSettings` that are not part of a run's identity

# Settings that the second edition added, by class, with the value that stands for the first edition's behaviour.
ADDED: dict[type, dict[str, Any]] = {
    StimuliSettings: {"classes": None},
    TargetSettings: {"test": True},
    BackboneSettings: {"zero_gamma": None, "width": None},
    EncoderSettings: {"takeover": "as_is", "shrink": 0.5, "moments_only": False},
    LossSettings: {"budget": "as_given"},
    TrainRecipe: {"edition": 1},
    PretrainRecipe: {"edition": 1},
}

# Settings added later to the second edition, by class, with the value that stands for the earlier behaviour. At this
# value they are not part of a run's identity, so that older runs keep their ids; the first edition allows no other.
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

# All settings that the first edition lacked, by class, with the value that stands for its behaviour.
NOT_IN_FIRST = {kind: ADDED.get(kind, {}) | LATER.get(kind, {}) for kind in ADDED | LATER}


def defaults(kind: type, edition: int = EDITION) -> Any:
    """Return the default recipe of an edition."""
    if edition == EDITION or kind is PretrainRecipe:
        return kind(edition=edition)
    return TrainRecipe(
        regulation=RegulationSettings(mix="logits"),
        loss=LossSettings(regulated=1.0, non_emotional=0.0, emotional=0.0, budget="as_given"),
        edition=edition,
    )


def _check_edition(recipe: Recipe) -> None:
    """Raise SettingError for an unknown edition, or for a setting that edition 1 lacked; set edition 1's stems."""
    if recipe.edition not in (1, EDITION):
        raise SettingError("edition", f"must be 1 or {EDITION}, not {recipe.edition}")
    if recipe.edition == 1:
        if isinstance(recipe, TrainRecipe) and recipe.regulation.mode in RELATIVES:
            mode = recipe.regulation.mode
            raise SettingError("regulation.mode", f"must not be {mode} in edition 1, which had none of the relatives")
        for name, section in _stems(recipe, SMALL_IMAGES).items():  # auto was cifar, for images of any size
            object.__setattr__(recipe, name, section)
        for key, value, first in added(recipe):
            if value != first:
                raise SettingError(key, f"must be {first} in edition 1, which had no other, not {value}")


def added(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield key, value, and the value for edition 1's behaviour of every setting that edition 1 lacked."""
    for name, first in NOT_IN_FIRST.get(type(settings), {}).items():
        yield f"{prefix}{name}", getattr(settings, name), first
    for item in fields(settings):
        value = getattr(settings, item.name)
        for number, part in enumerate(value if isinstance(value, tuple) else (value,)):
            if is_dataclass(part):
                place = f"{item.name}[{number}]" if isinstance(value, tuple) else item.name
                yield from added(part, f"{prefix}{place}.")


def with_stems(recipe: AnyRecipe) -> AnyRecipe:
    """Return the recipe with every `stem: auto` resolved for the image size of its stage."""
    sets: list[StimuliSettings | TargetSettings] = [*recipe.sections.values()]
    sections = _stems(recipe, sets[0].image_size)
    # `replace` checks a recipe anew, which takes most of the time in which studies compute the ids of their runs.
    return replace(recipe, **sections) if sections else recipe


def _stems(recipe: Recipe, image_size: int) -> dict[str, Any]:
    """Return the sections of the recipe that have a `stem: auto`, resolved for images of this size."""
    sections: dict[str, Any] = {}
    if recipe.backbone.stem == "auto":
        sections["backbone"] = recipe.backbone.for_images(image_size)
    if isinstance(recipe, TrainRecipe) and (encoder := recipe.encoder.backbone) and encoder.stem == "auto":
        sections["encoder"] = replace(recipe.encoder, backbone=encoder.for_images(image_size))
    return sections


def identity(recipe: Recipe, contents: Mapping[str, Contents] | None = None) -> dict[str, Any]:
    """Return the settings that identify a run: `resolved`, without settings of `LATER` at their earlier behaviour.

    Args:
        recipe: recipe of either stage.
        contents: contents of its image sets, by section ("target", "also[0]"). Their checksums replace the roots;
            roots of sets that are not listed stay as written.
    """
    content = _resolved(recipe, LATER)
    for section, images in (contents or {}).items():
        name, _, index = section.rstrip("]").partition("[")
        (content[name][int(index)] if index else content[name])["root"] = images.sha256
    return content


def resolved(recipe: Recipe) -> dict[str, Any]:
    """Return the settings of a recipe, nested, without `EXECUTION_ONLY` and with stems resolved.

    For the first edition, settings that it lacked are left out, so that its runs keep their ids; for later ones, the
    default weights of the loss are filled in.
    """
    return _resolved(recipe, {})


def _resolved(recipe: Recipe, unused: Mapping[type, Mapping[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = _plain(with_stems(recipe), NOT_IN_FIRST if recipe.edition == 1 else unused)
    content["training"] = {key: value for key, value in content["training"].items() if key not in EXECUTION_ONLY}
    if isinstance(recipe, TrainRecipe) and recipe.edition > 1:
        content["loss"] |= recipe.loss_weights._asdict()
    return content


def _plain(settings: Any, unused: Mapping[type, Mapping[str, Any]]) -> Any:
    """Return settings as nested dictionaries, without those at their value in `unused`."""
    if isinstance(settings, tuple):
        return tuple(_plain(part, unused) for part in settings)
    if not is_dataclass(settings):
        return settings
    without = unused.get(type(settings), {})
    values = {item.name: getattr(settings, item.name) for item in fields(settings)}
    return {
        name: _plain(value, unused)
        for name, value in values.items()
        if not (name in without and value == without[name])
    }
