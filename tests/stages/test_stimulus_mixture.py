from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

import emoreg.stages.pretrain
import emoreg.stages.stage1_data
import narrow
from emoreg.config.augment import AugmentSettings
from emoreg.config.read_recipe import SMOKE, differences, read_recipe, recipe_yaml
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import EncoderSettings, RegulationSettings, StimuliSettings
from emoreg.data.images.augment import normalise
from emoreg.data.images.image_set import ImageSet, load_images
from emoreg.data.images.names import Split
from emoreg.data.images.table import Table
from emoreg.data.stimuli.emotion import EKMAN_6_NEUTRAL, MIKELS_8, POLARITY, VALENCE_AROUSAL, EmotionSpace
from emoreg.data.stimuli.stimulus_set import Labels, Stimuli
from emoreg.errors import UserError
from emoreg.models.backbones import build_backbone
from emoreg.runs.run import Run
from emoreg.runtime.progress import Progress
from emoreg.runtime.seeding import drawn_from, generator
from emoreg.stages.affective_heads import Head, affective_loss, heads_of, image_losses, joint_labels, joint_loss
from emoreg.stages.classifier import build_classifier
from emoreg.stages.pretrain import AffectiveModel, load_encoder, pretrain
from emoreg.stages.stimulus_mixture import checked_quotas, join, refuse_one_class, split_stimuli
from listening import Listening
from stopped_runs import CutOff
from tiny_backbone import TinyBackbone

CATEGORY = EmotionSpace("category", ("awe", "fear", "joy"))
VOTES = EmotionSpace("votes", MIKELS_8)
HEADS = heads_of([("photos", CATEGORY), ("paintings", VOTES), ("ratings", VALENCE_AROUSAL)])
SIZE = 16
TRAIN: list[Split] = ["train"]
VALIDATION: list[Split] = ["validation"]
TEST: list[Split] = ["test"]


def pixels(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def some_labels(space: EmotionSpace, count: int, seed: int = 0) -> Any:
    draw = np.random.default_rng(seed)
    if space.kind == "category":
        return draw.integers(0, len(space.names), count)
    if space.kind == "votes":
        return draw.integers(0, 9, (count, len(space.names))).astype(np.float32) + 1
    return draw.uniform(-1, 1, (count, len(space.names))).astype(np.float32)


def stimuli(name: str, space: EmotionSpace, count: int, splits: list[Split] | None = None, seed: int = 0) -> Stimuli:
    return Stimuli(name, pixels(count, seed), (Labels(space, some_labels(space, count, seed)),), splits)


def image_set(space: EmotionSpace, count: int) -> ImageSet:
    table = Table(space.kind, pixels(count), some_labels(space, count))
    return load_images(table, SIZE, False, 1.0, Progress(quiet=True))


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, Stimuli]], None]:
    """Stand-ins for sets on disk, by name."""

    def publish(sets: Mapping[str, Stimuli]) -> None:
        monkeypatch.setattr(emoreg.stages.stage1_data, "read_stimuli", lambda settings, seed: sets[settings.name])

    return publish


@pytest.fixture
def union(stage1: PretrainRecipe, published: Callable[[Mapping[str, Stimuli]], None]) -> PretrainRecipe:
    """Votes, categories and dimensions, learned together."""
    published(
        {
            "paintings": stimuli("paintings", VOTES, 20, seed=1),
            "photos": stimuli("photos", CATEGORY, 24, seed=2),
            "ratings": stimuli("ratings", VALENCE_AROUSAL, 32, seed=3),
        }
    )
    first, *others = (
        StimuliSettings(name, image_size=SIZE, validation=0.25) for name in ("paintings", "photos", "ratings")
    )
    return dataclasses.replace(stage1, stimuli=first, also=tuple(others))


def with_weights(recipe: PretrainRecipe, *weights: float) -> PretrainRecipe:
    first, *others = (dataclasses.replace(s, weight=w) for s, w in zip(recipe.sets, weights, strict=True))
    return dataclasses.replace(recipe, stimuli=first, also=tuple(others))


