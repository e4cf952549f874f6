from __future__ import annotations

import colorsys
import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray

from emoreg.data.stimuli import procedural
from emoreg.data.stimuli.procedural import MAX_SHAPES, MEANS, compose, draw, label, measure

Parameters = tuple[int, float, tuple[float, float]]  # shapes, angular, mood: saturation and brightness


def flat(*colour: int, angular: float = 0.5, complexity: float = 0.5) -> NDArray[np.float64]:
    """Valence and arousal of an image of one colour."""
    return label(np.broadcast_to(np.array(colour, np.uint8), (8, 8, 3)), angular, complexity)


def pairs(one: Parameters, other: Parameters, count: int = 60) -> NDArray[np.float64]:
    """Change of valence and arousal (count, 2) from one set of parameters to another, with the same random draws."""
    changes = []
    for index in range(count):
        before, after = (draw(np.random.default_rng(index), 16, *parameters) for parameters in (one, other))
        changes.append(label(after[0], *after[1]) - label(before[0], *before[1]))
    return np.array(changes)


def test_images_and_labels_have_the_documented_shapes_and_ranges() -> None:
    images, labels = compose(300, 16, seed=0)
    assert images.shape == (300, 16, 16, 3) and images.dtype == np.uint8
    assert labels.shape == (300, 2) and labels.dtype == np.float32
    assert np.isfinite(labels).all() and np.abs(labels).max() <= 1


@pytest.mark.parametrize("size", [8, 33])
def test_the_smallest_and_odd_sizes_are_drawn(size: int) -> None:
    images, labels = compose(200, size, seed=0)
    assert images.shape[1:] == (size, size, 3) and np.isfinite(labels).all()


@pytest.mark.parametrize(("count", "size"), [(0, 32), (-1, 32), (3, 7)])
def test_too_few_or_too_small_images_are_refused(count: int, size: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        compose(count, size, 0)


def test_the_same_seed_gives_the_same_bytes() -> None:
    np.random.seed(0)  # noqa: NPY002 - the global generator must not matter
    first = compose(20, 16, seed=4)
    np.random.seed(1)  # noqa: NPY002
    second = compose(20, 16, seed=4)
    assert [part.tobytes() for part in first] == [part.tobytes() for part in second]


def test_a_longer_set_begins_with_the_shorter_one() -> None:
    short, long = compose(5, 16, seed=1), compose(9, 16, seed=1)
    for part in (0, 1):
        np.testing.assert_array_equal(short[part], long[part][:5])


def test_all_seeds_and_indices_give_different_images() -> None:
    images = [image for seed in range(4) for image in compose(25, 16, seed)[0]]
    assert len({hashlib.sha256(image.tobytes()).digest() for image in images}) == 100


def test_colour_weights_are_valdez_and_mehrabians() -> None:
    """Undo the squashing, and compare images that differ only in brightness or saturation."""
    colours = ((100, 100, 100), (140, 140, 140), (140, 100, 100))
    plain, brighter, vivid = (np.arctanh(flat(*colour)) / procedural.GAIN for colour in colours)
    step = 40 / 255 / np.array(procedural.DEVIATIONS)
    np.testing.assert_allclose(brighter - plain, [0.69 * step[0], -0.31 * step[0]])
    np.testing.assert_allclose(vivid - brighter, [0.22 * step[1], 0.60 * step[1]])


def test_angular_is_less_pleasant_and_more_arousing() -> None:
    change = flat(120, 90, 60, angular=1.0) - flat(120, 90, 60, angular=0.0)
    assert change[0] < -0.1 and change[1] > 0.1


def test_complex_is_more_arousing_and_equally_pleasant() -> None:
    change = flat(120, 90, 60, complexity=1.0) - flat(120, 90, 60, complexity=0.0)
    assert change[0] == 0 and change[1] > 0.1


def test_an_image_of_average_features_is_neutral() -> None:
    brightness, saturation, angular, complexity = MEANS
    top, bottom = round(255 * brightness), round(255 * (brightness - saturation))
    assert np.abs(flat(top, bottom, bottom, angular=angular, complexity=complexity)).max() < 0.02


def test_the_same_composition_drawn_brighter_is_more_pleasant_and_less_arousing() -> None:
    change = pairs((6, 0.5, (0.0, 0.3)), (6, 0.5, (0.0, 0.9)))
    assert (change[:, 0] > 0).all() and change[:, 1].mean() < -0.1


def test_the_same_composition_drawn_more_saturated_is_more_pleasant_and_more_arousing() -> None:
    change = pairs((6, 0.5, (0.1, 0.6)), (6, 0.5, (0.8, 0.6)))
    assert (change[:, 1] > 0).all() and change[:, 0].mean() > 0.1
    assert (change[:, 0] > 0).mean() > 0.9  # not all: opposite vivid colours, blended by a gradient, are darker


def test_the_same_composition_drawn_angular_is_less_pleasant_and_more_arousing() -> None:
    change = pairs((6, 0.0, (0.4, 0.6)), (6, 1.0, (0.4, 0.6)))
    assert change[:, 0].mean() < -0.2 and change[:, 1].mean() > 0.1
    assert (change[:, 0] < 0).mean() > 0.9 and (change[:, 1] > 0).mean() > 0.9


def test_more_shapes_are_more_arousing() -> None:
    assert pairs((2, 0.5, (0.4, 0.6)), (20, 0.5, (0.4, 0.6))).mean(axis=0)[1] > 0.15


def test_brightness_and_saturation_do_not_depend_on_hue() -> None:
    for hue in (0.1, 0.45, 0.7):
        turned = [round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, 0.75, 0.8)]
        np.testing.assert_allclose(flat(*turned), flat(204, 51, 51), atol=1e-9)


