"""Building the classifier of stage 2 from a recipe, and loading it from a finished run."""

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
from emoreg.stages.pretrain import encoder_architecture, experience_run, load_encoder
from emoreg.stages.probe import refuse_other_outputs


def build_classifier(recipe: TrainRecipe, num_classes: int) -> RegulatedClassifier:
    """Build the classifier that a recipe describes; its emotional encoder is taken over from its experience.

    With the same seed, backbone, heads and the start of λ are the same in every mode, whatever the encoder has
    experienced and however it is taken over, so that arms differ only in the emotional branch. After a shrunk takeover
    the running statistics of batch norms do not fit; `train` estimates them anew.

    Raises:
        UserError: unknown architecture; no finished stage-1 run; an encoder of another architecture; a takeover that
            is impossible for it, or without an experience.
    """
    recipe = with_sources(require_recipe(recipe, TrainRecipe, "build_classifier"))
    return build_matched(recipe, num_classes)[0]


def build_matched(recipe: TrainRecipe, num_classes: int) -> tuple[RegulatedClassifier, NormMatch | None]:
    """As `build_classifier`; also return the counts of a norm-matched takeover."""
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
    """Build the emotional encoder as training starts; also return the counts of a norm-matched takeover."""
    settings, size = recipe.encoder, recipe.target.image_size
    _check_takeover(settings)
    if settings.experience is None:
        with drawn_from(recipe.seed, "encoder"):
            return build_backbone(recipe.encoder_backbone, size, "encoder.backbone"), None
    with drawn_from(recipe.seed, "encoder"):
        encoder = load_encoder(settings.experience, settings.backbone, size)
    if settings.takeover == "as_is" and not settings.moments_only:
        return encoder, None
    with drawn_from(recipe.seed, "encoder"):
        fresh = _build_fresh(recipe, settings.experience)
    matched = None
    if settings.takeover == "norm_matched":
        matched = match_norms(encoder, fresh)
    elif settings.takeover == "shrunk":
        shrink_and_perturb(encoder, fresh, settings.shrink)
    if settings.moments_only:
        keep_moments(encoder, fresh)
    return encoder, matched


def _build_fresh(recipe: TrainRecipe, experience: str) -> nn.Module:
    """Build θ₀, the encoder as its stage 1 started: the twin `fresh` of this seed.

    If stage 1 started from pretrained weights they are θ₀; with a random draw the encoder would lose these too.
    """
    size, (run, stage_1) = recipe.target.image_size, experience_run(experience)
    started = with_stems(stage_1).backbone
    if started == started.untrained:
        return build_backbone(_encoder_architecture(recipe), size, "encoder.backbone")
    try:
        return build_backbone(started, size)
    except SettingError as error:
        takeover, others = f"encoder.takeover: {recipe.encoder.takeover}", ", or set as_is"
        if recipe.encoder.takeover == "as_is":
            takeover, others = "encoder.moments_only", ""
        raise UserError(
            f"{takeover} needs the pretrained weights that {run.folder} started from, which cannot be loaded "
            f"({error}): restore them{others}"
        ) from None


def _check_takeover(settings: EncoderSettings) -> None:
    """Raise SettingError for a takeover without an experience."""
    if settings.experience is None:
        without = "without encoder.experience: there is nothing to take over"
        if settings.takeover != "as_is":
            raise SettingError("encoder.takeover", f"must be as_is {without}, not {settings.takeover}")
        if settings.moments_only:
            raise SettingError("encoder.moments_only", f"must be false {without}")


def check_encoder(recipe: TrainRecipe) -> None:
    """Raise SettingError for settings of the encoder that have no meaning in the recipe's mode."""
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
    """Write out the encoder's architecture in a recipe, so that both networks can be built from it alone."""
    settings = recipe.encoder.backbone
    has_encoder = recipe.has_two_responses or recipe.regulation.mode == "transfer"
    if has_encoder and (settings is None or settings.stem == "auto"):
        architecture = _encoder_architecture(recipe)
        recipe = dataclasses.replace(recipe, encoder=dataclasses.replace(recipe.encoder, backbone=architecture))
    return with_stems(recipe)


def _encoder_architecture(recipe: TrainRecipe) -> BackboneSettings:
    """The architecture of the encoder: the recipe's, or else that of its experience, or else the backbone's."""
    if recipe.encoder.experience is None:
        return recipe.encoder_backbone
    stored, settings = encoder_architecture(recipe.encoder.experience), recipe.encoder.backbone
    if settings is not None:
        return dataclasses.replace(settings.untrained, stem=stored.stem if settings.stem == "auto" else settings.stem)
    if stored.name == recipe.backbone.name:  # draw γ like the twin `fresh`, which is built like the backbone
        return dataclasses.replace(stored, zero_gamma=recipe.backbone.zero_gamma)
    return stored


def load_classifier(
    run: Run, model: RegulatedClassifier | None = None, compare: bool = True
) -> tuple[RegulatedClassifier, tuple[str, ...]]:
    """Load the classifier of a finished run, in evaluation mode, and the names of its classes.

    Args:
        run: of stage 2.
        model: for a run that trained a user-supplied model, one built with the same code.
        compare: check that the model's outputs match the run's. Training may have changed state that no state dict
            holds, so the model that was just trained is not checked.

    Raises:
        UserError: unfinished run, weights of another architecture, or a model with other outputs.
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
        model = build_classifier(_without_experience(recipe), len(classes))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{run.folder / WEIGHTS} holds weights of another architecture: {shortened(str(error), 300)}"
        ) from None
    if compare:
        refuse_other_outputs(run, "model", model, metadata)
    mark_loaded(model, run)
    return model.eval(), classes


def _without_experience(recipe: TrainRecipe) -> TrainRecipe:
    """The same networks with random weights, which the run's will replace; the experience may be gone by now."""
    backbone = recipe.encoder.backbone
    encoder = dataclasses.replace(
        recipe.encoder, experience=None, takeover="as_is", moments_only=False, backbone=backbone and backbone.untrained
    )
    return dataclasses.replace(recipe, encoder=encoder, backbone=recipe.backbone.untrained)