def epochs(recipe: PretrainRecipe, count: int) -> PretrainRecipe:
    return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, epochs=count))


# Heads


def test_heads_are_consecutive_slices_with_distinct_names() -> None:
    sets = [("oasis", VALENCE_AROUSAL), ("oasis", EmotionSpace("category", POLARITY)), ("fi", VOTES), ("oasis", VOTES)]
    heads = heads_of(sets)
    assert [head.name for head in heads] == ["oasis", "oasis-2", "fi", "oasis-3"]
    assert [(head.start, head.stop) for head in heads] == [(0, 2), (2, 4), (4, 12), (12, 20)]
    assert [head.space for head in heads] == [space for _, space in sets]
    names = [head.name for head in heads_of([("a", VOTES), ("a-2", VOTES), ("a", VOTES), ("a", VOTES)])]
    assert len(set(names)) == 4 and names[:2] == ["a", "a-2"]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_losses_of_images_have_the_sets_loss_as_their_mean(head: Head) -> None:
    outputs = torch.randn(7, len(head.space.names), generator=torch.Generator().manual_seed(0))
    labels = torch.from_numpy(some_labels(head.space, 7))
    losses = image_losses(outputs, labels, head.space)
    assert losses.shape == (7,)
    assert_close(losses.mean(), affective_loss(outputs, labels, head.space))


def mixed_batch() -> tuple[Tensor, Tensor, list[Tensor]]:
    """Outputs and joint labels of 3 + 4 + 5 images, and the labels of each set."""
    own = [torch.from_numpy(some_labels(head.space, count)) for head, count in zip(HEADS, (3, 4, 5), strict=True)]
    outputs = torch.randn(12, HEADS[-1].stop, generator=torch.Generator().manual_seed(1)).requires_grad_()
    return outputs, joint_labels(own, HEADS), own


def test_each_image_counts_for_its_own_head_and_all_images_alike() -> None:
    outputs, labels, own = mixed_batch()
    parts = zip(HEADS, own, outputs.split([3, 4, 5]), strict=True)
    expected = sum(len(y) * affective_loss(z[:, head.outputs], y, head.space) for head, y, z in parts) / 12
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    assert_close(joint_loss(outputs, labels, HEADS), expected)
    assert_close(joint_loss(outputs[order], labels[order], HEADS), expected)


def test_an_image_sends_no_gradient_to_the_heads_of_other_sets() -> None:
    outputs, labels, _ = mixed_batch()
    joint_loss(outputs, labels, HEADS).backward()
    assert outputs.grad is not None
    for rows, own in zip((slice(0, 3), slice(3, 7), slice(7, 12)), HEADS, strict=True):
        for head in HEADS:
            gradient = outputs.grad[rows, head.outputs]
            assert gradient.abs().sum() > 0 if head is own else torch.equal(gradient, torch.zeros_like(gradient))


def test_a_batch_of_one_set_has_that_sets_loss_and_leaves_the_other_heads_alone() -> None:
    torch.manual_seed(0)
    model, images = AffectiveModel(TinyBackbone(), HEADS[-1].stop).eval(), torch.randn(5, 3, 8, 8)
    _, labels, own = mixed_batch()
    loss = joint_loss(model(images), labels[7:], HEADS)
    assert_close(loss, affective_loss(model(images)[:, HEADS[2].outputs], own[2], VALENCE_AROUSAL))
    loss.backward()
    gradient = model.head.weight.grad
    assert gradient is not None and gradient[HEADS[2].outputs].abs().sum() > 0
    assert gradient[: HEADS[2].start].abs().sum() == 0


# Parts of a set


def settings(**changes: Any) -> StimuliSettings:
    return StimuliSettings(**(dict[str, Any](name="mine", image_size=SIZE, validation=0.25) | changes))


def images_of(table: Table | None) -> set[bytes]:
    return set() if table is None else {image.tobytes() for image in np.asarray(table.images)}


