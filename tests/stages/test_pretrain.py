from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.testing import assert_close

from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import BackboneSettings, StimuliSettings
from emoreg.config.training import TrainingSettings
from emoreg.data.images.image_set import ImageSet, load_images
from emoreg.data.images.table import Table
from emoreg.data.stimuli.emotion import VALENCE_AROUSAL, EmotionSpace
from emoreg.errors import Diverged, UserError
from emoreg.runs.run import Run, start_run
from emoreg.runtime.progress import Progress
from emoreg.stages.affective_heads import affective_loss, affective_metrics, image_losses
from emoreg.stages.classify import train
from emoreg.stages.pretrain import AffectiveModel, encoder_architecture, load_encoder, pretrain
from refusing import refusal
from tiny_backbone import TinyBackbone

CATEGORY = EmotionSpace("category", ("awe", "fear", "joy"))
VOTES = EmotionSpace("votes", ("awe", "fear", "joy"))
VIT = BackboneSettings("test_vit", patch_size=8)


def noise(labels: NDArray[Any], name: str = "mine", size: int = 16) -> Table:
    return Table(name, np.random.default_rng(0).integers(0, 256, (len(labels), size, size, 3), np.uint8), labels)


def one_epoch(recipe: PretrainRecipe, **changes: Any) -> PretrainRecipe:
    return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, epochs=1), **changes)


# Losses and metrics


def test_loss_of_a_category_is_cross_entropy() -> None:
    outputs, labels = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.5]]), torch.tensor([0, 2])
    first = -math.log(math.exp(2) / (math.exp(2) + 1 + math.exp(-1)))
    assert affective_loss(outputs, labels, CATEGORY).item() == pytest.approx((first + math.log(3)) / 2)


def test_loss_of_votes_is_the_divergence_from_their_shares() -> None:
    outputs = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    counts = torch.tensor([[6.0, 3.0, 1.0], [0.0, 5.0, 5.0]])
    log_q = np.array([1.0, 0.0, 0.0]) - math.log(math.e + 2)
    p = np.array([0.6, 0.3, 0.1])
    first = float((p * (np.log(p) - log_q)).sum())
    second = math.log(3) - math.log(2)  # half and half against a third each; a share of 0 adds nothing
    assert affective_loss(outputs, counts, VOTES).item() == pytest.approx((first + second) / 2)
    assert_close(affective_loss(outputs, counts / 10, VOTES), affective_loss(outputs, counts, VOTES))
    exact = (counts / 10).log().clamp(min=-100)
    assert affective_loss(exact, counts, VOTES).item() == pytest.approx(0, abs=1e-6)


def test_loss_of_dimensions_is_the_mean_squared_error() -> None:
    outputs, labels = torch.tensor([[0.5, -1.0], [0.0, 0.2]]), torch.tensor([[0.0, 0.0], [1.0, 0.2]])
    assert affective_loss(outputs, labels, VALENCE_AROUSAL).item() == pytest.approx((0.25 + 1 + 1 + 0) / 4)


LABELLED = [
    (CATEGORY, torch.tensor([0, 2])),
    (VOTES, torch.tensor([[6.0, 3.0, 1.0], [0.0, 5.0, 5.0]])),
    (EmotionSpace("dimensions", ("valence", "arousal", "dominance")), torch.tensor([[0.1, -1, 1], [0, 0.5, 0]])),
]


@pytest.mark.parametrize(("space", "labels"), LABELLED)
def test_the_loss_of_rounded_outputs_is_not_rounded_again(space: EmotionSpace, labels: Tensor) -> None:
    outputs = torch.tensor([[1.0, 0.3, -0.2], [0.1, 2.0, 0.7]]).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss, each = affective_loss(outputs, labels, space), image_losses(outputs, labels, space)
    assert torch.equal(loss, affective_loss(outputs.float(), labels, space))
    assert torch.equal(each, image_losses(outputs.float(), labels, space))


@pytest.mark.parametrize(("space", "labels"), LABELLED)
def test_gradients_reach_encoder_and_head(space: EmotionSpace, labels: Tensor) -> None:
    torch.manual_seed(0)
    model = AffectiveModel(TinyBackbone(), 3)
    outputs = model(torch.randn(2, 3, 8, 8))
    assert outputs.shape == (2, 3)
    affective_loss(outputs, labels, space).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("names", [("valence",), ("valence", "arousal")])
