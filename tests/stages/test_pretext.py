from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import emoreg.stages.pretrain
import emoreg.training.loop
from emoreg.config.schema import (
    BackboneSettings,
    Pretext,
    PretrainRecipe,
    RegulationSettings,
    StimuliSettings,
    TrainRecipe,
)
from emoreg.data.images.batches import training_batches
from emoreg.data.images.image_set import ImageSet, load_images
from emoreg.data.images.table import Table
from emoreg.data.stimuli.emotion import VALENCE_AROUSAL, EmotionSpace
from emoreg.data.stimuli.stimulus_set import Labels, Split, Stimuli
from emoreg.models.backbones import build_backbone
from emoreg.runs.run import Run
from emoreg.runtime.progress import Progress
from emoreg.stages.affective_heads import heads_of, measure_heads
from emoreg.stages.classify import build_classifier
from emoreg.stages.pretext import TURNS, measure_rotation, turned, with_shuffled_labels
from emoreg.stages.pretrain import AffectiveModel, load_encoder, pretrain
from emoreg.stages.stimulus_mixture import Cut, cut_stimuli
from emoreg.study.arms import arm_recipe
from emoreg.training.fabric import make_fabric
from narrow import pixels

PRETEXTS: tuple[Pretext, ...] = ("affect", "shuffled", "rotation")
CATEGORY = EmotionSpace("category", ("awe", "fear", "joy"))
SIZE = 16


def table(space: EmotionSpace = VALENCE_AROUSAL, count: int = 40, seed: int = 0) -> Table:
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
    if space.kind == "category":
        return Table("mine", images, draw.integers(0, len(space.names), count))
    return Table("mine", images, draw.uniform(-1, 1, (count, len(space.names))).astype(np.float32))


def loaded(images: Table) -> ImageSet:
    return load_images(images, pixels(images.images).shape[1], False, 1.0, Progress(quiet=True))


def cut(space: EmotionSpace = VALENCE_AROUSAL, seed: int = 0) -> Cut:
    mine = table(space, seed=seed)
    train: list[Split] = ["train"]
    held_out: list[Split] = ["validation", "test"]
    stimuli = Stimuli("mine", mine.images, (Labels(space, mine.labels),), train * 24 + held_out * 8)
    return cut_stimuli(stimuli, StimuliSettings("mine", image_size=SIZE), 0, Progress(quiet=True))


def learning(stage1: PretrainRecipe, pretext: Pretext, epochs: int = 1, **changes: Any) -> PretrainRecipe:
    training = dataclasses.replace(stage1.training, epochs=epochs)
    return dataclasses.replace(stage1, pretext=pretext, training=training, **changes)


@pytest.fixture
def union(stage1: PretrainRecipe) -> PretrainRecipe:
    """Dimensions and categories."""
    return dataclasses.replace(stage1, also=(dataclasses.replace(stage1.stimuli, labels="polarity"),))


# Shuffled labels


@pytest.mark.parametrize("space", [VALENCE_AROUSAL, CATEGORY])
def test_only_the_labels_of_training_images_are_permuted_each_as_a_whole(space: EmotionSpace) -> None:
    true = cut(space)
    (shuffled,) = with_shuffled_labels([true], seed=3)
    assert np.array_equal(pixels(shuffled.train.images), pixels(true.train.images))
    before, after = (sorted(np.atleast_1d(row).tolist() for row in c.train.labels) for c in (true, shuffled))
    assert before == after and not np.array_equal(shuffled.train.labels, true.train.labels)
    assert shuffled.train.labels.dtype == true.train.labels.dtype
    assert shuffled.validation is true.validation and shuffled.test is true.test
    assert (shuffled.space, shuffled.settings) == (true.space, true.settings)


