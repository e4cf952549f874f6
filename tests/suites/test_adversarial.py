from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from emoreg.data.images.augment import normalise
from emoreg.suites import adversarial
from emoreg.suites.adversarial import score
from emoreg.suites.options import AdversarialOptions
from emoreg.suites.subject import Subject

Pixels = NDArray[np.float32]


@pytest.mark.extra("suites")
@pytest.mark.thorough
def test_attacks_stay_within_eps_and_lower_accuracy(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = subject.predict(subject.scored).logits.argmax(dim=1)  # all right without an attack
    subject = dataclasses.replace(subject, scored=dataclasses.replace(subject.scored, labels=labels))
    changes: list[float] = []
    attack = adversarial._attacked

    def watched(of: Any, pixels: Pixels, labels: NDArray[np.int64], eps: float, steps: int) -> dict[str, Pixels]:
        found = attack(of, pixels, labels, eps, steps)
        changes.extend(float(np.abs(each - pixels).max()) / eps for each in found.values())
        assert all(each.min() >= 0 and each.max() <= 1 for each in found.values())
        return found

    monkeypatch.setattr(adversarial, "_attacked", watched)
    options = AdversarialOptions(eps=(4.0, 40.0), steps=3, images=12)
    scored = score(subject, options)
    assert changes == pytest.approx([1.0] * 4, abs=1e-3)
    assert scored.figures["clean_accuracy"] == 1.0
    assert scored.figures["pgd_40"] < 1 and scored.figures["pgd_40"] <= scored.figures["pgd_4"]
    assert scored.figures["pgd_accuracy"] == pytest.approx((scored.figures["pgd_4"] + scored.figures["pgd_40"]) / 2)
    assert score(subject, options) == scored
    assert "12 test images, attacked within 4/255 and 40/255" in scored.images


@pytest.mark.extra("suites")
def test_the_attacked_network_gives_the_outputs_of_the_classifier(subject: Subject) -> None:
    pixels, _, _ = next(subject.scored.batches(torch.arange(4), 4))
    attacked = adversarial._estimator(subject).predict((pixels.float() / 255).numpy())
    expected = subject.classifier.respond(normalise(pixels)).logits
    assert torch.allclose(torch.from_numpy(attacked), expected, atol=1e-4)