def test_concordance_is_the_formula(names: tuple[str, ...]) -> None:
    """Lin 1989: 2 s_xy / (s_x² + s_y² + (mean_x - mean_y)²)."""
    draw = np.random.default_rng(0)
    labels = draw.uniform(-1, 1, (40, len(names)))
    outputs = 0.5 * labels + 0.2 + 0.1 * draw.standard_normal(labels.shape)
    expected = {}
    for column, name in enumerate(names):
        x, y = outputs[:, column], labels[:, column]
        covariance = np.cov(x, y)
        between = covariance[0, 0] + covariance[1, 1] + (x.mean() - y.mean()) ** 2
        expected[f"ccc_{name}"] = 2 * covariance[0, 1] / between
    found = affective_metrics(
        torch.tensor(outputs, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.float32),
        EmotionSpace("dimensions", names),
    )
    assert found.keys() == {"loss", "ccc", *expected}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert found["ccc"] == pytest.approx(sum(expected.values()) / len(names), abs=1e-5)


def test_concordance_is_one_for_equal_minus_one_for_opposite_and_zero_for_constant_answers() -> None:
    labels = torch.tensor([[-0.5, 0.5], [0.5, -0.5], [1.0, -1.0], [-1.0, 1.0]])
    assert affective_metrics(labels, labels, VALENCE_AROUSAL)["ccc"] == pytest.approx(1)
    assert affective_metrics(-labels, labels, VALENCE_AROUSAL)["ccc"] == pytest.approx(-1)
    constant = torch.full((4, 2), 0.3)
    assert affective_metrics(constant, labels, VALENCE_AROUSAL)["ccc"] == 0
    assert affective_metrics(labels[:1], labels[:1], VALENCE_AROUSAL) == {"loss": 0.0}  # too few for a CCC


