"""What of a recipe decides how long a step of its training takes: runs that are alike in that are timed once."""

from __future__ import annotations

import dataclasses
import functools

from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.recipe import PretrainRecipe, Recipe, TrainRecipe
from emoreg.config.schema import BackboneSettings, EncoderSettings, TargetSettings
from emoreg.config.training import TrainingSettings
from emoreg.models.weight_source import with_sources
from emoreg.study.machine import resolved

LARGE = 1_000_000  # weights; a step of such a network takes a second or more of a core


def kind_of(recipe: Recipe) -> TrainRecipe:
    """The recipe without what hardly changes the speed of a step, for this machine, and without downloads.

    Targets, stimuli, modes and the ways of mixing and judging answers are K numbers beside a network of millions: arms
    differ in the networks that they train, and stage 1 trains one network as a plain classifier does.
    """
    recipe = resolved(with_sources(recipe), None)
    default = TrainRecipe()
    encoder, regulation = default.encoder, default.regulation
    if isinstance(recipe, PretrainRecipe):
        size, backbone = recipe.stimuli.image_size, recipe.backbone
    else:
        size, backbone = recipe.target.image_size, recipe.backbone
        if recipe.regulation.mode == "transfer":
            backbone, encoder = recipe.encoder_backbone, _rehearsing(encoder, recipe)
        elif recipe.has_two_responses and recipe.encoder.views is None:  # with views its features are looked up
            second = _shape(recipe.encoder_backbone, size)
            encoder = dataclasses.replace(encoder, backbone=second, frozen=recipe.encoder.frozen)
            encoder = _rehearsing(encoder, recipe)
            regulation = dataclasses.replace(regulation, mode="fixed")
    return TrainRecipe(
        target=TargetSettings(image_size=size),
        backbone=_shape(backbone, size),
        encoder=encoder,
        regulation=regulation,
        augment=recipe.augment,
        optimizer=_optimizer(recipe.optimizer),
        training=_training(recipe.training),
    )


def _rehearsing(encoder: EncoderSettings, recipe: TrainRecipe) -> EncoderSettings:
    """The encoder of a kind, which rehearses if that of the recipe does, with whatever weight."""
    return dataclasses.replace(encoder, rehearsal=float(recipe.encoder.rehearsal > 0))


def networks_of(kind: TrainRecipe) -> tuple[TrainRecipe, ...]:
    """The kinds of the one or two networks that are trained, each alone: a step of both takes as long as one of each.

    By docs/speed.md, 1.92 (ResNet-20) and 2.11 steps (ResNet-18) on a CPU. A frozen encoder stays with its backbone.
    """
    if not kind.has_two_responses or kind.encoder.frozen:
        return (kind,)
    default = TrainRecipe()
    alone = dataclasses.replace(kind, encoder=default.encoder, regulation=default.regulation)
    second = dataclasses.replace(alone, backbone=kind.encoder_backbone, encoder=_rehearsing(default.encoder, kind))
    return alone, second


def is_large(kind: TrainRecipe) -> bool:
    """Whether one of its networks has `LARGE` weights or more."""
    networks = {kind.backbone, kind.encoder_backbone}
    return any(_weights(network, kind.target.image_size) >= LARGE for network in networks)


@functools.cache
def _weights(backbone: BackboneSettings, image_size: int) -> int:
    import torch

    from emoreg.models.backbones import build_backbone

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_backbone(backbone, image_size).parameters())


def _shape(backbone: BackboneSettings, image_size: int) -> BackboneSettings:
    """The architecture, however its weights start."""
    return dataclasses.replace(backbone.for_images(image_size).untrained, zero_gamma=None)


def _optimizer(settings: OptimizerSettings) -> OptimizerSettings:
    """What is done in a step, whatever the numbers."""
    return OptimizerSettings(
        name=settings.name,
        layer_decay=settings.layer_decay,
        clip_norm=None if settings.clip_norm is None else 1.0,
        ema=None if settings.ema is None else 0.999,
    )


def _training(settings: TrainingSettings) -> TrainingSettings:
    return TrainingSettings(
        epochs=1,
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
        device=settings.device,
        precision=settings.precision,
        compile=settings.compile,
        cuda_graphs=settings.cuda_graphs,
        initial_scale=settings.initial_scale,
        deterministic=settings.deterministic,
    )