def test_published_splits_are_used_and_the_share_is_not(quiet: Progress) -> None:
    splits = TEST * 5 + TRAIN * 20 + VALIDATION * 3
    published = stimuli("mine", CATEGORY, 28, splits)
    split = split_stimuli(published, settings(), 0, quiet)
    assert split.validation is not None and split.test is not None
    for part, rows in ((split.test, slice(0, 5)), (split.train, slice(5, 25)), (split.validation, slice(25, 28))):
        assert np.array_equal(narrow.pixels(part.images), narrow.pixels(published.images)[rows])
        assert np.array_equal(part.labels, published.labels[0].values[rows])


def test_without_a_published_validation_split_it_is_cut_from_the_training_images_alone(quiet: Progress) -> None:
    splits = TEST * 8 + TRAIN * 20
    published = stimuli("mine", CATEGORY, 28, splits)
    split = split_stimuli(published, settings(), 0, quiet)
    parts = [images_of(part) for part in (split.train, split.validation, split.test)]
    assert [len(part) for part in parts] == [15, 5, 8]
    assert len(set.union(*parts)) == 28 and parts[2] == {
        image.tobytes() for image in narrow.pixels(published.images)[:8]
    }


def test_an_empty_train_split_is_refused_in_one_line(quiet: Progress) -> None:
    splits = TEST * 4 + VALIDATION * 6
    with pytest.raises(UserError, match=r"mine: no training images.* 6 .* 4 .*train split") as caught:
        split_stimuli(stimuli("mine", CATEGORY, 10, splits), settings(), 0, quiet)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"mine: no training images.*stimuli\.validation"):
        split_stimuli(stimuli("mine", CATEGORY, 10), settings(validation=0.99), 0, quiet)


@pytest.mark.parametrize(
    ("space", "labels", "choice", "message"),
    [
        (CATEGORY, [2, 2, 2, 2], "published", "all 4 training images are 'joy'; stage 1 needs at least two classes"),
        (CATEGORY, [0, 2, 0, 2], "polarity", "all 4 training images are 'positive' by stimuli.labels polarity"),
        (EmotionSpace("votes", ("awe", "fear")), [[3, 0], [1, 0]], "published", "all 2 training images are 'awe'"),
        (EmotionSpace("dimensions", ("valence",)), [[0.5], [0.2], [0.1]], "polarity", "are 'positive' by"),
    ],
)
def test_one_class_alone_is_refused_whatever_it_comes_from(
    space: EmotionSpace, labels: list[Any], choice: Any, message: str, quiet: Progress
) -> None:
    values = np.array(labels, np.int64) if space.kind == "category" else np.array(labels, np.float32)
    whole = Stimuli("photos", pixels(len(labels)), (Labels(space, values),))
    split = split_stimuli(whole, settings(labels=choice, validation=0.0), 0, quiet)
    with pytest.raises(UserError, match=message):
        refuse_one_class(split)


def test_one_class_in_training_alone_is_refused_and_two_are_not(quiet: Progress) -> None:
    for labels, splits in (([0, 0, 1], [*TRAIN, *TRAIN, *TEST]), ([0, 1, 1], [*TRAIN, *TRAIN, *TEST])):
        whole = Stimuli("photos", pixels(3), (Labels(CATEGORY, np.array(labels)),), splits)
        split = split_stimuli(whole, settings(validation=0.0), 0, quiet)
        if labels[1]:
            refuse_one_class(split)
        else:
            with pytest.raises(UserError, match="all 2 training images are 'awe'"):
                refuse_one_class(split)


def test_the_limit_is_of_training_images_and_leaves_the_test_whole(quiet: Progress) -> None:
    splits = TEST * 8 + TRAIN * 20 + VALIDATION * 10
    split = split_stimuli(stimuli("mine", CATEGORY, 38, splits), settings(limit=10), 0, quiet)
    assert split.validation is not None and split.test is not None
    assert (len(split.train), len(split.validation), len(split.test)) == (10, 5, 8)


