"""User-supplied networks that accept a run's weights but have other code than the one that it trained."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.run import Run
from emoreg.runtime.progress import Progress
from emoreg.stages.classifier import load_classifier
from emoreg.stages.classify import train
from emoreg.stages.pretrain import load_encoder, pretrain
from emoreg.stages.probe import KEY, probe_outputs, refuse_other_outputs
from refusing import refusal
from tiny_backbone import TinyBackbone

DIFFERENT = "has the weights of {} but gives different outputs: build it with the same code"


class Squashed(TinyBackbone):
    """The same parameters, another forward."""

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images)).tanh().mean(dim=(2, 3))


class Noisy(TinyBackbone):
    """Gives other outputs each time, also in evaluation mode."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(images), 0.5, training=True)


def test_a_model_with_another_forward_is_refused(stage2: TrainRecipe, tmp_path: Path, quiet: Progress) -> None:
    def built(encoder: nn.Module) -> RegulatedClassifier:
        return RegulatedClassifier(TinyBackbone(), encoder, 10)

    run = train(stage2, tmp_path / "run", built(TinyBackbone()), quiet)
    assert [len(answers) for answers in run.weights()[1][KEY]] == [20, 20, 20]
    alike = built(TinyBackbone()).train()
    drawn = torch.get_rng_state()
    load_classifier(run, alike)
    assert torch.equal(torch.get_rng_state(), drawn)
    told = "model " + DIFFERENT.format(run.folder)
    assert refusal(lambda: load_classifier(run, built(Squashed()))) == told
    assert refusal(lambda: train(stage2, run.folder, built(Squashed()), quiet)).startswith(str(run.folder))  # its name
    namesake = type("TinyBackbone", (Squashed,), {})
    assert refusal(lambda: train(stage2, run.folder, built(namesake()), quiet)) == told


def test_an_encoder_with_another_forward_is_refused(stage1: PretrainRecipe, tmp_path: Path, quiet: Progress) -> None:
    run = pretrain(stage1, tmp_path / "run", progress=quiet, encoder=TinyBackbone())
    assert load_encoder(run, encoder=TinyBackbone().train()).training
    told = "encoder " + DIFFERENT.format(run.folder)
    assert refusal(lambda: load_encoder(run, encoder=Squashed())) == told


class Counting(TinyBackbone):
    """Outputs depend on a number that training changes and no state dict holds."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def forward(self, images: Tensor) -> Tensor:
        self.steps += self.training
        return super().forward(images) * (1 + self.steps)


def test_a_network_with_state_outside_its_state_dict_is_not_compared_after_training(
    stage1: PretrainRecipe, stage2: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    average = dataclasses.replace(stage2.optimizer, ema=0.9)
    first, second = dataclasses.replace(stage1, optimizer=average), dataclasses.replace(stage2, optimizer=average)

    def built() -> RegulatedClassifier:
        return RegulatedClassifier(Counting(), None, 10, mode="none")

    run = train(second, tmp_path / "stage2", built(), quiet)
    assert run.is_finished and pretrain(first, tmp_path / "stage1", progress=quiet, encoder=Counting()).is_finished
    assert train(second, run.folder, built(), quiet).final == run.final  # the average had the outputs of a new one


def test_the_run_of_a_network_with_random_outputs_is_loaded(
    stage2: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    run = train(stage2, tmp_path / "run", RegulatedClassifier(Noisy(), None, 10, mode="none"), quiet)
    assert KEY not in run.weights()[1]
    load_classifier(run, RegulatedClassifier(Noisy(), None, 10, mode="none"))


def test_outputs_are_not_stored_if_the_network_fails_or_they_are_not_finite() -> None:
    for network in (nn.Linear(3, 2), nn.Sequential(TinyBackbone(), Infinite())):
        assert probe_outputs(network, 8) == {}


class Infinite(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features / 0


@pytest.mark.parametrize("damaged", [7, [["x"]], {"a": 1}])
def test_damaged_outputs_are_refused_in_one_line(damaged: object) -> None:
    reason = refusal(lambda: refuse_other_outputs(Run(Path("run")), "model", TinyBackbone(), {KEY: damaged}))
    assert reason == "run/model.safetensors is damaged: its probe is not lists of numbers"
