from __future__ import annotations

import numpy as np
import pytest
import torch

from emoreg.data.images.augment import normalise
from emoreg.models.relatives.mood import Mood, mean_pixel, silent
from refusing import refusal


def test_the_mean_pixel_is_that_of_the_pixels_before_they_were_normalised() -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), dtype=np.uint8))
    expected = pixels.float().mean(dim=(1, 2, 3)) / 255
    torch.testing.assert_close(mean_pixel(normalise(pixels)), expected)


def test_inputs_that_are_not_images_have_no_mean_pixel() -> None:
    assert refusal(lambda: mean_pixel(torch.zeros(2, 7))).startswith("images: must be images (B, 3, H, W), not (2, 7)")


def test_anxiety_is_mean_pixel_plus_error_and_confidence_its_decrease() -> None:
    mood, black = Mood(), normalise(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    for errors, anxiety, confidence in (([0.3, 0.5], 0.4, 0.0), ([0.1, 0.1], 0.1, 0.3)):
        loss = mood.sense(black, torch.tensor(errors))
        loss.backward()
        mood.update()
        assert loss.item() == 0
        assert mood.anxiety.item() == pytest.approx(anxiety, abs=1e-6)
        assert mood.confidence.item() == pytest.approx(confidence, abs=1e-6)
    mood.update()  # nothing was sensed since
    assert mood.anxiety.item() == pytest.approx(0.1, abs=1e-6)


def test_parts_of_a_batch_have_the_mood_of_the_whole() -> None:
    images = normalise(torch.arange(4 * 3 * 4, dtype=torch.uint8).view(4, 3, 2, 2) * 5)
    errors = torch.tensor([0.1, 0.2, 0.3, 0.9])
    whole, parts = Mood(), Mood()
    whole.sense(images, errors).backward()
    for rows in (slice(0, 1), slice(1, 4)):
        (parts.sense(images[rows], errors[rows]) * len(errors[rows]) / 4).backward()
    for mood in (whole, parts):
        mood.update()
    torch.testing.assert_close(parts.anxiety, whole.anxiety)


def test_a_silent_loss_is_zero_and_keeps_its_gradient() -> None:
    x = torch.tensor([3.0], requires_grad=True)
    loss = silent((x**2).sum())
    loss.backward()
    assert loss.item() == 0 and x.grad is not None and x.grad.item() == 6