def test_a_share_is_of_each_published_category_nested_and_leaves_validation_whole(quiet: Progress) -> None:
    whole = stimuli("photos", CATEGORY, 100)
    found = [split_stimuli(whole, settings(share=share), 0, quiet) for share in (0.05, 0.2, 1.0)]
    sizes = np.bincount(found[2].train.labels)
    for split, share in zip(found, (0.05, 0.2), strict=False):
        assert np.bincount(split.train.labels).tolist() == [max(1, round(share * size)) for size in sizes]
    small, large, everything = (images_of(split.train) for split in found)
    assert small < large < everything == images_of(split_stimuli(whole, settings(), 0, quiet).train)
    assert len({frozenset(images_of(split.validation)) for split in found}) == 1
    under_others = split_stimuli(whole, settings(share=0.2, labels="polarity"), 0, quiet)
    assert images_of(under_others.train) == large
    assert images_of(split_stimuli(whole, settings(share=0.2), 1, quiet).train) != large
    assert (
        len(split_stimuli(stimuli("r", VALENCE_AROUSAL, 100), settings(share=0.1, validation=0), 0, quiet).train) == 10
    )


def test_selecting_what_is_evoked_keeps_the_split_and_is_reported() -> None:
    whole, heard = stimuli("ratings", VALENCE_AROUSAL, 60), Listening()
    everything = split_stimuli(whole, settings(), 0, heard)
    pleasant = split_stimuli(whole, settings(valence="pleasant"), 0, heard)
    above = whole.labels[0].values[:, 0] > 0
    assert (pleasant.train.labels[:, 0] > 0).all() and pleasant.left_out == 0
    assert images_of(pleasant.train) < images_of(everything.train)
    assert images_of(pleasant.validation) < images_of(everything.validation)
    assert heard.lines == [
        f"ratings: {above.sum()} of 60 images are pleasant (valence above 0); the others are left out"
    ]


def test_images_without_the_chosen_label_are_left_out_and_reported_once() -> None:
    votes = np.zeros((12, 8), np.float32)
    votes[np.arange(12), np.arange(12) % 8] = 5
    votes[:3, 7] = 5  # ties
    heard = Listening()
    tied = Stimuli("paintings", pixels(12), (Labels(VOTES, votes),))
    split = split_stimuli(tied, settings(labels="majority"), 0, heard)
    assert split.space == EmotionSpace("category", MIKELS_8) and split.left_out == 3
    assert len(heard.lines) == 2 and "paintings: skipped 3 of 12" in heard.lines[0] and "majority" in heard.lines[0]
    assert split_stimuli(tied, settings(), 0, heard).left_out == 0 and len(heard.lines) == 2


def test_images_that_are_labelled_by_other_votes_than_most_are_counted() -> None:
    votes = np.zeros((12, 7), np.float32)
    votes[:, EKMAN_6_NEUTRAL.index("joy")] = 1
    votes[:6, EKMAN_6_NEUTRAL.index("fear")] = 5
    votes[6:8, EKMAN_6_NEUTRAL.index("surprise")] = votes[8, EKMAN_6_NEUTRAL.index("neutral")] = 14
    votes[9, [EKMAN_6_NEUTRAL.index(name) for name in ("surprise", "neutral")]] = 7  # a tie, of which neither counts
    heard = Listening()
    voted = Stimuli("photos", pixels(12), (Labels(EmotionSpace("votes", EKMAN_6_NEUTRAL), votes),))
    split = split_stimuli(voted, settings(labels="polarity"), 0, heard)
    assert split.left_out == 0
    line = (
        "photos: 4 of 12 images are labelled by other votes than most, because their most-voted emotion (surprise, "
        "neutral) has no polarity"
    )
    assert heard.lines[0] == line
    selected = Listening()
    split_stimuli(voted, settings(valence="pleasant"), 0, selected)
    assert line in selected.lines
    rated = dataclasses.replace(voted, labels=(*voted.labels, Labels(VALENCE_AROUSAL, np.ones((12, 2), np.float32))))
    by_ratings = Listening()
    split_stimuli(rated, settings(valence="pleasant"), 0, by_ratings)
    assert line not in by_ratings.lines