def test_accuracy_counts_categories_and_the_most_voted() -> None:
    outputs = torch.tensor([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    assert affective_metrics(outputs, torch.tensor([0, 1, 0, 2]), CATEGORY)["accuracy"] == 0.5
    votes = torch.tensor([[5.0, 1, 0], [2, 3, 0], [4, 3, 3], [1, 0, 9]])
    assert affective_metrics(outputs, votes, VOTES)["accuracy"] == 0.5


# Stage 1


def test_the_encoder_that_is_loaded_is_the_one_that_was_trained(
    tmp_path: Path, stage1: PretrainRecipe, quiet: Progress
) -> None:
    run = pretrain(stage1, tmp_path / "run", progress=quiet)
    weights, metadata = run.weights()
    trained = {name.removeprefix("encoder."): value for name, value in weights.items() if name.startswith("encoder.")}
    loaded = load_encoder(run.folder).state_dict()
    assert loaded.keys() == trained.keys() and len(trained) + 2 == len(weights)  # and the head's two
    assert all(torch.equal(value, trained[name]) for name, value in loaded.items())
    untrained = pretrain(one_epoch(stage1, seed=1), tmp_path / "other", progress=quiet)
    assert not torch.equal(load_encoder(untrained.folder).state_dict()["conv1.weight"], trained["conv1.weight"])
    assert metadata == {
        "stage": 1,
        "space": {"kind": "dimensions", "names": ["valence", "arousal"]},
        "image_size": 16,
        "pretext": "affect",  # the metadata says what was learned
    }


def test_metrics_are_of_images_that_are_held_out(
    tmp_path: Path, stage1: PretrainRecipe, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    import emoreg.stages.stage1_data

    tables: list[Table] = []

    def load(table: Table, *rest: Any) -> ImageSet:
        tables.append(table)
        return load_images(table, *rest)

    monkeypatch.setattr(emoreg.stages.stage1_data, "load_images", load)
    labels = np.random.default_rng(0).uniform(-1, 1, (40, 2)).astype(np.float32)
    run = pretrain(stage1, tmp_path / "run", (noise(labels), VALENCE_AROUSAL), quiet)
    trained_on, held_out = ({image.tobytes() for image in np.asarray(table.images)} for table in tables)
    assert len(trained_on) == 30 and len(held_out) == 10 and trained_on.isdisjoint(held_out)
    last, validation = run.metrics.iloc[-1], run.final["validation"]
    assert {name: last[f"val_{name}"] for name in validation} == validation
    assert run.final["images"] == 30 and run.final["stimuli"] == "mine"


def test_without_validation_only_the_training_images_are_measured(
    tmp_path: Path, stage1: PretrainRecipe, quiet: Progress
) -> None:
    stimuli = dataclasses.replace(stage1.stimuli, validation=0.0, limit=20)
    run = pretrain(one_epoch(stage1, stimuli=stimuli), tmp_path / "run", progress=quiet)
    assert run.final["validation"] is None and run.final["images"] == 20
    assert -1 <= run.final["train"]["ccc"] <= 1
    assert not any(str(column).startswith("val_") for column in run.metrics)


@pytest.mark.parametrize("space", [CATEGORY, VOTES])
def test_your_own_stimuli_train(space: EmotionSpace, tmp_path: Path, stage1: PretrainRecipe, quiet: Progress) -> None:
    draw = np.random.default_rng(0)
    labels = np.arange(40) % 3 if space.kind == "category" else draw.integers(0, 9, (40, 3)).astype(np.float32) + 1
    run = pretrain(one_epoch(stage1), tmp_path / "run", (noise(labels), space), quiet)
    assert run.final["validation"].keys() == {"loss", "accuracy"}
    assert run.final["validation"]["loss"] >= 0 and 0 <= run.final["validation"]["accuracy"] <= 1
    assert run.metrics.columns.tolist()[-2:] == ["val_loss", "val_accuracy"]
    assert run.weights()[1]["space"] == {"kind": space.kind, "names": list(space.names)}
    assert run.weights()[0]["head.weight"].shape == (3, 64)
    assert isinstance(load_encoder(run.folder), nn.Module)


def test_bad_stimuli_are_refused_before_anything_is_trained(
    tmp_path: Path, stage1: PretrainRecipe, quiet: Progress
) -> None:
    labels = np.zeros((40, 2), np.float32)
    labels[7, 1] = np.nan
    assert "row 7" in refusal(lambda: pretrain(stage1, tmp_path / "run", (noise(labels), VALENCE_AROUSAL), quiet))
    assert not (tmp_path / "run" / "metrics.csv").exists()


# Its encoder in stage 2


def test_an_encoder_of_another_architecture_is_refused_with_both_named(
    tmp_path: Path, stage1: PretrainRecipe, quiet: Progress
) -> None:
    run = pretrain(one_epoch(stage1), tmp_path / "run", progress=quiet)
    message = refusal(lambda: load_encoder(run.folder, BackboneSettings("resnet20")))
    assert "resnet8" in message and "resnet20" in message and str(run.folder) in message
    assert isinstance(load_encoder(run.folder, BackboneSettings("resnet8")), nn.Module)
    assert isinstance(load_encoder(run.folder, BackboneSettings("resnet8"), image_size=32), nn.Module)


def test_an_encoder_that_differs_in_a_setting_is_refused_with_the_setting_named(
    tmp_path: Path, stage1: PretrainRecipe, quiet: Progress
) -> None:
    run = pretrain(one_epoch(stage1, backbone=VIT), tmp_path / "run", progress=quiet)
    other = dataclasses.replace(VIT, patch_size=4)
    assert "patch_size 8, not 4" in refusal(lambda: load_encoder(run.folder, other))
    message = refusal(lambda: load_encoder(run.folder, VIT, image_size=32))
    assert "16 pixels" in message and "does not fit 32 pixels" in message


def test_initialisation_is_not_part_of_the_architecture(
    tmp_path: Path, stage1: PretrainRecipe, quiet: Progress
) -> None:
    run = pretrain(one_epoch(stage1, backbone=VIT), tmp_path / "run", progress=quiet)
    asked = dataclasses.replace(VIT, pretrained=True)
    assert isinstance(load_encoder(run.folder, asked), nn.Module)
    assert encoder_architecture(run.folder) == VIT.for_images(stage1.stimuli.image_size)


def test_an_invalid_or_unfinished_experience_is_refused_in_one_line(
    tmp_path: Path, stage1: PretrainRecipe, stage2: TrainRecipe, quiet: Progress
) -> None:
    unfinished = start_run(tmp_path / "unfinished", stage1)
    assert "not finished" in refusal(lambda: load_encoder(unfinished.folder))
    diverged = start_run(tmp_path / "diverged", stage1)
    diverged.end_diverged("stage 1 diverged")
    with pytest.raises(UserError, match=re.escape(f"encoder.experience: {diverged.folder}: stage 1 diverged")) as told:
        load_encoder(diverged.folder)
    assert not isinstance(told.value, Diverged)  # that would be recorded for the run that needs the encoder
    second = train(
        dataclasses.replace(stage2, training=dataclasses.replace(stage2.training, epochs=1)),
        tmp_path / "stage 2",
        progress=quiet,
    )
    assert "stage 2, not of stage 1" in refusal(lambda: load_encoder(second.folder))
    missing = refusal(lambda: load_encoder(tmp_path / "missing"))
    assert "no run folder" in missing and "emoreg pretrain" in missing
    (tmp_path / "empty").mkdir()
    assert "is not a run folder" in refusal(lambda: load_encoder(tmp_path / "empty"))
    (tmp_path / "file").touch()
    assert "no run folder" in refusal(lambda: load_encoder(tmp_path / "file"))
    assert Run(unfinished.folder).environment == []


def test_a_regression_does_not_diverge_with_the_default_optimizer(tmp_path: Path, quiet: Progress) -> None:
    """Labels lie in [-1, 1], so predicting 0 has a loss below 1. A learning rate of 0.1 has one above 6 here."""
    recipe = PretrainRecipe(
        stimuli=StimuliSettings(count=200, image_size=16),
        backbone=BackboneSettings("resnet8"),
        training=TrainingSettings(epochs=1, batch_size=16, device="cpu"),
    )
    assert pretrain(recipe, tmp_path / "run", progress=quiet).metrics["train_loss"].max() < 1
