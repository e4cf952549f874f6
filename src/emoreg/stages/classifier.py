"""The classifier of stage 2: built as a recipe describes it, or loaded from a finished run."""

from __future__ import annotations

import dataclasses

from torch import nn

from emoreg.config.recipe import TrainRecipe, require_recipe, with_stems
from emoreg.config.schema import BackboneSettings, EncoderSettings
from emoreg.errors import SettingError, UserError, is_plain, shortened
from emoreg.models.backbones import build_backbone, channels_last
from emoreg.models.regulation import RegulatedClassifier
from emoreg.models.regulation_loss import require_classifier
from emoreg.models.takeover import NormMatch, keep_moments, match_norms, shrink_and_perturb
from emoreg.models.weight_source import with_sources
from emoreg.runs.run import WEIGHTS, Run
from emoreg.runtime.seeding import derive_seed, drawn_from
from emoreg.stages.given_model import refuse_another, refuse_without
from emoreg.stages.origins import mark_loaded
from emoreg.stages.pretrain import encoder_architecture, load_encoder
from emoreg.stages.probe import refuse_other_answers


def build_classifier(recipe: TrainRecipe, num_classes: int) -> RegulatedClassifier:
    """The classifier that a recipe describes, its emotional encoder taken over from its experience.

    Backbone, heads and the start of λ are the same in every mode of the same seed, whatever the encoder has experienced
    and however it is taken over, so that arms differ in nothing but the emotional branch. After a shrunk takeover the
    running statistics of batch norms do not fit; `train` estimates them anew.

    Raises:
        UserError: unknown architecture; no finished stage-1 run; an encoder of another architecture; a takeover that
            is impossible for it, or without anything to take over.
    """
    recipe = with_sources(require_recipe(recipe, TrainRecipe, "build_classifier"))
    return build_matched(recipe, num_classes)[0]


def build_matched(recipe: TrainRecipe, num_classes: int) -> tuple[RegulatedClassifier, NormMatch | None]:
    """As `build_classifier`; also what a norm-matched takeover has done."""
    size, regulation, mode = recipe.target.image_size, recipe.regulation, recipe.regulation.mode
    encoder: nn.Module | None = None
    matched: NormMatch | None = None
    if mode == "transfer":
        backbone, matched = _build_encoder(recipe)
        mode = "none"  # one network, which is the encoder
    else:
        with drawn_from(recipe.seed, "backbone"):
            backbone = build_backbone(recipe.backbone, size)
        if recipe.has_two_responses:
            encoder, matched = _build_encoder(recipe)
    with drawn_from(recipe.seed, "heads"):
        classifier = RegulatedClassifier(
            backbone,
            encoder,
            num_classes,
            mode=mode,
            granularity=regulation.granularity,
            mix=regulation.mix,
            lam=regulation.lam,
            freeze_encoder=recipe.encoder.frozen,
            seed=derive_seed(recipe.seed, "lambda"),
            task=recipe.target.task,
        )
    return channels_last(classifier), matched


def _build_encoder(recipe: TrainRecipe) -> tuple[nn.Module, NormMatch | None]:
    """The emotional encoder as training begins, and what a norm-matched takeover has done."""
    settings, size = recipe.encoder, recipe.target.image_size
    _check_takeover(settings)
    if settings.experience is None:
        with drawn_from(recipe.seed, "encoder"):
            return build_backbone(recipe.encoder_backbone, size, "encoder.backbone"), None
    with drawn_from(recipe.seed, "encoder"):
        encoder = load_encoder(settings.experience, settings.backbone, size)
    if settings.takeover == "as_is" and not settings.moments_only:
        return encoder, None
    with drawn_from(recipe.seed, "encoder"):  # θ₀, the weights of the twin `fresh` of this seed
        fresh = build_backbone(_encoder_to_build(recipe), size, "encoder.backbone")
    matched = None
    if settings.takeover == "norm_matched":
        matched = match_norms(encoder, fresh)
    elif settings.takeover == "shrunk":
        shrink_and_perturb(encoder, fresh, settings.shrink)
    if settings.moments_only:
        keep_moments(encoder, fresh)
    return encoder, matched


