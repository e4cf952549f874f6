from __future__ import annotations

import numpy as np
import pytest

from emoreg.stimuli import procedural
from emoreg.stimuli.procedural import compose, label


def test_images_and_labels_have_the_announced_shapes_and_ranges() -> None:
    images, labels = compose(30, 16, seed=0)
    assert images.shape == (30, 16, 16, 3) and images.dtype == np.uint8
    assert labels.shape == (30, 2) and labels.dtype == np.float32
    assert np.abs(labels).max() <= 1


def test_an_image_depends_on_seed_and_place_only() -> None:
    short, long, other = (compose(count, 16, seed) for count, seed in ((5, 1), (9, 1), (5, 2)))
    for part in (0, 1):
        np.testing.assert_array_equal(short[part], long[part][:5])
    assert not np.array_equal(short[0], other[0])


def plain(hue: tuple[int, int, int], **contours: float) -> np.ndarray:
    image = np.broadcast_to(np.array(hue, np.uint8), (1, 8, 8, 3))
    angular = np.array([contours.get("angular", 0.5)])
    return label(image, angular, np.array([contours.get("complexity", 0.5)]))[0]


def test_brighter_is_more_pleasant_and_less_arousing() -> None:
    dark, bright = plain((60, 60, 60)), plain((230, 230, 230))
    assert bright[0] > dark[0] and bright[1] < dark[1]


def test_more_saturated_is_more_pleasant_and_more_arousing() -> None:
    pale, vivid = plain((200, 150, 150)), plain((200, 20, 20))
    assert vivid[0] > pale[0] and vivid[1] > pale[1]


def test_angular_is_less_pleasant_and_complex_more_arousing() -> None:
    colour = (120, 90, 60)
    assert plain(colour, angular=1.0)[0] < plain(colour, angular=0.0)[0]
    assert plain(colour, angular=1.0)[1] > plain(colour, angular=0.0)[1]
    assert plain(colour, complexity=1.0)[1] > plain(colour, complexity=0.0)[1]
    assert plain(colour, complexity=1.0)[0] == plain(colour, complexity=0.0)[0]


def test_colour_weights_are_valdez_and_mehrabians() -> None:
    """Their ratio survives the squashing: undo it and compare two images that differ in brightness alone."""
    low, high = (np.arctanh(plain((level,) * 3).astype(np.float64)) for level in (100, 140))
    change = (high - low) / procedural.SPREAD
    step = (40 / 255) / procedural.BRIGHTNESS[1]
    np.testing.assert_allclose(change, [0.69 * step, -0.31 * step], rtol=1e-3)


def test_hue_carries_no_label() -> None:
    assert np.array_equal(plain((200, 50, 50)), plain((50, 200, 50))) and np.array_equal(
        plain((200, 50, 50)), plain((50, 50, 200))
    )


def test_labels_fill_the_range_and_are_two_things() -> None:
    labels = compose(400, 16, seed=3)[1]
    assert (labels.std(axis=0) > 0.3).all() and (np.abs(labels.mean(axis=0)) < 0.15).all()
    assert abs(np.corrcoef(labels.T)[0, 1]) < 0.5


def test_standardising_constants_are_those_of_the_compositions() -> None:
    draws = [procedural.draw(np.random.default_rng([5, index]), 16)[1] for index in range(600)]
    for values, (mean, spread) in zip(np.array(draws).T, (procedural.ANGULAR, procedural.COMPLEX), strict=True):
        assert values.mean() == pytest.approx(mean, abs=0.05) and values.std() == pytest.approx(spread, abs=0.05)


@pytest.mark.parametrize(("count", "size"), [(0, 32), (3, 4)])
def test_nothing_to_draw_is_refused(count: int, size: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        compose(count, size, 0)
