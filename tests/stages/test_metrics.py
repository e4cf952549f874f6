from __future__ import annotations

import base64
import dataclasses
import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_calibration_error

from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import BackboneSettings
from emoreg.data.images.image_set import ImageSet
from emoreg.data.images.table import Table
from emoreg.data.stimuli.emotion import EmotionSpace
from emoreg.models.regulation import RegulatedClassifier, Response
from emoreg.stages.affective_heads import Head, measure_heads
from emoreg.stages.classifier import build_classifier
from emoreg.stages.metrics import calibration_error, count_flops, measure, reliability
from emoreg.stages.pretext import measure_rotation
from emoreg.training.fabric import make_fabric
from tiny_backbone import TinyBackbone

VIT = BackboneSettings("test_vit", patch_size=8)


def test_metrics_are_what_their_names_say() -> None:
    class Fixed(RegulatedClassifier):
        """Always returns the same outputs."""

        def respond(self, images: Tensor, *given: Any, **options: Any) -> Response:
            answer = super().respond(images, *given, **options)
            return answer._replace(logits=logits, non_emotional=logits.flip(1), emotional=logits)

    logits = torch.tensor([[4.0, 0.0], [0.0, 4.0], [4.0, 0.0], [4.0, 0.0]])
    pixels, labels = np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 0, 1])
    images = ImageSet(
        Table("four", pixels, labels), 8, torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor(labels)
    )
    recipe = TrainRecipe()
    fabric = make_fabric(dataclasses.replace(recipe.training, device="cpu"))
    model = Fixed(TinyBackbone(), TinyBackbone(), 2, mode="fixed", lam=0.25)
    found = measure(model, images, fabric)
    right, wrong = math.log(1 + math.exp(-4)), math.log(1 + math.exp(4))
    assert found == {
        "accuracy": 0.75,
        "balanced_accuracy": 0.75,
        "macro_f1": pytest.approx((4 / 5 + 2 / 3) / 2),
        "majority_baseline": 0.5,
        "answered_classes": 2,
        "confusion": [[2, 0], [1, 1]],
        "loss": pytest.approx((3 * right + wrong) / 4, rel=1e-5),
        "ece": pytest.approx(1 / (1 + math.exp(-4)) - 0.75, rel=1e-5),  # confident everywhere, right in three of four
        "images": 4,
        "accuracy_non_emotional": 0.25,
        "accuracy_emotional": 0.75,
        "lambda": 0.25,
        "per_class": [1.0, 0.5],
        "reliability": {
            "confidence": [*[None] * 14, pytest.approx(1 / (1 + math.exp(-4)))],
            "accuracy": [*[None] * 14, 0.75],
            "count": [*[0] * 14, 4],
        },
    }
    of_each = measure(model, images, fabric, each_image=True)
    assert np.unpackbits(np.frombuffer(base64.b64decode(of_each.pop("correct")), np.uint8)).tolist()[:4] == [1, 1, 1, 0]
    assert len(of_each.pop("checksum")) == 32 and of_each == found
    logits = logits[:2]
    assert measure(model, images, fabric, torch.tensor([1, 2]))["per_class"] == [0.0, 0.0]  # images 1 and 2, in order
    plain = RegulatedClassifier(TinyBackbone(), None, 2, mode="none").train()
    of_emotion = {"accuracy_non_emotional", "accuracy_emotional", "lambda"}
    assert measure(plain, images, fabric).keys() == found.keys() - of_emotion
    assert all(not parameter.grad_fn and parameter.grad is None for parameter in plain.parameters())


def test_the_checksum_is_that_of_the_images_in_their_order(stage2: TrainRecipe) -> None:
    pixels, labels = np.random.default_rng(0).integers(0, 256, (1100, 8, 8, 3), np.uint8), np.arange(1100) % 10
    fabric, model = make_fabric(stage2.training), RegulatedClassifier(TinyBackbone(), None, 10, mode="none")

    def checksum(pixels: Any, labels: Any = labels, is_held: bool = True) -> str:
        held = torch.from_numpy(pixels).permute(0, 3, 1, 2) if is_held else None
        images = ImageSet(Table("noise", pixels, labels), 8, held, torch.from_numpy(labels))
        found: str = measure(model, images, fabric, each_image=True)["checksum"]
        return found

    expected = hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest()
    assert checksum(pixels) == checksum(pixels, labels[::-1].copy()) == checksum(pixels, is_held=False) == expected
    changed = pixels.copy()
    changed[1099, 7, 7, 2] ^= 1
    swapped = pixels[[1, 0, *range(2, 1100)]]
    assert len({checksum(changed), checksum(swapped), checksum(pixels[:-1], labels[:-1]), expected}) == 4


def some_answers(scale: float, count: int = 500) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return scale * torch.randn(count, 5, generator=draw), torch.randint(5, (count,), generator=draw)