def test_the_same_image_is_in_the_same_part_whatever_its_label(quiet: Progress) -> None:
    """Otherwise one head would train the encoder on images that another is measured on."""
    values = some_labels(VALENCE_AROUSAL, 40)
    values[::5, 0] = 0  # neither negative nor positive
    rated = Stimuli("mine", pixels(40), (Labels(VALENCE_AROUSAL, values),))
    one, other = (split_stimuli(rated, settings(labels=labels), 0, quiet) for labels in ("published", "polarity"))
    assert other.left_out == 8 and one.validation is not None and other.validation is not None
    assert images_of(other.train) < images_of(one.train)
    assert images_of(other.validation) <= images_of(one.validation)


# One set of several


def test_sets_are_concatenated_in_memory_and_on_demand() -> None:
    parts = [image_set(head.space, count) for head, count in zip(HEADS, (3, 4, 5), strict=True)]
    joined = join(parts, HEADS)
    on_demand = join([dataclasses.replace(part, pixels=None) for part in parts], HEADS)
    assert joined.pixels is not None and on_demand.pixels is None and len(joined) == len(on_demand) == 12
    order = torch.tensor([11, 0, 3, 2, 7])
    (images, labels, rows), (other_images, other_labels, _) = (
        next(iter(s.batches(order, 5))) for s in (joined, on_demand)
    )
    assert torch.equal(rows, order)
    assert torch.equal(images, other_images) and torch.equal(labels, other_labels)
    assert labels[:, 0].tolist() == [2, 0, 1, 0, 2]
    for image, (part, row) in zip(images, [(2, 4), (0, 0), (1, 0), (0, 2), (2, 0)], strict=True):
        own = parts[part].pixels
        assert own is not None and torch.equal(image, own[row])


def test_a_weight_that_gives_a_set_nothing_is_refused(quiet: Progress) -> None:
    sets = [("photos", CATEGORY, 1.0), ("ratings", VALENCE_AROUSAL, 1e-6)]
    splits = [split_stimuli(stimuli(n, space, 20), settings(weight=w), 0, quiet) for n, space, w in sets]
    with pytest.raises(UserError, match=r"ratings: its weight, 1e-06 of 1.* none of the 30 images"):
        checked_quotas([image_set(CATEGORY, 15), image_set(VALENCE_AROUSAL, 15)], splits)


# Training


def counts(run: Run) -> dict[str, dict[str, int]]:
    """Counts of every set, and its chance level."""
    return {name: {key: told[key] for key in told if key != "chance"} for name, told in run.final["sets"].items()}


def test_a_union_trains_and_reports_every_set(union: PretrainRecipe, tmp_path: Path, quiet: Progress) -> None:
    run = pretrain(epochs(union, 2), tmp_path / "run", progress=quiet)
    final = run.final
    assert final["stimuli"] == "paintings + photos + ratings" and final["images"] == 15 + 18 + 24
    assert counts(run) == {
        "paintings": {"train": 15, "validation": 5, "test": 0, "left_out": 0, "an_epoch": 15},
        "photos": {"train": 18, "validation": 6, "test": 0, "left_out": 0, "an_epoch": 18},
        "ratings": {"train": 24, "validation": 8, "test": 0, "left_out": 0, "an_epoch": 24},
    }
    of_sets = {"paintings_loss", "paintings_accuracy", "photos_loss", "photos_accuracy", "ratings_loss"}
    of_sets |= {"ratings_ccc", "ratings_ccc_valence", "ratings_ccc_arousal"}
    assert final["validation"].keys() == final["train"].keys() == {"loss", *of_sets}
    losses = [final["validation"][f"{name}_loss"] for name in ("paintings", "photos", "ratings")]
    mean = (15 * losses[0] + 18 * losses[1] + 24 * losses[2]) / 57
    assert final["validation"]["loss"] == pytest.approx(mean) and final["test"] is None
    assert {f"val_{name}" for name in final["validation"]} <= set(run.metrics.columns)
    assert all(math.isfinite(value) for value in run.metrics.iloc[-1])


