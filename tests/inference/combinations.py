"""Untrained classifiers of every kind, in a module that tests can import."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from emoreg.config.recipe import TrainRecipe, defaults
from emoreg.config.schema import (
    BackboneSettings,
    EncoderSettings,
    Granularity,
    Mixing,
    Mode,
    RegulationSettings,
    TargetSettings,
)
from emoreg.inference.load import LoadedRun
from emoreg.stages.classifier import build_classifier

# Together they cover every mode, granularity and mix; at λ = 1 a logarithm is infinite.
COMBINATIONS: tuple[tuple[Mode, Granularity, Mixing, float], ...] = (
    ("none", "scalar", "logits", 0.5),
    ("fixed", "scalar", "probabilities", 1.0),
    ("random", "scalar", "features", 0.5),
    ("learned", "per_class", "logits", 0.3),
    ("random_learned", "per_sample", "probabilities", 0.5),
    ("learned", "per_sample", "features", 0.7),
)


def recipe_of(mode: Mode, granularity: Granularity, mix: Mixing, lam: float) -> TrainRecipe:
    """A recipe with backbone ResNet-8, encoder ResNet-14, and images of 8 pixels."""
    edition = 1 if lam in (0, 1) else 2  # the second edition refuses λ of 0 and 1, but opens such runs of the first
    return replace(
        defaults(TrainRecipe, edition),
        target=TargetSettings(image_size=8),
        backbone=BackboneSettings("resnet8"),
        encoder=EncoderSettings(backbone=None if mode == "none" else BackboneSettings("resnet14"), frozen=True),
        regulation=RegulationSettings(mode, lam, granularity, mix),
        seed=3,
    )


def untrained(mode: Mode, granularity: Granularity, mix: Mixing, lam: float) -> LoadedRun:
    """A loaded run with three classes, untrained, with random gate weights."""
    recipe = recipe_of(mode, granularity, mix, lam)
    model = build_classifier(recipe, 3).eval()
    if model.encoder is not None and isinstance(model.regulation.gate, nn.Linear):
        model.regulation.gate.weight.data.normal_()
    return LoadedRun(
        folder=Path("nowhere"),
        model=model,
        recipe=recipe,
        classes=("cat", "dog", "a `ship`|<b>"),
        image_size=8,
        readout=None,
        no_readout_reason="it was made by a test",
    )