def _check_takeover(settings: EncoderSettings) -> None:
    """SettingError where there is nothing to take over."""
    if settings.experience is None:
        without = "without encoder.experience: there is nothing to take over"
        if settings.takeover != "as_is":
            raise SettingError("encoder.takeover", f"must be as_is {without}, not {settings.takeover}")
        if settings.moments_only:
            raise SettingError("encoder.moments_only", f"must be false {without}")


def check_encoder(recipe: TrainRecipe) -> None:
    """SettingError for settings of the encoder that mean nothing in a training of this mode."""
    encoder = recipe.encoder
    if recipe.regulation.mode == "transfer":
        if encoder.experience is None:
            raise SettingError("encoder.experience", "must name a stage-1 run with regulation.mode transfer, not null")
        if encoder.frozen:
            raise SettingError("encoder.frozen", "must be false with regulation.mode transfer, which fine-tunes")
    if encoder.rehearsal and encoder.experience is None:
        reason = f"must be 0 without encoder.experience, not {encoder.rehearsal:g}: there is nothing to rehearse"
        raise SettingError("encoder.rehearsal", reason)
    _check_takeover(encoder)


def with_encoder_architecture(recipe: TrainRecipe) -> TrainRecipe:
    """The recipe with the architectures written out, so that either network can be built alone."""
    own = recipe.encoder.backbone
    has_encoder = recipe.has_two_responses or recipe.regulation.mode == "transfer"
    if has_encoder and (own is None or own.stem == "auto"):
        architecture = _encoder_to_build(recipe)
        recipe = dataclasses.replace(recipe, encoder=dataclasses.replace(recipe.encoder, backbone=architecture))
    return with_stems(recipe)


def _encoder_to_build(recipe: TrainRecipe) -> BackboneSettings:
    """Architecture of the encoder: as asked, or that of its experience, or else the backbone's."""
    if recipe.encoder.experience is None:
        return recipe.encoder_backbone
    there, own = encoder_architecture(recipe.encoder.experience), recipe.encoder.backbone
    if own is not None:  # its weights come from stage 1, and so does a stem that is left to the images
        return dataclasses.replace(own.untrained, stem=there.stem if own.stem == "auto" else own.stem)
    if there.name == recipe.backbone.name:  # γ of a fresh draw, as in `fresh`, the twin that is built like the backbone
        return dataclasses.replace(there, zero_gamma=recipe.backbone.zero_gamma)
    return there


def load_classifier(
    run: Run, model: RegulatedClassifier | None = None, compare: bool = True
) -> tuple[RegulatedClassifier, tuple[str, ...]]:
    """The trained classifier of a finished run, in evaluation, and its classes' names.

    Args:
        run: of stage 2.
        model: for a run that trained your own model, one built alike.
        compare: its answers with the run's; False for the very model that was trained, which may be off by now in what
            no state dict holds.

    Raises:
        UserError: unfinished run, weights of another architecture, or a model that answers otherwise with them.
    """
    recipe = run.recipe
    if not isinstance(recipe, TrainRecipe):
        raise UserError(f"{run.folder} is a run of stage 1; it holds no classifier")
    weights, metadata = run.weights()
    names = metadata.get("classes")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and is_plain(name) for name in names):
        raise UserError(f"{run.folder / WEIGHTS} does not say what its classes are called: it is damaged")
    classes = tuple(names)
    if model is not None:
        require_classifier(model, "model")
        refuse_another(run, model)
    else:
        refuse_without(run)
        # The run's own weights replace those of its experience, which need not be there any more.
        own = recipe.encoder.backbone
        untrained = dataclasses.replace(
            recipe.encoder, experience=None, takeover="as_is", moments_only=False, backbone=own and own.untrained
        )
        plain = dataclasses.replace(recipe, encoder=untrained, backbone=recipe.backbone.untrained)
        model = build_classifier(plain, len(classes))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{run.folder / WEIGHTS} holds weights of another architecture: {shortened(str(error), 300)}"
        ) from None
    if compare:
        refuse_other_answers(run, "model", model, metadata)
    mark_loaded(model, run)
    return model.eval(), classes
