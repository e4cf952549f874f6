"""User-supplied classifiers that replace the one a recipe describes: how their runs record them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import nn

from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import OWN, BackboneSettings, EncoderSettings, Granularity, RegulationSettings
from emoreg.errors import SettingError, UserError, is_plain
from emoreg.models.regulation import Holdable, RegulatedClassifier
from emoreg.runs.run import Run

GIVEN = "given by the caller"  # value of `model` in a session of environment.json


def as_given(recipe: TrainRecipe, model: RegulatedClassifier, run: Run) -> TrainRecipe:
    """Return the recipe with the actual mode and architectures of a user-supplied classifier.

    Of the recipe's backbone, encoder and regulation only learning rates, the anchor, λ's warm-up and a frozen encoder's
    views are kept. A run of an earlier emoreg, which recorded the recipe unchanged, resumes with it unchanged.

    Args:
        recipe: all settings.
        model: the caller's.
        run: of this training, new or resumed.

    Raises:
        SettingError: a setting that has no meaning for this classifier.
    """
    if run.has_begun and run.stage == 2 and has_given_model(run) and not describes_given_model(run.recipe):
        return recipe
    _refuse_meaningless(recipe, model)
    encoder = EncoderSettings(lr_factor=recipe.encoder.lr_factor)
    if model.encoder is not None:
        try:
            encoder = EncoderSettings(
                backbone=architecture_of(model.encoder),
                frozen=model.freeze_encoder,
                views=recipe.encoder.views if model.freeze_encoder else None,
                lr_factor=recipe.encoder.lr_factor,
                anchor=recipe.encoder.anchor,
            )
        except SettingError as error:
            raise error.within("encoder") from None
    regulation = dataclasses.replace(
        _regulation_settings(model), lr_factor=recipe.regulation.lr_factor, warmup=recipe.regulation.warmup
    )
    backbone = architecture_of(model.backbone)
    return dataclasses.replace(recipe, backbone=backbone, regulation=regulation, encoder=encoder)


def _refuse_meaningless(recipe: TrainRecipe, model: RegulatedClassifier) -> None:
    """Raise SettingError for settings that only apply to an encoder or a regulation that the recipe builds."""
    encoder, warmup, own = recipe.encoder, recipe.regulation.warmup, "with a model of your own"
    if encoder.rehearsal:
        reason = f"must be 0 {own}, not {encoder.rehearsal:g}: its encoder has no stage-1 run"
        raise SettingError("encoder.rehearsal", reason)
    if encoder.experience is not None:
        hint = f"its encoder starts as you give it, such as from emoreg.load_encoder({encoder.experience!r})"
        raise SettingError("encoder.experience", f"must be null {own}: {hint}")
    hint = "its encoder starts as you give it, such as in emoreg.build_classifier(recipe, num_classes)"
    if encoder.takeover != "as_is":
        raise SettingError("encoder.takeover", f"must be as_is {own}, not {encoder.takeover}: {hint}")
    if encoder.moments_only:
        raise SettingError("encoder.moments_only", f"must be false {own}: {hint}")
    if warmup and model.encoder is not None and not isinstance(model.regulation, Holdable):
        reason = f"must be 0 with a regulation of your own that has no method hold, not {warmup:g}"
        raise SettingError("regulation.warmup", reason)


def has_given_model(run: Run) -> bool:
    """Whether a run of stage 2 trained a user-supplied classifier. Raise UserError if its files are damaged."""
    return describes_given_model(run.recipe) or (run.environment or [{}])[-1].get("model") == GIVEN


def describes_given_model(recipe: object) -> bool:
    """Whether a recipe describes a user-supplied classifier, as `as_given` does."""
    return isinstance(recipe, TrainRecipe) and recipe.backbone.is_own


def refuse_another(run: Run, model: RegulatedClassifier) -> None:
    """Raise UserError for a classifier whose mode, granularity, mix or task differ from the one that a run trained.

    A frozen encoder and the start of λ do not matter, since they do not change outputs. Nothing is compared if an
    earlier version has not recorded the model.
    """
    recipe = run.recipe
    if not isinstance(recipe, TrainRecipe) or not describes_given_model(recipe):
        return
    then, now = recipe.regulation, _regulation_settings(model)
    pairs = [(name, getattr(then, name), getattr(now, name)) for name in ("mode", "granularity", "mix")]
    pairs.append(("task", recipe.target.task, model.task))
    differences = [f"{name}: {before} -> {after}" for name, before, after in pairs if before != after]
    if differences:
        raise UserError(
            f"{run.folder} trained a model with other settings ({'; '.join(differences)}): build it with these"
        )


def named_experiences(run: Run) -> tuple[str, ...]:
    """The names of the stage-1 runs whose weights a run's classifier started from; empty without a valid record."""
    record = (run.environment or [{}])[0].get("experience")
    folder = record.get("folder") if isinstance(record, dict) else None
    names = folder if isinstance(folder, list) else [folder]
    if not all(isinstance(name, str) and is_plain(name) for name in names):
        return ()
    return tuple(names)


def refuse_without(run: Run) -> None:
    """Raise UserError for a run whose classifier only the caller can build."""
    if has_given_model(run):
        raise UserError(
            f"{run.folder} trained a model of your own, which no recipe can build: in Python pass model=, a classifier "
            "built alike, to evaluate, calibrate, export or load_run, whose result emoreg.predict takes"
        )


def architecture_of(module: nn.Module) -> BackboneSettings:
    """Record a module by timm's name for it if it has one, else by its class."""
    config = getattr(module, "pretrained_cfg", None)
    name = config.get("architecture") if isinstance(config, Mapping) else None
    return BackboneSettings(f"{OWN}{name or type(module).__name__}")


def _regulation_settings(model: RegulatedClassifier) -> RegulationSettings:
    """The regulation of a classifier; a random start of λ is recorded as the default."""
    if model.encoder is None:
        return RegulationSettings(model.mode)
    is_random = model.mode in ("random", "random_learned")
    lam = RegulationSettings().lam if is_random else model.regulation.expected_start
    granularity: Granularity = "scalar"
    if model.lam is None:
        granularity = "per_sample"
    elif model.lam.shape[1] > 1:
        granularity = "per_class"
    return RegulationSettings(model.mode, lam, granularity, model.mix)
