from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch

import extras
from emoreg.config.schema import Granularity, Mixing
from emoreg.errors import UserError
from emoreg.inference.explain.saliency import SaliencyMap, agreement, overlay, saliency_maps
from emoreg.models.regulation import RegulatedClassifier
from tiny_backbone import TinyBackbone

extras.load("explain", "captum")
pytestmark = pytest.mark.extra("explain")


def classifier(
    mix: Mixing = "logits", granularity: Granularity = "scalar", frozen: bool = False
) -> RegulatedClassifier:
    torch.manual_seed(0)
    return RegulatedClassifier(
        TinyBackbone(6), TinyBackbone(4), 3, mix=mix, granularity=granularity, freeze_encoder=frozen
    ).eval()


@pytest.mark.parametrize("mix", ["logits", "probabilities", "features"])
@pytest.mark.parametrize("granularity", ["scalar", "per_sample"])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_maps_of_every_branch_sum_to_the_gain_of_its_logit(
    mix: Mixing, granularity: Granularity, frozen: bool
) -> None:
    model, images = classifier(mix, granularity, frozen), torch.randn(2, 3, 8, 8)
    found = saliency_maps(model, images, [0, 2])
    with torch.no_grad():
        full, empty = model.respond(images), model.respond(torch.zeros_like(images))
    for number, (maps, chosen) in enumerate(zip(found, [0, 2], strict=True)):
        assert [one.branch for one in maps] == ["non_emotional", "emotional", "regulated"]
        for one, field in zip(maps, ("non_emotional", "emotional", "logits"), strict=True):
            gained = (getattr(full, field) - getattr(empty, field))[number, chosen].item()
            assert one.values.shape == (8, 8) and np.abs(one.values).max() > 0
            assert one.logit_gain == pytest.approx(gained, abs=1e-5)
            assert one.values.sum() == pytest.approx(gained, abs=0.05)
            assert one.residual == pytest.approx(gained - one.values.sum(), abs=1e-5)
    assert model.freeze_encoder is frozen


def test_pixels_that_a_branch_does_not_use_have_no_saliency() -> None:
    class LeftHalf(TinyBackbone):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images[..., :4])

    torch.manual_seed(0)
    model = RegulatedClassifier(TinyBackbone(6), LeftHalf(4), 3).eval()
    ((plain, emotional, _),) = saliency_maps(model, torch.randn(1, 3, 8, 8), [1])
    assert not emotional.values[:, 4:].any() and emotional.values[:, :4].any() and plain.values[:, 4:].any()


def test_a_plain_classifier_has_one_map() -> None:
    model = RegulatedClassifier(TinyBackbone(6), None, 3, mode="none").eval()
    ((only,),) = saliency_maps(model, torch.randn(1, 3, 8, 8), [0])
    assert only.branch == "regulated"


def test_maps_agree_with_themselves_and_not_with_their_opposite() -> None:
    values = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    one, opposite, nothing = (SaliencyMap("regulated", v, 0.0, 0.0) for v in (values, -values, 0 * values))
    assert agreement(one, one) == pytest.approx(1) and agreement(one, opposite) == pytest.approx(-1)
    assert math.isnan(agreement(one, nothing))


def test_evidence_for_the_class_is_orange_and_against_it_blue() -> None:
    values = np.zeros((8, 8), np.float32)
    values[:, :3], values[:, 5:] = 1, -1
    drawn = overlay(np.full((32, 32, 3), 128, np.uint8), values).astype(int)
    assert drawn[16, 2, 0] > drawn[16, 2, 2] + 100 and drawn[16, -3, 2] > drawn[16, -3, 0] + 100
    assert np.ptp(overlay(np.full((32, 32, 3), 128, np.uint8), 0 * values)) == 0


def test_without_captum_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(UserError, match=r"pip install 'emoreg\[explain\]'"):
        saliency_maps(classifier("logits", "scalar", False), torch.randn(1, 3, 8, 8), [0])
