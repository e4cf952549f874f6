from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from emoreg.data.images.image_set import ImageSet
from emoreg.errors import UserError
from emoreg.suites import calibration
from emoreg.suites.calibration import fit_temperature, score
from emoreg.suites.options import CalibrationOptions
from emoreg.suites.subject import Outputs, Subject


def test_the_temperature_of_overconfident_outputs_is_found() -> None:
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(4000, 5, generator=draw)
    labels = torch.multinomial(z.softmax(dim=1), 1, generator=draw).squeeze(1)
    assert fit_temperature(3 * z, labels) == pytest.approx(3, rel=0.1)
    assert fit_temperature(z / 2, labels) == pytest.approx(0.5, rel=0.1)
    assert 99 < fit_temperature(torch.tensor([[9.0, 0.0]]), torch.tensor([1])) <= 100


def test_figures_follow_their_definitions(subject: Subject, images: Callable[..., ImageSet]) -> None:
    subject = dataclasses.replace(subject, held_out=images(10, seed=1))
    scored = score(subject, CalibrationOptions())
    outputs = subject.predict(subject.scored)
    probabilities = outputs.logits.softmax(dim=1)
    brier = (probabilities - F.one_hot(outputs.labels, 2)).square().sum(dim=1).mean().item()
    assert scored.figures["brier"] == pytest.approx(brier, abs=1e-6)
    assert scored.figures["nll"] == pytest.approx(F.cross_entropy(outputs.logits, outputs.labels).item(), abs=1e-6)
    assert subject.held_out is not None
    fitted = subject.predict(subject.held_out)
    temperature = fit_temperature(fitted.logits, fitted.labels)
    assert scored.figures["temperature"] == temperature != fit_temperature(outputs.logits, outputs.labels)
    scaled = outputs.logits / scored.figures["temperature"]
    assert scored.figures["nll_scaled"] == pytest.approx(F.cross_entropy(scaled, outputs.labels).item(), abs=1e-6)
    assert 0 <= scored.figures["ece"] <= 1
    assert scored.images == "12 test images; temperature fitted on 10 validation images"


def test_without_validation_images_half_of_the_test_images_fit_and_the_other_half_is_scored(subject: Subject) -> None:
    one, again, other = (score(subject, CalibrationOptions(seed)) for seed in (0, 0, 1))
    assert one == again and one.figures != other.figures
    assert one.images.startswith("half of the test images, 6; temperature fitted on the other half, 6")
    assert "no validation images" in one.images
    assert all(math.isfinite(value) for value in one.figures.values())


def test_no_image_is_scored_that_fitted_the_temperature(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[Tensor] = []

    def fit(logits: Tensor, labels: Tensor) -> float:
        fitted.extend(logits)
        return 1.0

    monkeypatch.setattr(calibration, "fit_temperature", fit)
    nll = score(subject, CalibrationOptions()).figures["nll"]
    outputs = subject.predict(subject.scored)
    rest = [row for row, logits in enumerate(outputs.logits) if not any(torch.equal(logits, other) for other in fitted)]
    assert len(fitted) == len(rest) == 6
    assert nll == pytest.approx(F.cross_entropy(outputs.logits[rest], outputs.labels[rest]).item(), abs=1e-6)


@pytest.mark.parametrize("has_validation", [True, False])
def test_without_a_wrong_prediction_no_temperature_is_the_best(
    subject: Subject, images: Callable[..., ImageSet], monkeypatch: pytest.MonkeyPatch, has_validation: bool
) -> None:
    def all_right(_: Subject, of: ImageSet) -> Outputs:
        return Outputs(4.0 * F.one_hot(of.labels, 2), torch.zeros(len(of)), of.labels)

    monkeypatch.setattr(Subject, "predict", all_right)
    scored = score(dataclasses.replace(subject, held_out=images(10) if has_validation else None), CalibrationOptions())
    assert {name for name, value in scored.figures.items() if math.isnan(value)} == {
        *("temperature", "ece_scaled", "brier_scaled", "nll_scaled")
    }
    fitted = "10 validation images" if has_validation else "the other half, 6"
    assert f"; temperature not fitted, as no prediction is wrong on {fitted}" in scored.images


def test_too_few_images_are_refused(subject: Subject, images: Callable[..., ImageSet]) -> None:
    with pytest.raises(UserError, match="at least 4 images, not 2"):
        score(dataclasses.replace(subject, scored=images(2)), CalibrationOptions())
