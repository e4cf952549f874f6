from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from emoreg.config.training import TrainingSettings
from emoreg.data.images.augment import normalise
from emoreg.data.images.image_set import ImageSet
from emoreg.data.images.table import Table
from emoreg.inference.explain.effect import SplitResponses, class_effects, split_responses
from emoreg.models.regulation import RegulatedClassifier
from emoreg.training.fabric import make_fabric
from tiny_backbone import TinyBackbone

FABRIC = make_fabric(TrainingSettings(device="cpu", precision="32-true"))


@pytest.fixture
def images() -> ImageSet:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (700, 8, 8, 3)).astype(np.uint8)  # more than one batch of evaluation
    table = Table("made up", pixels, draw.integers(0, 3, 700))
    return ImageSet(table, 8, torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(table.labels))


def test_one_pass_gives_the_predictions_with_and_without_emotion(images: ImageSet) -> None:
    torch.manual_seed(0)
    model = RegulatedClassifier(TinyBackbone(6), TinyBackbone(4), 3, mode="learned", granularity="per_class").eval()
    model.get_parameter("regulation.rho").data = torch.tensor([[-1.0, 0.0, 2.0]])
    rows = np.array([0, 3, 511, 512, 699])
    responses = split_responses(model, images, rows, FABRIC)
    assert images.pixels is not None
    with torch.no_grad():
        pixels = normalise(images.pixels)
        response = model.respond(pixels)
        features, emotional = model.backbone(pixels), model.encoder(pixels) if model.encoder else None
    truth = images.labels[:, None]
    for values, logits in (
        (responses.probability, response.logits),
        (responses.probability_without, response.non_emotional),
    ):
        np.testing.assert_allclose(values, logits.softmax(dim=1).gather(1, truth)[:, 0].numpy(), atol=1e-5)
    assert (responses.correct == (response.logits.argmax(dim=1) == images.labels).numpy()).all()
    assert (responses.correct_without == (response.non_emotional.argmax(dim=1) == images.labels).numpy()).all()
    assert responses.lam is not None and responses.emotional_features is not None and emotional is not None
    expected = torch.tensor([-1.0, 0.0, 2.0]).sigmoid()[images.labels]
    np.testing.assert_allclose(responses.lam, expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(responses.features, features[rows].numpy(), atol=1e-5)
    np.testing.assert_allclose(responses.emotional_features, emotional[rows].numpy(), atol=1e-5)
    assert not model.backbone._forward_hooks


def test_features_are_kept_once_if_both_branches_share_one_network(images: ImageSet) -> None:
    shared = TinyBackbone(6)
    responses = split_responses(RegulatedClassifier(shared, shared, 3).eval(), images, np.array([0, 600]), FABRIC)
    assert responses.features.shape == (2, 6)
    np.testing.assert_array_equal(responses.features, responses.emotional_features)


def test_a_plain_classifier_has_no_emotional_effect(images: ImageSet) -> None:
    model = RegulatedClassifier(TinyBackbone(6), None, 3, mode="none").eval()
    responses = split_responses(model, images, np.arange(5), FABRIC)
    assert responses.lam is None and responses.emotional_features is None and not responses.change.any()


def test_classes_are_sorted_by_mean_change_and_left_out_without_images() -> None:
    labels = np.array([0, 0, 0, 2, 2, 2, 2])
    with_emotion = np.array([0.2, 0.4, 0.6, 0.9, 0.7, 0.9, 0.7])
    without = np.array([0.4, 0.4, 0.4, 0.5, 0.5, 0.5, 0.5])
    empty = np.zeros((0, 2), np.float32)
    right, wrong = np.ones(7, bool), np.zeros(7, bool)
    responses = SplitResponses(
        labels,
        with_emotion.astype(np.float32),
        without.astype(np.float32),
        right,
        wrong,
        np.linspace(0, 1, 7, dtype=np.float32),
        empty,
        empty,
    )
    first, second = class_effects(responses, ("a", "b", "c"))
    assert (first.name, second.name) == ("c", "a")
    assert first.change.mean == pytest.approx(0.3) and second.change.mean == pytest.approx(0.0, abs=1e-6)
    assert first.change.n == 4 and first.change.low < 0.3 < first.change.high
    assert (first.accuracy_without, first.accuracy, first.lam) == pytest.approx((0, 1, 0.75))
    alone = dataclasses.replace(responses, lam=None)
    assert np.isnan(class_effects(alone, ("a", "b", "c"))[0].lam)
