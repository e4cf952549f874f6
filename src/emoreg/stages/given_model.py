"""A classifier that the caller gives in place of the one that a recipe describes: how its run records it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import nn

from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import OWN, BackboneSettings, EncoderSettings, Granularity, RegulationSettings
from emoreg.errors import SettingError, UserError, is_plain
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.run import Run

GIVEN = "given by the caller"  # in a session of environment.json, as `model`


def as_given(recipe: TrainRecipe, model: RegulatedClassifier, run: Run) -> TrainRecipe:
    """The recipe with the true mode and architectures of a classifier that is trained in place of its own.

    Of its settings of backbone, encoder and regulation only learning rates, λ's warm-up and a frozen encoder's views
    are used. What an earlier emoreg has begun with this recipe keeps it as it is.

    Args:
        recipe: all settings.
        model: the caller's.
        run: of this training, perhaps not begun.

    Raises:
        SettingError: a loss, or a setting of the encoder, that means nothing for this classifier.
    """
    if run.has_begun and run.stage == 2 and has_given_model(run) and not is_recorded(run.recipe):
        return recipe
    regulation, encoder = _regulation_of(model), EncoderSettings()
    if model.encoder is not None:
        views = recipe.encoder.views if model.freeze_encoder else None
        encoder = EncoderSettings(backbone=architecture_of(model.encoder), frozen=model.freeze_encoder, views=views)
    if recipe.encoder.rehearsal:
        reason = f"must be 0 with a model of your own, not {recipe.encoder.rehearsal:g}: its encoder has no stage-1 run"
        raise SettingError("encoder.rehearsal", reason)
    _refuse_takeover(recipe.encoder)
    warmup = recipe.regulation.warmup
    if warmup and model.encoder is not None and not hasattr(model.regulation, "hold"):
        reason = f"must be 0 with a regulation of your own that has no method hold, not {warmup:g}"
        raise SettingError("regulation.warmup", reason)
    anchor = recipe.encoder.anchor if model.encoder is not None else 0.0
    try:
        encoder = dataclasses.replace(encoder, lr_factor=recipe.encoder.lr_factor, anchor=anchor)
    except SettingError as error:
        raise error.within("encoder") from None
    return dataclasses.replace(
        recipe,
        backbone=architecture_of(model.backbone),
        regulation=dataclasses.replace(regulation, lr_factor=recipe.regulation.lr_factor, warmup=warmup),
        encoder=encoder,
    )


def _refuse_takeover(encoder: EncoderSettings) -> None:
    """SettingError for a recipe that says how an encoder begins, beside one that is given."""
    own, mend = "with a model of your own", "its encoder begins as you give it, "
    if encoder.experience is not None:
        reason = f"must be null {own}: {mend}as emoreg.load_encoder({encoder.experience!r}) loads it"
        raise SettingError("encoder.experience", reason)
    mend += "as in the classifier of emoreg.build_classifier(recipe, num_classes)"
    if encoder.takeover != "as_is":
        raise SettingError("encoder.takeover", f"must be as_is {own}, not {encoder.takeover}: {mend}")
    if encoder.moments_only:
        raise SettingError("encoder.moments_only", f"must be false {own}: {mend}")


def has_given_model(run: Run) -> bool:
    """Whether a run of stage 2 trained a classifier that its caller gave. UserError if its files are damaged."""
    return is_recorded(run.recipe) or (run.environment or [{}])[-1].get("model") == GIVEN


def is_recorded(recipe: object) -> bool:
    """Whether a recipe is one from `as_given`."""
    return isinstance(recipe, TrainRecipe) and recipe.backbone.is_own


def refuse_another(run: Run, model: RegulatedClassifier) -> None:
    """UserError for a classifier that makes another answer of a run's weights than the one that the run trained.

    A frozen encoder and the start of λ make none. Of a run from before the mode was recorded nothing is compared.
    """
    recipe = run.recipe
    if not isinstance(recipe, TrainRecipe) or not is_recorded(recipe):
        return
    was, now = recipe.regulation, _regulation_of(model)
    told = [(name, getattr(was, name), getattr(now, name)) for name in ("mode", "granularity", "mix")]
    told.append(("task", recipe.target.task, model.task))
    if others := [f"{name}: {then} -> {there}" for name, then, there in told if then != there]:
        raise UserError(f"{run.folder} trained a model with other settings ({'; '.join(others)}): build model alike")


def named_experiences(run: Run) -> tuple[str, ...]:
    """The names of the stage-1 runs whose weights the classifier of a run began with; none where nothing tells."""
    told = (run.environment or [{}])[0].get("experience")
    folder = told.get("folder") if isinstance(told, dict) else None
    names = folder if isinstance(folder, list) else [folder]
    known = tuple(name for name in names if isinstance(name, str) and is_plain(name))
    return known if len(known) == len(names) else ()


def refuse_without(run: Run) -> None:
    """UserError for a run whose classifier only its caller can build."""
    if has_given_model(run):
        raise UserError(
            f"{run.folder} trained a model of your own, which no recipe can build: in Python pass model=, a classifier "
            "built alike, to evaluate, export or load_run, whose result emoreg.predict takes"
        )


def architecture_of(module: nn.Module) -> BackboneSettings:
    """Of a module of timm the name that timm knows it by, else its class."""
    config = getattr(module, "pretrained_cfg", None)
    name = config.get("architecture") if isinstance(config, Mapping) else None
    return BackboneSettings(f"{OWN}{name or type(module).__name__}")


def _regulation_of(model: RegulatedClassifier) -> RegulationSettings:
    if model.encoder is None:
        return RegulationSettings(model.mode)  # none, or a relative
    return RegulationSettings(model.mode, _start(model), _granularity(model), model.mix)


def _start(model: RegulatedClassifier) -> float:
    """λ as the model began; a drawn one has no start that a setting could hold."""
    drawn = model.mode in ("random", "random_learned")
    return RegulationSettings().lam if drawn else model.regulation.expected_start


def _granularity(model: RegulatedClassifier) -> Granularity:
    if model.regulation.gate is not None:
        return "per_sample"
    return "scalar" if model.lam is None or model.lam.shape[1] == 1 else "per_class"
