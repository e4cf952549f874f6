from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from numpy.random import mtrand
from numpy.typing import NDArray

from emoreg.data.images.image_set import ImageSet
from emoreg.errors import UserError
from emoreg.suites import corruptions
from emoreg.suites.corruptions import CORRUPTIONS, check_size, damage, score
from emoreg.suites.options import CorruptionOptions
from emoreg.suites.subject import Subject

Pixels = NDArray[np.uint8]


def brighter(images: Pixels, name: str, severity: int, seed: int) -> Pixels:
    """Replace the library."""
    return np.clip(images.astype(int) + 5 * severity, 0, 255).astype(np.uint8)


def test_the_mean_is_over_all_corruptions_and_severities(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corruptions, "damage", brighter)
    scored = score(subject, CorruptionOptions(images=8))
    own = [scored.figures[name] for name in CORRUPTIONS]
    assert len(CORRUPTIONS) == 15
    assert scored.figures["mean_accuracy"] == pytest.approx(np.mean(own))
    levels = [scored.figures[f"severity_{level}"] for level in range(1, 6)]
    assert scored.figures["mean_accuracy"] == pytest.approx(np.mean(levels))
    assert all(0 <= value <= 1 for value in scored.figures.values())
    assert "8 test images" in scored.images and set(scored.checksums) == {"test images"}


def test_damaged_images_are_made_once_for_all_runs_of_a_process(
    subject: Subject, images: Callable[..., ImageSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def counted(given: Pixels, name: str, severity: int, seed: int) -> Pixels:
        made.append(name)
        return given

    monkeypatch.setattr(corruptions, "damage", counted)
    options = CorruptionOptions(images=4, seed=3)
    first = score(subject, options)
    assert score(subject, options) == first and len(made) == 75
    score(dataclasses.replace(subject, scored=images(seed=1)), options)
    assert len(made) == 150


def test_images_that_are_too_small_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"target digits: .* at least 32 pixels a side, not 8"):
        check_size(8, "target digits")


@pytest.mark.extra("suites")
@pytest.mark.thorough
def test_every_corruption_is_drawn_for_each_image(images: Callable[..., ImageSet]) -> None:
    pixels = images(2).table.images
    assert isinstance(pixels, np.ndarray)
    before = mtrand.get_bit_generator()
    for name in CORRUPTIONS:
        once = damage(pixels, name, 3, 0)
        assert once.shape == pixels.shape and once.dtype == np.uint8 and (once != pixels).any(), name
        assert (damage(pixels[:1], name, 3, 0) == once[:1]).all(), name  # independent of the other images
    assert (damage(pixels, "gaussian_noise", 3, 1) != damage(pixels, "gaussian_noise", 3, 0)).any()
    assert mtrand.get_bit_generator() is before