def test_a_heads_own_metrics_are_those_of_its_slice(union: PretrainRecipe, tmp_path: Path, quiet: Progress) -> None:
    run = pretrain(epochs(union, 1), tmp_path / "run", progress=quiet)
    weights, metadata = run.weights()
    assert "space" not in metadata  # several heads must not be read as one
    kinds = [(head["name"], head["space"]["kind"], head["start"], head["stop"]) for head in metadata["heads"]]
    assert kinds == [("paintings", "votes", 0, 8), ("photos", "category", 8, 11), ("ratings", "dimensions", 11, 13)]
    assert weights["head.weight"].shape == (13, 64)
    model = AffectiveModel(build_backbone(union.backbone, SIZE), 13)
    model.load_state_dict(weights)
    photos = stimuli("photos", CATEGORY, 24, seed=2)  # as in the fixture
    held_out = split_stimuli(photos, union.also[0], union.seed, quiet).validation
    assert held_out is not None
    images = load_images(held_out, SIZE, False, 1.0, quiet)
    assert images.pixels is not None
    with torch.no_grad():
        outputs = model.eval()(normalise(images.pixels))[:, 8:11]
    assert F.cross_entropy(outputs, images.labels).item() == pytest.approx(run.final["validation"]["photos_loss"])


def test_a_stopped_union_resumes_to_the_same_weights(union: PretrainRecipe, tmp_path: Path, quiet: Progress) -> None:
    asked = with_weights(union, 1, 1, 2)
    whole = pretrain(asked, tmp_path / "whole", progress=quiet)
    with pytest.raises(InterruptedError):
        pretrain(asked, tmp_path / "stopped", progress=CutOff())
    assert not Run(tmp_path / "stopped").is_finished
    resumed = pretrain(asked, tmp_path / "stopped", progress=quiet)
    for name, value in whole.weights()[0].items():
        assert torch.equal(value, resumed.weights()[0][name]), name
    assert [set_["an_epoch"] for set_ in whole.final["sets"].values()] == [14, 14, 29]


