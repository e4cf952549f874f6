from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import emoreg.stages.pretrain
import emoreg.stages.stage1_data
import emoreg.training.loop
from emoreg.config.augment import AugmentSettings
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import BackboneSettings, Pretext, RegulationSettings, StimuliSettings
from emoreg.data.images.batches import Batch, training_batches
from emoreg.data.images.image_set import ImageSet, load_images
from emoreg.data.images.names import Split
from emoreg.data.images.table import Table
from emoreg.data.stimuli.emotion import POLARITY, VALENCE_AROUSAL, EmotionSpace
from emoreg.data.stimuli.stimulus_set import Labels, Stimuli
from emoreg.errors import SettingError
from emoreg.models.backbones import build_backbone
from emoreg.runs.run import Run
from emoreg.runtime.progress import Progress
from emoreg.runtime.seeding import generator
from emoreg.stages.affective_heads import heads_of, joint_labels, joint_loss, measure_heads
from emoreg.stages.classifier import build_classifier
from emoreg.stages.pretext import (
    APPEARANCE,
    TURNS,
    appearance,
    chance_of,
    labelled_by_appearance,
    measure_rotation,
    pretext_task,
    refuse_mixed_ratings,
    turned,
    with_neutral_labels,
    with_shuffled_labels,
)
from emoreg.stages.pretrain import AffectiveModel, load_encoder, pretrain
from emoreg.stages.stimulus_mixture import SplitStimuli, split_stimuli
from emoreg.study.arms import PlannedArm, recipe_of
from emoreg.training.fabric import make_fabric
from emoreg.training.step import Objective
from narrow import pixels
from stopped_runs import CutOff

PRETEXTS: tuple[Pretext, ...] = ("affect", "shuffled", "rotation")  # neutral is not for procedural stimuli
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


def split_set(space: EmotionSpace = VALENCE_AROUSAL, seed: int = 0) -> SplitStimuli:
    mine = table(space, seed=seed)
    train: list[Split] = ["train"]
    held_out: list[Split] = ["validation", "test"]
    stimuli = Stimuli("mine", mine.images, (Labels(space, mine.labels),), train * 24 + held_out * 8)
    return split_stimuli(stimuli, StimuliSettings("mine", image_size=SIZE), 0, Progress(quiet=True))


def renamed(some: SplitStimuli, name: str) -> SplitStimuli:
    """The same images as another set."""
    return dataclasses.replace(some, settings=dataclasses.replace(some.settings, name=name))


def learning(stage1: PretrainRecipe, pretext: Pretext, epochs: int = 1, **changes: Any) -> PretrainRecipe:
    training = dataclasses.replace(stage1.training, epochs=epochs)
    return dataclasses.replace(stage1, pretext=pretext, training=training, **changes)


def counts(run: Run) -> dict[str, dict[str, int]]:
    """Counts of every set; chance is left out, as it depends on the labels."""
    return {name: {key: told[key] for key in told if key != "chance"} for name, told in run.final["sets"].items()}


@pytest.fixture
def union(stage1: PretrainRecipe) -> PretrainRecipe:
    """Dimensions and categories."""
    return dataclasses.replace(stage1, also=(dataclasses.replace(stage1.stimuli, labels="polarity"),))


# Shuffled labels


@pytest.mark.parametrize("space", [VALENCE_AROUSAL, CATEGORY])
def test_only_the_labels_of_training_images_are_permuted_each_as_a_whole(space: EmotionSpace) -> None:
    true = split_set(space)
    (shuffled,) = with_shuffled_labels([true], seed=3)
    assert np.array_equal(pixels(shuffled.train.images), pixels(true.train.images))
    before, after = (sorted(np.atleast_1d(row).tolist() for row in c.train.labels) for c in (true, shuffled))
    assert before == after and not np.array_equal(shuffled.train.labels, true.train.labels)
    assert shuffled.train.labels.dtype == true.train.labels.dtype
    assert shuffled.validation is true.validation and shuffled.test is true.test
    assert (shuffled.space, shuffled.settings) == (true.space, true.settings)


