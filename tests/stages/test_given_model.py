from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import timm

from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import BackboneSettings, Granularity, Mixing, Mode, RegulationSettings
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.run import Run
from emoreg.stages.given_model import as_given
from tiny_backbone import TinyBackbone


@pytest.mark.parametrize(
    ("mode", "granularity", "mix", "lam"),
    [
        ("none", "scalar", "probabilities", 0.5),
        ("fixed", "scalar", "features", 0.3),
        ("learned", "per_class", "logits", 0.2),
    ],
)
def test_the_true_mode_of_a_model_of_ones_own_is_recorded(
    stage2: TrainRecipe, tmp_path: Path, mode: Mode, granularity: Granularity, mix: Mixing, lam: float
) -> None:
    encoder = None if mode == "none" else timm.create_model("resnet18", num_classes=0)
    model = RegulatedClassifier(
        TinyBackbone(), encoder, 10, mode, granularity, mix, lam, freeze_encoder=mode == "fixed"
    )
    found = as_given(stage2, model, Run(tmp_path))
    expected = RegulationSettings() if mode == "none" else RegulationSettings(mode, lam, granularity, mix)
    assert found.regulation.lam == pytest.approx(expected.lam)
    assert dataclasses.replace(found.regulation, lam=expected.lam) == expected
    assert found.backbone.name == "own:TinyBackbone" and found.encoder.frozen == (mode == "fixed")
    assert found.encoder.backbone == (None if encoder is None else BackboneSettings("own:resnet18"))
