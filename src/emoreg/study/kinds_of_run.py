"""Kinds of training step: recipes reduced to the settings that decide its duration, so that each is timed once."""

from __future__ import annotations

import dataclasses
import functools

from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.recipe import PretrainRecipe, Recipe, TrainRecipe
from emoreg.config.schema import BackboneSettings, EncoderSettings, TargetSettings
from emoreg.models.weight_source import with_sources
from emoreg.study.machine import resolved

LARGE = 1_000_000  # weights; a step of such a network takes a second or more of a core


def kind_of(recipe: Recipe) -> TrainRecipe:
    """Reset the settings of a recipe that hardly change the speed of a step, and resolve `auto` for this machine.

    The networks decide, with augmentation, optimiser and training settings. Targets, stimuli, modes, mixing and losses
    concern K numbers, a negligible part of a step. Stage 1 trains one network, like a plain classifier.
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
        elif recipe.has_two_responses and recipe.encoder.views is None:  # with views its features are precomputed
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
        training=dataclasses.replace(
            recipe.training,
            epochs=1,
            memory_limit_gib=default.training.memory_limit_gib,
            devices=default.training.devices,
            trackers=default.training.trackers,
        ),
    )


def _rehearsing(encoder: EncoderSettings, recipe: TrainRecipe) -> EncoderSettings:
    """Set rehearsal to 1 if the recipe rehearses at all: the weight does not change the speed."""
    return dataclasses.replace(encoder, rehearsal=float(recipe.encoder.rehearsal > 0))


def networks_of(kind: TrainRecipe) -> tuple[TrainRecipe, ...]:
    """Split a kind into the kinds of its networks, each trained alone; a frozen encoder stays with its backbone.

    A step of two networks takes as long as one step of each: 1.92 (ResNet-20) and 2.11 times as long as one of the
    backbone (ResNet-18) on a CPU, see docs/speed.md.
    """
    if not kind.has_two_responses or kind.encoder.frozen:
        return (kind,)
    default = TrainRecipe()
    alone = dataclasses.replace(kind, encoder=default.encoder, regulation=default.regulation)
    second = dataclasses.replace(alone, backbone=kind.encoder_backbone, encoder=_rehearsing(default.encoder, kind))
    return alone, second


def is_large(kind: TrainRecipe) -> bool:
    """Return whether one of its networks has at least `LARGE` weights."""
    networks = {kind.backbone, kind.encoder_backbone}
    return any(_weights(network, kind.target.image_size) >= LARGE for network in networks)


@functools.cache
def _weights(backbone: BackboneSettings, image_size: int) -> int:
    import torch

    from emoreg.models.backbones import build_backbone

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_backbone(backbone, image_size).parameters())


def _shape(backbone: BackboneSettings, image_size: int) -> BackboneSettings:
    """The architecture alone, without the initialisation of its weights."""
    return dataclasses.replace(backbone.for_images(image_size).untrained, zero_gamma=None)


def _optimizer(settings: OptimizerSettings) -> OptimizerSettings:
    """The kind of step, without the values of its hyperparameters."""
    return OptimizerSettings(
        name=settings.name,
        layer_decay=settings.layer_decay,
        clip_norm=None if settings.clip_norm is None else 1.0,
        ema=None if settings.ema is None else 0.999,
    )