def test_the_permutation_follows_from_the_seed_and_is_another_for_each_set() -> None:
    first, second = (c.train.labels for c in with_shuffled_labels([split_set(), renamed(split_set(), "other")], 0))
    again, other = (with_shuffled_labels([split_set()], seed)[0].train.labels for seed in (0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second) and not np.array_equal(first, other)


def test_the_permutation_of_a_set_does_not_change_between_versions() -> None:
    (shuffled,) = with_shuffled_labels([split_set()], 5)
    order = torch.randperm(24, generator=generator(5, "shuffle", 0)).numpy()
    assert np.array_equal(shuffled.train.labels, split_set().train.labels[order])


def numbered(kept: list[int], kind: str) -> SplitStimuli:
    """A set with training images 0 to 23, whose valence is their number; the `kept` ones have a label of `kind`."""
    values = np.zeros((32, 2), np.float32)
    values[:, 0] = np.arange(32) / 32
    names = tuple(str(number) for number in range(32))
    category = np.array([number if number in kept or number >= 24 else -1 for number in range(32)])
    published = (Labels(VALENCE_AROUSAL, values), Labels(EmotionSpace("category", names), category))
    train: list[Split] = ["train"]
    held_out: list[Split] = ["validation"]
    stimuli = Stimuli("mine", table(count=32).images, published, train * 24 + held_out * 8)
    settings = StimuliSettings("mine", image_size=SIZE, labels="majority" if kind == "category" else "published")
    return split_stimuli(stimuli, settings, 0, Progress(quiet=True))


def sources(shuffled: SplitStimuli) -> dict[int, int]:
    """Map each training image to the image whose label it got, both as numbers in the set."""
    labels = shuffled.train.labels
    numbers = labels if labels.ndim == 1 else np.round(labels[:, 0] * 32)
    return dict(zip(shuffled.rows[0].tolist(), numbers.astype(int).tolist(), strict=True))


def test_all_labels_of_an_image_move_together_if_its_set_occurs_twice() -> None:
    every = list(range(24))
    first, second = map(sources, with_shuffled_labels([numbered(every, "values"), numbered(every, "category")], 0))
    assert first == second and any(image != source for image, source in first.items())


def test_if_a_label_leaves_images_out_the_others_move_together_as_far_as_possible() -> None:
    kept = [number for number in range(24) if number % 3]
    whole, part = map(
        sources, with_shuffled_labels([numbered(list(range(24)), "values"), numbered(kept, "category")], 0)
    )
    assert sorted(part) == sorted(part.values()) == kept
    for image, source in part.items():
        expected = whole[image]
        while expected not in kept:
            expected = whole[expected]
        assert source == expected
    part, whole = map(
        sources, with_shuffled_labels([numbered(kept, "category"), numbered(list(range(24)), "values")], 0)
    )
    assert all(whole[image] == source for image, source in part.items())
    left_out = set(range(24)) - set(kept)
    assert {whole[image] for image in left_out} == left_out


def test_it_trains_on_shuffled_labels_and_is_measured_on_true_ones(
    stage1: PretrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    recipe = learning(stage1, "shuffled")
    mine = table()
    run = pretrain(recipe, tmp_path / "run", (mine, VALENCE_AROUSAL), quiet)
    model = AffectiveModel(build_backbone(recipe.backbone, SIZE), 2)
    model.load_state_dict(run.weights()[0])
    stimuli = Stimuli("mine", mine.images, (Labels(VALENCE_AROUSAL, mine.labels),))
    true = split_stimuli(stimuli, recipe.stimuli, recipe.seed, quiet)
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


# Neutral labels


def plain_appearance(image: Any) -> list[float]:
    """The formula of Hasler & Süsstrunk, for uint8 (H, W, 3)."""
    red, green, blue = (image[..., channel].astype(float) for channel in range(3))
    rg, yb = red - green, 0.5 * (red + green) - blue
    colourfulness = np.sqrt(rg.std() ** 2 + yb.std() ** 2) + 0.3 * np.sqrt(rg.mean() ** 2 + yb.mean() ** 2)
    brightness = (0.2126 * red + 0.7152 * green + 0.0722 * blue).mean() / 255
    return [2 * brightness - 1, min(2 * colourfulness / 109 - 1, 1)]


@pytest.mark.parametrize(
    ("colour", "brightness", "colourfulness"),
    [
        ((0, 0, 0), -1, -1),
        ((255, 255, 255), 1, -1),
        ((51, 51, 51), -0.6, -1),
        ((255, 0, 0), 2 * 0.2126 - 1, 2 * 0.3 * 255 * math.sqrt(1.25) / 109 - 1),
    ],
)
def test_the_appearance_of_plain_colours(colour: tuple[int, int, int], brightness: float, colourfulness: float) -> None:
    image = torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert appearance(image)[0].tolist() == pytest.approx([brightness, colourfulness], abs=1e-6)


def test_appearance_is_the_published_formula_within_the_range_of_ratings() -> None:
    draw = np.random.default_rng(0)
    vivid = draw.integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    pale = (vivid // 8 + np.arange(4, dtype=np.uint8)[:, None, None, None] * 50).astype(np.uint8)
    images = np.concatenate([vivid, pale])
    found = appearance(torch.from_numpy(images).permute(0, 3, 1, 2))
    assert found.dtype == torch.float32
    for row, image in zip(found.tolist(), images, strict=True):
        assert row == pytest.approx(plain_appearance(image), abs=1e-5)
    assert found.abs().max() <= 1 and found[0, 1] == 1  # clipped


def test_appearance_depends_on_its_image_only_and_not_on_flips(quiet: Progress) -> None:
    images = loaded(table())
    labelled = labelled_by_appearance(images, quiet)
    few = labelled_by_appearance(loaded(table().take(np.arange(3))), quiet)
    assert torch.equal(few.labels, labelled.labels[:3])
    assert images.pixels is not None
    assert torch.allclose(appearance(images.pixels.flip(3)), labelled.labels, atol=1e-6)
    assert np.array_equal(labelled.table.labels, labelled.labels.numpy())


def with_neutral(some: SplitStimuli) -> SplitStimuli:
    """The set, published with a category that is not an emotion: even or odd row numbers."""
    rows = np.arange(max(int(part.max()) for part in some.rows) + 1)
    return dataclasses.replace(some, neutral=Labels(EmotionSpace("category", ("even", "odd")), rows % 2))


def test_a_published_neutral_label_replaces_the_emotion_in_every_part() -> None:
    true = with_neutral(split_set())
    (neutral,) = with_neutral_labels([true])
    assert neutral.space.names == ("even", "odd")
    for part, before, rows in (
        (neutral.train, true.train, true.rows[0]),
        (neutral.validation, true.validation, true.rows[1]),
        (neutral.test, true.test, true.rows[2]),
    ):
        assert part is not None and before is not None and np.array_equal(part.labels, rows % 2)
        assert np.array_equal(pixels(part.images), pixels(before.images))


@pytest.mark.parametrize("space", [VALENCE_AROUSAL, CATEGORY])
@pytest.mark.parametrize("limit", [4.0, 0.0], ids=["memory", "disk"])
def test_neutral_learns_appearance_from_the_same_batches(
    space: EmotionSpace,
    limit: float,
    stage1: PretrainRecipe,
    tmp_path: Path,
    quiet: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = dataclasses.replace(stage1, training=dataclasses.replace(stage1.training, memory_limit_gib=limit))
    given, runs = (table(space), space), {}
    seen: dict[str, list[Tensor]] = {"affect": [], "neutral": []}
    for pretext in ("affect", "neutral"):

        def batches(*arguments: Any, to: str = pretext, **options: Any) -> Any:
            for batch in training_batches(*arguments, **options):
                seen[to].append(batch.images.clone())
                yield batch

        monkeypatch.setattr(emoreg.training.loop, "training_batches", batches)
        recipe = dataclasses.replace(asked, pretext=pretext)
        recipe = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, epochs=2))
        runs[pretext] = pretrain(recipe, tmp_path / pretext, given, quiet)
    assert all(torch.equal(one, other) for one, other in zip(seen["affect"], seen["neutral"], strict=True))
    assert counts(runs["neutral"]) == counts(runs["affect"])
    for part in ("train", "validation"):
        assert runs["neutral"].final[part].keys() == {"loss", "ccc", "ccc_brightness", "ccc_colourfulness"}
    metadata = runs["neutral"].weights()[1]
    assert metadata["pretext"] == "neutral" and metadata["space"] == {
        "kind": "dimensions",
        "names": list(APPEARANCE.names),
    }


def test_neutral_labels_of_a_set_on_disk_are_those_of_one_in_memory(
    stage1: PretrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    runs = []
    for limit in (4.0, 0.0):
        recipe = learning(stage1, "neutral")
        training = dataclasses.replace(recipe.training, memory_limit_gib=limit)
        recipe = dataclasses.replace(recipe, training=training)
        runs.append(pretrain(recipe, tmp_path / str(limit), (table(), VALENCE_AROUSAL), quiet))
    one, other = (run.weights()[0] for run in runs)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert runs[0].final["validation"] == runs[1].final["validation"]


def test_neutral_is_measured_on_the_validation_images_own_appearance(
    stage1: PretrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    recipe, mine = learning(stage1, "neutral"), table()
    run = pretrain(recipe, tmp_path / "run", (mine, VALENCE_AROUSAL), quiet)
    model = AffectiveModel(build_backbone(recipe.backbone, SIZE), 2)
    model.load_state_dict(run.weights()[0])
    stimuli = Stimuli("mine", mine.images, (Labels(VALENCE_AROUSAL, mine.labels),))
    held_out = split_stimuli(stimuli, recipe.stimuli, recipe.seed, quiet).validation
    assert held_out is not None
    labels = np.array([plain_appearance(image) for image in pixels(held_out.images)], np.float32)
    images = loaded(Table("mine", held_out.images, labels))
    fabric, heads = make_fabric(recipe.training), heads_of([("mine", APPEARANCE)])
    assert run.final["validation"] == pytest.approx(measure_heads(model, [images], heads, [1], fabric), rel=1e-4)


def test_each_set_of_a_union_gets_its_own_kind_of_neutral_label(
    stage1: PretrainRecipe, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    category = EmotionSpace("category", ("cat", "dog"))
    some = table(count=40)
    sets = {
        "one": Stimuli(
            "one", some.images, (Labels(VALENCE_AROUSAL, some.labels),), neutral=Labels(category, np.arange(40) % 2)
        ),
        "two": Stimuli("two", some.images, (Labels(EmotionSpace("category", POLARITY), np.arange(40) % 2),)),
    }
    monkeypatch.setattr(emoreg.stages.stage1_data, "read_stimuli", lambda settings, seed: sets[settings.name])
    first, second = (dataclasses.replace(stage1.stimuli, name=name) for name in sets)
    run = pretrain(learning(stage1, "neutral", stimuli=first, also=(second,)), tmp_path / "run", progress=quiet)
    spaces = [head["space"] for head in run.weights()[1]["heads"]]
    assert [space["names"] for space in spaces] == [["cat", "dog"], list(APPEARANCE.names)]
    assert {"one_accuracy", "two_ccc_brightness"} < run.final["validation"].keys()


@pytest.mark.parametrize("also", [False, True])
def test_neutral_is_refused_for_procedural_stimuli_whose_emotion_it_is(
    also: bool, stage1: PretrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    recipe, given = learning(stage1, "neutral"), None
    if also:
        recipe = learning(stage1, "neutral", also=(dataclasses.replace(stage1.stimuli, labels="polarity"),))
        given = (table(), VALENCE_AROUSAL)
    with pytest.raises(SettingError, match="procedural stimuli: their emotion is computed from brightness") as caught:
        pretrain(recipe, tmp_path / "run", given, quiet)
    assert caught.value.key == "pretext"


# Rotation


def test_each_image_is_turned_by_the_given_turn() -> None:
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
    """Recognises the turn of images with a bright upper edge by the edge that is bright now."""

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


def test_a_constant_prediction_of_turns_is_right_in_one_of_four(stage1: PretrainRecipe) -> None:
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.zeros(len(images), 4)

    fabric = make_fabric(stage1.training)
    sets = [loaded(table(count=5)), None, loaded(table(count=7))]
    assert measure_rotation(Constant(), sets, fabric) == {"loss": pytest.approx(math.log(4)), "accuracy": 0.25}
    assert measure_rotation(Constant(), [None, None], fabric) is None


def test_all_images_of_all_sets_have_the_same_weight(stage1: PretrainRecipe) -> None:
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


@pytest.mark.parametrize("pretext", ["shuffled", "neutral", "rotation"])
def test_a_stopped_twin_resumes_to_the_same_weights(
    pretext: Pretext, stage1: PretrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    recipe, mine = learning(stage1, pretext, epochs=2), (table(), VALENCE_AROUSAL)
    whole = pretrain(recipe, tmp_path / "whole", mine, quiet)
    with pytest.raises(InterruptedError):
        pretrain(recipe, tmp_path / "stopped", mine, CutOff())
    assert not Run(tmp_path / "stopped").is_finished
    resumed = pretrain(recipe, tmp_path / "stopped", mine, quiet)
    for name, value in whole.weights()[0].items():
        assert torch.equal(value, resumed.weights()[0][name]), name


# Mixed images


VOTES = EmotionSpace("votes", ("awe", "fear", "joy"))
MIXED = AugmentSettings(0, mixup=1.0, cutmix=1.0)


def labels_of(space: EmotionSpace, count: int) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    if space.kind == "category":
        return torch.randint(3, (count,), generator=draw)
    return torch.randint(1, 9, (count, 3), generator=draw).float()


@pytest.mark.parametrize("space", [CATEGORY, VOTES])
def test_a_mixed_image_is_trained_towards_the_mixture_of_both_labels(
    space: EmotionSpace, stage1: PretrainRecipe
) -> None:
    labels, share, outputs = labels_of(space, 6), torch.rand(6), torch.randn(6, 3, requires_grad=True)
    other = labels.flip(0)
    task = pretext_task("affect", heads_of([("mine", space)]), [6], make_fabric(stage1.training))
    task.loss_of(nn.Identity(), Batch(outputs, labels, torch.arange(6), other, share)).backward()
    of_one, of_other = (
        torch.nn.functional.one_hot(kind, 3).float() if space.kind == "category" else kind / kind.sum(1, keepdim=True)
        for kind in (labels, other)
    )
    mixture = torch.lerp(of_other, of_one, share[:, None])
    assert_close(outputs.grad, (outputs.softmax(dim=1) - mixture).detach() / 6)  # cross-entropy's, towards it


def test_a_mixture_of_two_sets_trains_both_heads_by_their_shares(stage1: PretrainRecipe) -> None:
    heads = heads_of([("one", CATEGORY), ("two", VOTES)])
    labels = joint_labels([labels_of(CATEGORY, 3), labels_of(VOTES, 3)], heads)
    share, outputs = torch.rand(6), torch.randn(6, 6)
    task = pretext_task("affect", heads, [3, 3], make_fabric(stage1.training))
    loss = task.loss_of(nn.Identity(), Batch(outputs, labels, torch.arange(6), labels.flip(0), share))
    expected = torch.zeros(())
    for row in range(6):
        for source, part in ((row, share[row]), (5 - row, 1 - share[row])):
            expected = expected + part * joint_loss(outputs[row : row + 1], labels[source : source + 1], heads)
    assert_close(loss, expected / 6)


def test_categories_and_votes_are_mixed_but_not_ratings() -> None:
    refuse_mixed_ratings([split_set(CATEGORY)], "affect", MIXED)
    refuse_mixed_ratings([split_set(VALENCE_AROUSAL)], "rotation", MIXED)  # needs no ratings
    refuse_mixed_ratings([split_set(VALENCE_AROUSAL)], "affect", AugmentSettings(policy="trivial", erase=0.5))
    for augment, name in ((MIXED, "mixup"), (AugmentSettings(cutmix=1.0), "cutmix")):
        with pytest.raises(SettingError, match=rf"^augment\.{name}: must be 0 where images have ratings \(mine: val"):
            refuse_mixed_ratings([split_set(CATEGORY), split_set(VALENCE_AROUSAL)], "shuffled", augment)
    with pytest.raises(SettingError, match=r"ratings \(mine: brightness, colourfulness\)"):
        refuse_mixed_ratings(with_neutral_labels([split_set(CATEGORY)]), "neutral", MIXED)


def test_all_pretexts_of_categories_train_on_mixed_images(
    stage1: PretrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    for pretext in PRETEXTS:
        recipe = learning(stage1, pretext, augment=MIXED)
        run = pretrain(recipe, tmp_path / pretext, (table(CATEGORY), CATEGORY), quiet)
        assert math.isfinite(run.metrics["train_loss"].iloc[-1])


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
        assert counts(runs[pretext]) == counts(runs["affect"])
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

    def start(_context: Any, objective: Objective, *_rest: Any) -> Any:
        starts.append(objective.model.get_submodule("encoder").state_dict())
        raise InterruptedError

    monkeypatch.setattr(emoreg.stages.pretrain, "fit", start)
    mine = (table(), VALENCE_AROUSAL)
    for pretext in (*PRETEXTS, "neutral"):
        with pytest.raises(InterruptedError):
            pretrain(learning(stage1, pretext, backbone=backbone, seed=3), tmp_path / pretext, mine, quiet)
    target = dataclasses.replace(stage2.target, image_size=SIZE)
    base = dataclasses.replace(stage2, target=target, backbone=backbone, regulation=RegulationSettings("learned"))
    control = build_classifier(recipe_of(PlannedArm("learned", "fresh"), base, None, seed=3), 10).encoder
    assert control is not None
    for weights in starts:
        assert weights.keys() == control.state_dict().keys()
        assert all(torch.equal(value, weights[name]) for name, value in control.state_dict().items())


@pytest.mark.parametrize("pretext", [*PRETEXTS, "neutral"])
def test_your_own_stimuli_serve_every_pretext_and_stage_2_takes_its_encoder(
    pretext: Pretext, stage1: PretrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    run = pretrain(learning(stage1, pretext), tmp_path / "run", (table(CATEGORY), CATEGORY), quiet)
    trained, encoder = run.weights()[0], load_encoder(run.folder, stage1.backbone)
    assert run.final["images"] == 30 and run.final["stimuli"] == "mine"
    assert all(torch.equal(value, trained[f"encoder.{name}"]) for name, value in encoder.state_dict().items())


def test_chance_is_the_most_frequent_answer_and_of_quarter_turns_a_quarter() -> None:
    images = np.zeros((4, 8, 8, 3), np.uint8)
    polarity = EmotionSpace("category", POLARITY)

    def of(labels: Any, space: EmotionSpace, pretext: Pretext = "affect") -> float | None:
        return chance_of(ImageSet(Table("made up", images, labels), 8, None, torch.from_numpy(labels)), space, pretext)

    assert of(np.array([0, 1, 1, 1]), polarity) == 0.75
    votes = np.array([[3, 1], [0, 2], [2, 0], [5, 1]], np.float32)
    assert of(votes, EmotionSpace("votes", POLARITY)) == 0.75
    assert of(np.zeros((4, 2), np.float32), VALENCE_AROUSAL) is None  # a correlation has no chance level
    assert of(np.zeros((4, 2), np.float32), VALENCE_AROUSAL, "rotation") == 0.25
    assert chance_of(None, polarity, "affect") is None