def test_its_encoder_goes_into_stage_2(
    union: PretrainRecipe, stage2: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    run = pretrain(epochs(union, 1), tmp_path / "run", progress=quiet)
    second = dataclasses.replace(
        stage2, encoder=EncoderSettings(experience=str(run.folder)), regulation=RegulationSettings(mode="learned")
    )
    classifier = build_classifier(second, 10)
    loaded, trained = load_encoder(run.folder).state_dict(), run.weights()[0]
    assert classifier.encoder is not None
    for name, value in classifier.encoder.state_dict().items():
        assert torch.equal(value, loaded[name]) and torch.equal(value, trained[f"encoder.{name}"])


def test_a_union_held_on_disk_trains_as_one_in_memory(
    union: PretrainRecipe, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each set alone fits the limit, but not all of them together."""
    joined: list[ImageSet] = []

    def join_kept(*given: Any) -> ImageSet:
        joined.append(join(*given))
        return joined[-1]

    monkeypatch.setattr(emoreg.stages.stage1_data, "join", join_kept)
    held = pretrain(epochs(union, 1), tmp_path / "held", progress=quiet)
    limit = 30 * 3 * SIZE * SIZE / 2**30
    training = dataclasses.replace(union.training, epochs=1, memory_limit_gib=limit)
    read = pretrain(dataclasses.replace(union, training=training), tmp_path / "read", progress=quiet)
    assert [images.pixels is None for images in joined] == [False, True]
    for name, value in held.weights()[0].items():
        assert torch.equal(value, read.weights()[0][name]), name


def test_one_set_may_come_twice_under_other_labels(
    stage1: PretrainRecipe, published: Callable[[Mapping[str, Stimuli]], None], tmp_path: Path, quiet: Progress
) -> None:
    published({"oasis": stimuli("oasis", VALENCE_AROUSAL, 40)})
    first = StimuliSettings("oasis", "oasis.zip", image_size=SIZE, validation=0.25)
    asked = epochs(dataclasses.replace(stage1, stimuli=first, also=(dataclasses.replace(first, labels="polarity"),)), 1)
    final = pretrain(asked, tmp_path / "run", progress=quiet).final
    assert {"oasis_ccc", "oasis-2_accuracy"} < final["validation"].keys()


def test_your_own_images_replace_the_first_set(union: PretrainRecipe, tmp_path: Path, quiet: Progress) -> None:
    mine = Table("mine", pixels(16), some_labels(CATEGORY, 16))
    run = pretrain(epochs(union, 1), tmp_path / "run", (mine, CATEGORY), quiet)
    assert list(run.final["sets"]) == ["mine", "photos", "ratings"]


def test_the_test_split_is_measured_at_the_end_and_trains_and_chooses_nothing(
    stage1: PretrainRecipe, published: Callable[[Mapping[str, Stimuli]], None], tmp_path: Path, quiet: Progress
) -> None:
    splits = TRAIN * 24 + VALIDATION * 8 + TEST * 8
    whole = stimuli("mine", CATEGORY, 40, splits)
    other = some_labels(CATEGORY, 40)
    other[32:] = (other[32:] + 1) % 3
    relabelled = dataclasses.replace(whole, labels=(Labels(CATEGORY, other),))
    asked = epochs(dataclasses.replace(stage1, stimuli=settings()), 2)
    runs = []
    for number, found in enumerate((whole, relabelled)):
        published({"mine": found})
        runs.append(pretrain(asked, tmp_path / str(number), progress=quiet))
    one, two = runs
    assert counts(one) == {"mine": {"train": 24, "validation": 8, "test": 8, "left_out": 0, "an_epoch": 24}}
    assert one.final["test"].keys() == {"loss", "accuracy"}
    assert one.final["test"]["loss"] != two.final["test"]["loss"]
    assert one.final["validation"] == two.final["validation"] and one.final["train"] == two.final["train"]
    assert not any("test" in column for column in one.metrics.columns)
    assert all(torch.equal(value, two.weights()[0][name]) for name, value in one.weights()[0].items())


def test_one_set_alone_trains_as_the_plain_formulas_say(
    stage1: PretrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    """Initial weights, order, loss and step, bit for bit."""
    table = Table("mine", pixels(30), some_labels(VALENCE_AROUSAL, 30))
    asked = dataclasses.replace(
        epochs(stage1, 1),
        stimuli=settings(validation=0.0),
        augment=AugmentSettings(crop_padding=0, flip=False),
        training=dataclasses.replace(stage1.training, epochs=1, batch_size=30),
    )
    run = pretrain(asked, tmp_path / "run", (table, VALENCE_AROUSAL), quiet)

    with drawn_from(asked.seed, "encoder"):
        encoder = build_backbone(asked.backbone, SIZE)
        head = nn.Linear(encoder.num_features, 2)  # type: ignore[arg-type]
    model = nn.Sequential(encoder, head).to(memory_format=torch.channels_last).train()
    order = torch.randperm(30, generator=generator(asked.seed, "epoch", 0))
    batch = torch.from_numpy(pixels(30)).permute(0, 3, 1, 2).contiguous()[order]
    loss = F.mse_loss(model(normalise(batch)), torch.from_numpy(table.labels)[order])
    assert run.metrics["train_loss"].tolist() == [loss.item()]
    assert run.final["sets"]["mine"]["an_epoch"] == 30
    assert run.weights()[1].keys() == {"stage", "space", "image_size", "pretext"}


# Recipes


def recipe_in(folder: Path, text: str) -> Path:
    path = folder / "union.yaml"
    path.write_text(text, encoding="utf-8")
    return path


UNION = "stimuli: {name: oasis, root: oasis.zip}\nalso:\n  - name: procedural\n    count: 100\n"


def test_a_list_of_sets_is_read_and_written_back(tmp_path: Path) -> None:
    recipe = read_recipe(PretrainRecipe, recipe_in(tmp_path, UNION))
    assert [s.name for s in recipe.sets] == ["oasis", "procedural"] and recipe.also[0].count == 100
    assert read_recipe(PretrainRecipe, recipe_in(tmp_path, recipe_yaml(recipe))) == recipe
    given = read_recipe(PretrainRecipe, None, ["--also", "[{name: oasis, root: x.zip}, {name: fi, root: fi}]"])
    assert [s.root for s in given.also] == ["x.zip", "fi"]
    assert read_recipe(PretrainRecipe, recipe_in(tmp_path, UNION), ["--also", "[]"]).also == ()


def test_differences_name_the_element(tmp_path: Path) -> None:
    recipe = read_recipe(PretrainRecipe, recipe_in(tmp_path, UNION))
    other = read_recipe(PretrainRecipe, recipe_in(tmp_path, UNION.replace("100", "200")))
    assert differences(recipe, other) == ["also[0].count: 100 -> 200"]
    assert differences(recipe, recipe) == []
    assert "also[0].name: procedural -> None" in differences(recipe, dataclasses.replace(recipe, also=()))


def test_smoke_shrinks_every_set(tmp_path: Path) -> None:
    smoke = SMOKE[PretrainRecipe]
    recipe = read_recipe(PretrainRecipe, recipe_in(tmp_path, UNION), smoke)
    assert [(s.limit, s.count) for s in recipe.sets] == [(64, 80), (64, 80)]
    assert read_recipe(PretrainRecipe, None, smoke).also == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            UNION + "    wieght: 2\n",
            r"union\.yaml:5: also\[0\]\.wieght: unknown setting \(did you mean 'also\[0\]\.weight'",
        ),
        (UNION + "    limit: many\n", r"union\.yaml:5: also\[0\]\.limit: must be a whole number, not 'many'"),
        (UNION + "    weight: -1\n", r"union\.yaml:5: also\[0\]\.weight: must be positive.*not -1"),
        (UNION + "    weight: .inf\n", r"union\.yaml:5: also\[0\]\.weight: must be .*finite.*not inf"),
        (UNION + "    weight: 2\n", r"union\.yaml:5: also\[0\]\.weight: must be null as in stimuli"),
        (UNION + "    image_size: 64\n", r"union\.yaml:5: also\[0\]\.image_size: must be 32 as in stimuli, not 64"),
        (UNION + "    count: 100\n", r"union\.yaml:5: also\[0\]\.count: appears twice \(first on line 4\)"),
        (UNION + "  - fi\n", r"union\.yaml:5: also\[1\]: must be a mapping"),
        (UNION + "  - {name: fi}\n  - {name: fi}\n", r"also\[2\]\.labels: must not be published as in also\[1\]"),
        (
            UNION + "  - {name: oasis, root: ./oasis.zip, labels: polarity, validation: 0.2}\n",
            r"union\.yaml:5: also\[1\]\.validation: must be 0\.1 as in stimuli, not 0\.2.*held-out",
        ),
        ("also:\n  name: fi\n", r"union\.yaml:1: also: must be a list"),
        ("also: fi\n", r"union\.yaml:1: also: must be a list"),
        ("also:\n", r"union\.yaml:1: also: must be a list"),
    ],
)
def test_errors_in_a_list_are_one_line_with_line_and_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        read_recipe(PretrainRecipe, recipe_in(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("[{nam: fi}]", r"^also\[0\]\.nam: unknown setting \(did you mean 'also\[0\]\.name'"),
        ("[{limit: many}]", r"^also\[0\]\.limit: must be a whole number, not 'many'"),
        ("[{labels: no}]", r"^also\[0\]\.labels: must be one of published"),
        ("[{count: 3}]", r"^also\[0\]\.count: must be at least 10, not 3"),
        ("{name: fi}", r"^also\.name: unknown setting \(did you mean 'stimuli\.name'"),
        ("fi", r"^also: must be a list of mappings, each starting with '- ', not 'fi'"),
        ("[fi]", r"^also\[0\]: must be a mapping of keys to values, not 'fi'"),
        ("[", r"^also: not valid YAML"),
    ],
)
def test_errors_on_the_command_line_are_one_line(tmp_path: Path, given: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        read_recipe(PretrainRecipe, recipe_in(tmp_path, UNION), ["--also", given])
    assert "\n" not in str(caught.value)