@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 5.0, 100.0])  # the last: confidences of exactly 1
def test_the_calibration_error_is_that_of_the_reliability_diagram(scale: float) -> None:
    logits, labels = some_answers(scale)
    found = reliability(logits, labels)
    assert {len(values) for values in found.values()} == {15} and sum(found["count"]) == 500
    bins = list(zip(found["confidence"], found["accuracy"], found["count"], strict=True))
    for number, (confidence, accuracy, count) in enumerate(bins):
        assert (confidence is None) == (accuracy is None) == (count == 0)
        assert confidence is None or number / 15 - 1e-6 <= confidence <= (number + 1) / 15 + 1e-6  # of single precision
    gaps = sum(count * abs(accuracy - confidence) for confidence, accuracy, count in bins if count)
    assert calibration_error(found) == pytest.approx(gaps / 500, abs=1e-6)
    if scale < 100:  # torchmetrics puts a confidence of exactly 1 into a bin of its own, a sixteenth
        probabilities = logits.softmax(dim=1)
        expected = multiclass_calibration_error(probabilities, labels, num_classes=5, n_bins=15)
        assert calibration_error(found) == pytest.approx(expected.item(), abs=1e-6)
    hits = sum(accuracy * count for _, accuracy, count in bins if count)
    assert hits == pytest.approx(int((logits.argmax(dim=1) == labels).sum()))


def test_confidences_near_1_are_in_the_last_of_fifteen_bins() -> None:
    logits = torch.tensor([[100.0, 0.0], [4.0, 0.0]])  # of confidence 1 and 0.98: wrong and right
    confidence = (1 + 1 / (1 + math.exp(-4))) / 2
    assert calibration_error(reliability(logits, torch.tensor([1, 0]))) == pytest.approx(confidence - 0.5, abs=1e-6)


def test_flops_are_two_for_each_product_in_one_images_forward_pass(stage2: TrainRecipe) -> None:
    fabric = make_fabric(stage2.training)
    branch = 2 * (8 * 8 * 6 * 3 * 9 + 6 * 10)  # a convolution of 3x3 on 8x8 pixels, and a head
    plain = RegulatedClassifier(TinyBackbone(), None, 10, mode="none")
    assert count_flops(plain, 8, fabric) == branch
    assert count_flops(RegulatedClassifier(TinyBackbone(), TinyBackbone(), 10), 8, fabric) == 2 * branch
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 7))
    pooled = nn.Sequential(nn.AvgPool2d(2), nn.Flatten())
    linear = RegulatedClassifier(flat, pooled, 10, feature_dims=(7, 48))
    assert count_flops(linear, 8, fabric) == 2 * (192 * 7 + 7 * 10 + 48 * 10)


def test_counting_flops_leaves_the_model_as_it_was(stage2: TrainRecipe) -> None:
    model = RegulatedClassifier(TinyBackbone(), TinyBackbone(), 10, freeze_encoder=True).train()
    model.get_submodule("backbone.norm").eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    count_flops(model, 8, make_fabric(stage2.training))
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())


def test_attention_counts_too(stage2: TrainRecipe) -> None:
    recipe = dataclasses.replace(stage2, backbone=VIT, target=dataclasses.replace(stage2.target, image_size=32))
    model = build_classifier(recipe, 10)
    vit: Any = model.backbone
    tokens, width, blocks = vit.pos_embed.shape[1], vit.embed_dim, len(vit.blocks)
    hidden = vit.blocks[0].mlp.fc1.out_features
    products = 16 * 3 * 8 * 8 * width + width * 10  # patches and head
    products += blocks * (4 * tokens * width * width + 2 * tokens * tokens * width + 2 * tokens * width * hidden)
    assert count_flops(model, 32, make_fabric(stage2.training)) == 2 * products


def images_of(size: int, count: int) -> ImageSet:
    draw = np.random.default_rng(0)
    pixels, labels = draw.integers(0, 256, (count, size, size, 3), np.uint8), np.arange(count) % 3
    table = Table("noise", pixels, labels)
    return ImageSet(table, size, torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(labels))


class Recording(TinyBackbone):
    """Records the sizes of batches; more than `most` images do not fit into memory."""

    def __init__(self, most: int = 10_000) -> None:
        super().__init__()
        self.most, self.seen = most, list[int]()

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.seen.append(len(images))
        return super().forward(images)


def test_large_images_are_scored_a_few_at_a_time() -> None:
    fabric, backbone = make_fabric(dataclasses.replace(TrainRecipe().training, device="cpu")), Recording()
    classifier = RegulatedClassifier(backbone, None, 3, mode="none")
    measure(classifier, images_of(256, 70), fabric)
    assert backbone.seen == [32, 32, 6]


def test_what_does_not_fit_into_memory_is_scored_in_halves_with_the_same_metrics() -> None:
    fabric = make_fabric(dataclasses.replace(TrainRecipe().training, device="cpu"))
    torch.manual_seed(0)
    backbone = Recording()
    classifier, images = RegulatedClassifier(backbone, None, 3, mode="none"), images_of(8, 50)
    turning = nn.Sequential(backbone, nn.Linear(6, 4))
    head = Head("noise", EmotionSpace("category", ("a", "b", "c")), 0, 3)
    scores: tuple[Callable[[], Any], ...] = (
        lambda: measure(classifier, images, fabric, each_image=True),
        lambda: measure_heads(classifier, [images], [head], [1], fabric),
        lambda: measure_rotation(turning, [images], fabric),
    )
    for score, passes in zip(scores, (1, 1, 4), strict=True):
        backbone.most = 10_000
        whole = score()
        backbone.most, backbone.seen = 7, []
        again = score()
        assert again.keys() == whole.keys() and again["accuracy"] == whole["accuracy"]
        assert again["loss"] == pytest.approx(whole["loss"], rel=1e-5)
        assert backbone.seen == [number for number in [6, 6, 6, 7] * 2 for _ in range(passes)]
