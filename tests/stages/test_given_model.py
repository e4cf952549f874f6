from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import BackboneSettings, EncoderSettings, Granularity, Mixing, Mode, RegulationSettings
from emoreg.errors import SettingError
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.run import Run
from emoreg.runtime.progress import Progress
from emoreg.stages.classifier import load_classifier
from emoreg.stages.classify import train
from emoreg.stages.given_model import as_given
from emoreg.stages.pretrain import pretrain
from refusing import refusal
from tiny_backbone import TinyBackbone


@pytest.mark.parametrize(
    ("mode", "granularity", "mix", "lam"),
    [
        ("none", "scalar", "probabilities", 0.5),
        ("fixed", "scalar", "features", 0.3),
        ("learned", "per_class", "logits", 0.2),
    ],
)
def test_the_actual_mode_of_a_user_supplied_model_is_recorded(
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


def test_the_warm_up_of_lambda_is_for_a_regulation_that_can_be_held(stage2: TrainRecipe, tmp_path: Path) -> None:
    asked = dataclasses.replace(stage2, regulation=RegulationSettings("learned", warmup=0.2))
    model = RegulatedClassifier(TinyBackbone(), TinyBackbone(), 10)
    assert as_given(asked, model, Run(tmp_path)).regulation.warmup == 0.2
    model.add_module("regulation", Lambda())
    with pytest.raises(SettingError, match=r"regulation.warmup: must be 0 .* no method hold, not 0.2"):
        as_given(asked, model, Run(tmp_path))


class Lambda(nn.Module):
    """A user-supplied regulation with λ = 0.5."""

    gate, expected_start, rho = None, 0.5, torch.zeros(1, 1)


def test_a_user_supplied_model_ends_with_the_weights_that_its_run_keeps(
    stage2: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    """With optimizer.ema that is the average. A model passed for a finished run gets the weights too."""
    recipe = dataclasses.replace(stage2, optimizer=dataclasses.replace(stage2.optimizer, ema=0.9))
    for _ in range(2):
        model = RegulatedClassifier(TinyBackbone(), TinyBackbone(9), 10, mode="learned")
        run = train(recipe, tmp_path / "run", model, quiet)
        for name, weight in run.weights()[0].items():
            assert torch.equal(model.state_dict()[name], weight), name


def test_an_encoder_without_trainable_parameters_must_be_declared_frozen(
    stage2: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    encoder = TinyBackbone().requires_grad_(False)
    with pytest.raises(
        SettingError, match=r"encoder.frozen: must be true .*freeze_encoder=True.*requires_grad_\(True\)"
    ):
        train(stage2, tmp_path / "run", RegulatedClassifier(TinyBackbone(), encoder, 10), quiet)
    frozen = RegulatedClassifier(TinyBackbone(), encoder, 10, freeze_encoder=True)
    assert train(stage2, tmp_path / "frozen", frozen, quiet).is_finished


def test_a_user_supplied_encoder_ends_with_the_weights_that_its_run_keeps(
    stage1: PretrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    for _ in range(2):
        encoder = TinyBackbone()
        run = pretrain(stage1, tmp_path / "run", progress=quiet, encoder=encoder)
        for name, weight in encoder.state_dict().items():
            assert torch.equal(weight, run.weights()[0][f"encoder.{name}"]), name


def test_a_model_with_other_settings_than_the_trained_one_is_refused(
    stage2: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    def built(**other: Any) -> RegulatedClassifier:
        return RegulatedClassifier(TinyBackbone(), TinyBackbone(), 10, **other)

    run = train(stage2, tmp_path / "run", built(), quiet)
    for other, told in (
        ({"mix": "logits"}, "mix: probabilities -> logits"),
        ({"task": "multilabel"}, "task: classification -> multilabel"),
        ({"mode": "fixed"}, "mode: learned -> fixed"),
        (
            {"granularity": "per_class", "mix": "logits"},
            "granularity: scalar -> per_class; mix: probabilities -> logits",
        ),
    ):
        reason = refusal(partial(load_classifier, run, built(**other)))
        assert reason == f"{run.folder} trained a model with other settings ({told}): build it with these"
    alike = built(lam=0.2, freeze_encoder=True)  # outputs do not depend on these
    assert load_classifier(run, alike)[0] is alike


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"experience": "runs/affect"},
            r"experience: must be null .*such as from emoreg\.load_encoder\('runs/affect'\)",
        ),
        (
            {"takeover": "shrunk"},
            r"takeover: must be as_is with a model of your own, not shrunk: its encoder starts as",
        ),
        (
            {"moments_only": True},
            r"moments_only: must be false with a model of your own: its encoder starts as you give",
        ),
    ],
)
def test_a_recipe_cannot_change_the_start_of_a_user_supplied_encoder(
    stage2: TrainRecipe, tmp_path: Path, settings: Any, reason: str
) -> None:
    recipe = dataclasses.replace(stage2, regulation=RegulationSettings("learned"), encoder=EncoderSettings(**settings))
    with pytest.raises(SettingError, match=rf"encoder\.{reason}"):
        as_given(recipe, RegulatedClassifier(TinyBackbone(), TinyBackbone(), 10), Run(tmp_path))