def test_the_permutation_follows_from_the_seed_and_is_another_for_each_set() -> None:
    first, second = (c.train.labels for c in with_shuffled_labels([cut(), cut()], 0))
    again, other = (with_shuffled_labels([cut()], seed)[0].train.labels for seed in (0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second) and not np.array_equal(first, other)


def test_it_trains_on_shuffled_labels_and_is_measured_on_true_ones(
    stage1: PretrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    recipe = learning(stage1, "shuffled")
    mine = table()
    run = pretrain(recipe, tmp_path / "run", (mine, VALENCE_AROUSAL), quiet)
    model = AffectiveModel(build_backbone(recipe.backbone, SIZE), 2)
    model.load_state_dict(run.weights()[0])
    stimuli = Stimuli("mine", mine.images, (Labels(VALENCE_AROUSAL, mine.labels),))
    true = cut_stimuli(stimuli, recipe.stimuli, recipe.seed, quiet)
    (shuffled,) = with_shuffled_labels([true], recipe.seed)
    fabric, heads = make_fabric(recipe.training), heads_of([("mine", VALENCE_AROUSAL)])

    def measured(images: Table | None) -> Any:
        assert images is not None
        return pytest.approx(measure_heads(model, [loaded(images)], heads, [1], fabric), rel=1e-5)

    assert run.final["train"] == measured(shuffled.train) != measured(true.train)
    assert run.final["validation"] == measured(true.validation)
    assert run.weights()[1] == {
        "stage": 1,
        "image_size": SIZE,
        "pretext": "shuffled",
        "space": {"kind": "dimensions", "names": ["valence", "arousal"]},
    }


# Rotation


def test_each_image_is_turned_by_the_turn_that_is_told() -> None:
    torch.manual_seed(0)
    images = torch.randn(40, 3, 5, 5).to(memory_format=torch.channels_last)
    rotated, turns = turned(images)
    assert turns.dtype == torch.int64 and turns.unique().tolist() == [0, 1, 2, 3]
    for image, result, turn in zip(images, rotated, turns.tolist(), strict=True):
        assert torch.equal(result, image.rot90(turn, (1, 2)))
    assert rotated.is_contiguous(memory_format=torch.channels_last)


def test_turns_are_drawn_evenly_from_the_default_generator() -> None:
    images = torch.zeros(4000, 1, 2, 2)
    torch.manual_seed(5)
    first, second = turned(images)[1], turned(images)[1]
    torch.manual_seed(5)
    assert torch.equal(turned(images)[1], first) and not torch.equal(first, second)
    assert first.bincount().tolist() == pytest.approx([1000] * 4, abs=150)  # more than five standard deviations


class Brightest(nn.Module):
    """Tells the turn of images whose upper edge is bright by the edge that is bright now."""

    def forward(self, images: Tensor) -> Tensor:
        upper, left, lower, right = images[:, :, 0], images[:, :, :, 0], images[:, :, -1], images[:, :, :, -1]
        return torch.stack([edge.mean(dim=(1, 2)) for edge in (upper, left, lower, right)], dim=1)


def test_every_image_is_measured_in_all_four_turns(stage1: PretrainRecipe) -> None:
    seen: list[Tensor] = []

    class Recorded(Brightest):
        def forward(self, images: Tensor) -> Tensor:
            seen.extend(images)
            return super().forward(images)

    pixels = np.zeros((6, 8, 8, 3), np.uint8)
    pixels[:, 0] = 200
    images, fabric = loaded(Table("bright", pixels, np.zeros(6, np.int64))), make_fabric(stage1.training)
    found = measure_rotation(Recorded(), [images, None], fabric)
    assert found is not None and found["accuracy"] == 1 and found["loss"] > 0
    assert len(seen) == 24 and len({image.numpy().tobytes() for image in seen}) == 4


def test_who_cannot_tell_turns_is_right_in_one_of_four(stage1: PretrainRecipe) -> None:
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.zeros(len(images), 4)

    fabric = make_fabric(stage1.training)
    sets = [loaded(table(count=5)), None, loaded(table(count=7))]
    assert measure_rotation(Constant(), sets, fabric) == {"loss": pytest.approx(math.log(4)), "accuracy": 0.25}
    assert measure_rotation(Constant(), [None, None], fabric) is None


def test_all_images_of_all_sets_count_alike(stage1: PretrainRecipe) -> None:
    torch.manual_seed(0)
    model, fabric = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 4)), make_fabric(stage1.training)
    one, other = loaded(table(count=3)), loaded(table(count=9, seed=1))
    found = [measure_rotation(model, sets, fabric) for sets in ([one], [other], [one, other])]
    for key in ("loss", "accuracy"):
        first, second, both = (metrics[key] for metrics in found if metrics is not None)
        assert both == pytest.approx((3 * first + 9 * second) / 12)


@pytest.mark.parametrize("name", ["stage1", "union"])
def test_rotation_is_one_head_of_four_whatever_the_stimuli_are_labelled_with(
    name: str, tmp_path: Path, quiet: Progress, request: pytest.FixtureRequest
) -> None:
    run = pretrain(learning(request.getfixturevalue(name), "rotation"), tmp_path / "run", progress=quiet)
    weights, metadata = run.weights()
    assert weights["head.weight"].shape == (4, 64)
    assert metadata == {"stage": 1, "image_size": SIZE, "pretext": "rotation", "turns": list(TURNS)}
    for part in ("train", "validation"):
        assert run.final[part].keys() == {"loss", "accuracy"} and 0 <= run.final[part]["accuracy"] <= 1
    assert run.final["test"] is None
    assert run.metrics.columns.tolist()[-2:] == ["val_loss", "val_accuracy"]
    assert run.metrics["val_loss"].iloc[-1] == pytest.approx(run.final["validation"]["loss"])
    assert len(run.final["sets"]) == (2 if name == "union" else 1)