def test_hue_does_not_predict_the_label() -> None:
    """Warm or cold: the difference of the red and the blue channel, relative to their sum."""
    images, labels = compose(800, 16, seed=6)
    red, _, blue = images.reshape(800, -1, 3).mean(axis=1).T
    warmth = (red - blue) / (red + blue)
    assert all(abs(np.corrcoef(warmth, labels[:, axis])[0, 1]) < 0.1 for axis in (0, 1))


def test_labels_follow_from_what_is_visible_in_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from the arguments of `draw`, nor from the rest of the set."""
    drawn: list[tuple[NDArray[np.uint8], tuple[float, float]]] = []

    def observed(*arguments: object) -> tuple[NDArray[np.uint8], tuple[float, float]]:
        drawn.append(draw(*arguments))  # type: ignore[arg-type]
        return drawn[-1]

    monkeypatch.setattr(procedural, "draw", observed)
    images, labels = compose(40, 16, seed=8)
    for image, seen, (_, contours) in zip(images, labels, drawn, strict=True):
        np.testing.assert_array_equal(seen, label(image, *contours).astype(np.float32))


def test_measures_are_computed_from_pixels() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0] = (255, 51, 102)  # the other three are black: neither bright nor vivid
    assert measure(image) == pytest.approx((1 / 4, 0.8 / 4))


def test_contours_are_measured_over_the_visible_shapes() -> None:
    def contours(shapes: int, angular: float) -> NDArray[np.float64]:
        rngs = (np.random.default_rng(index) for index in range(80))
        return np.array([draw(rng, 16, shapes, angular, (0.5, 0.5))[1] for rng in rngs])

    assert (contours(1, 0.0) == 0).all() and (contours(1, 1.0)[:, 0] == 1).all()
    assert (contours(12, 0.0)[:, 0] == 0).all() and (contours(12, 1.0)[:, 0] == 1).all()
    crowded = np.round(MAX_SHAPES ** contours(MAX_SHAPES, 0.5)[:, 1])
    assert 10 < crowded.mean() < MAX_SHAPES  # some are covered
    assert crowded.min() < crowded.max() <= MAX_SHAPES


def test_every_shape_contrasts_with_the_background() -> None:
    for index in range(200):
        palette = procedural._palette(np.random.default_rng(index), 10, (0.5, index / 200))
        values = np.array(palette).max(axis=1) / 255
        assert (np.abs(values[2:] - values[0]) > 0.14).all()


def test_labels_fill_the_range_and_are_hardly_correlated() -> None:
    labels = compose(600, 16, seed=3)[1]
    assert (labels.std(axis=0) > 0.3).all() and (np.abs(labels.mean(axis=0)) < 0.1).all()
    assert (labels.min(axis=0) < -0.7).all() and (labels.max(axis=0) > 0.7).all()
    assert (np.abs(labels) > 0.95).mean() < 0.05  # few are near the ends
    assert abs(np.corrcoef(labels[:, 0], labels[:, 1])[0, 1]) < 0.3


def test_standardising_constants_match_the_compositions(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[tuple[float, ...]] = []

    def observed(image: NDArray[np.uint8], *contours: float) -> NDArray[np.float64]:
        rows.append((*measure(image), *contours))
        return label(image, *contours)

    monkeypatch.setattr(procedural, "label", observed)
    compose(1000, 16, seed=5)
    features = np.array(rows)
    np.testing.assert_allclose(features.mean(axis=0), MEANS, atol=0.04)
    np.testing.assert_allclose(features.std(axis=0), procedural.DEVIATIONS, atol=0.02)