def test_rotation_needs_no_validation_images(stage1: PretrainRecipe, tmp_path: Path, quiet: Progress) -> None:
    stimuli = dataclasses.replace(stage1.stimuli, validation=0.0, limit=20)
    run = pretrain(learning(stage1, "rotation", stimuli=stimuli), tmp_path / "run", progress=quiet)
    assert run.final["validation"] is None and run.final["train"].keys() == {"loss", "accuracy"}


class Interrupted(Exception):
    pass


class StopsAfterAnEpoch(Progress):
    def detail(self, line: str) -> None:
        raise Interrupted


@pytest.mark.parametrize("pretext", ["shuffled", "rotation"])
def test_a_stopped_control_goes_on_to_the_same_weights(
    pretext: Pretext, stage1: PretrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    recipe = learning(stage1, pretext, epochs=2)
    whole = pretrain(recipe, tmp_path / "whole", progress=quiet)
    with pytest.raises(Interrupted):
        pretrain(recipe, tmp_path / "stopped", progress=StopsAfterAnEpoch(quiet=True))
    assert not Run(tmp_path / "stopped").is_finished
    resumed = pretrain(recipe, tmp_path / "stopped", progress=quiet)
    for name, value in whole.weights()[0].items():
        assert torch.equal(value, resumed.weights()[0][name]), name


# What is equal between them


@pytest.mark.parametrize("name", ["stage1", "union"])
def test_all_pretexts_see_the_same_batches_and_differ_in_what_is_learned_from_them(
    name: str, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    recipe = request.getfixturevalue(name)
    seen: dict[Pretext, list[tuple[Tensor, Tensor]]] = {pretext: [] for pretext in PRETEXTS}
    runs = {}
    for pretext in PRETEXTS:

        def batches(*arguments: Any, to: Pretext = pretext, **options: Any) -> Any:
            for batch in training_batches(*arguments, **options):
                seen[to].append((batch.images.clone(), batch.labels.clone()))
                yield batch

        monkeypatch.setattr(emoreg.training.loop, "training_batches", batches)
        runs[pretext] = pretrain(learning(recipe, pretext, epochs=2), tmp_path / pretext, progress=quiet)
    for pretext in ("shuffled", "rotation"):
        images, expected = ([batch for batch, _ in seen[of]] for of in (pretext, "affect"))
        assert len(images) == len(expected) >= 2
        assert all(torch.equal(one, other) for one, other in zip(images, expected, strict=True))
        assert runs[pretext].final["sets"] == runs["affect"].final["sets"]
        weights, affect = (runs[of].weights()[0]["encoder.conv1.weight"] for of in (pretext, "affect"))
        assert not torch.equal(weights, affect)
    labels, true = (torch.cat([labels for _, labels in seen[of]]) for of in ("shuffled", "affect"))
    assert labels.shape == true.shape and not torch.equal(labels, true)


@pytest.mark.parametrize("backbone", [BackboneSettings("resnet8"), BackboneSettings("test_vit", patch_size=8)])
def test_every_pretext_and_the_random_encoder_start_from_the_same_weights(
    backbone: BackboneSettings,
    stage1: PretrainRecipe,
    stage2: TrainRecipe,
    tmp_path: Path,
    quiet: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts: list[dict[str, Tensor]] = []

    def start(_context: Any, model: AffectiveModel, *_rest: Any, **_options: Any) -> Any:
        starts.append(model.encoder.state_dict())
        raise Interrupted

    monkeypatch.setattr(emoreg.stages.pretrain, "fit", start)
    for pretext in PRETEXTS:
        with pytest.raises(Interrupted):
            pretrain(learning(stage1, pretext, backbone=backbone, seed=3), tmp_path / pretext, progress=quiet)
    target = dataclasses.replace(stage2.target, image_size=SIZE)
    base = dataclasses.replace(stage2, target=target, backbone=backbone, regulation=RegulationSettings("learned"))
    control = build_classifier(arm_recipe(base, "random_encoder", None, seed=3), 10).encoder
    assert control is not None
    for weights in starts:
        assert weights.keys() == control.state_dict().keys()
        assert all(torch.equal(value, weights[name]) for name, value in control.state_dict().items())


@pytest.mark.parametrize("pretext", PRETEXTS)
def test_your_own_stimuli_serve_every_pretext_and_stage_2_takes_its_encoder(
    pretext: Pretext, stage1: PretrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    run = pretrain(learning(stage1, pretext), tmp_path / "run", (table(CATEGORY), CATEGORY), quiet)
    trained, encoder = run.weights()[0], load_encoder(run.folder, stage1.backbone)
    assert run.final["images"] == 30 and run.final["stimuli"] == "mine"
    assert all(torch.equal(value, trained[f"encoder.{name}"]) for name, value in encoder.state_dict().items())
