"""Procedural stimuli: abstract compositions for use when affective photographs are not available.

No person rated them. Valence and arousal are computed from the visible image, after published psychophysics:

- Valdez & Mehrabian 1994, "Effects of color on emotions" (J. Exp. Psychol. Gen. 123(4), 394-409): for
  standardised brightness B and saturation S, pleasure = 0.69 · B + 0.22 · S, arousal = -0.31 · B + 0.60 · S.
- Bar & Neta 2006, "Humans prefer curved visual objects" (Psychol. Sci. 17(8), 645-648): angular contours are
  liked less and perceived as a threat. The signs are theirs, the weights are ours.
- Berlyne 1971, "Aesthetics and Psychobiology": complexity raises arousal. The weight is ours.

Also ours: the measures of the four features, that their effects add up, and the squashing of labels into [-1, 1].
"""

from __future__ import annotations

from colorsys import hsv_to_rgb

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

WEIGHTS = (  # for valence and arousal
    (0.69, -0.31),  # brightness: Valdez & Mehrabian
    (0.22, 0.60),  # saturation: Valdez & Mehrabian
    (-0.30, 0.15),  # angularity: the signs are Bar & Neta's, the weights ours, small enough for colour to dominate
    (0.00, 0.30),  # complexity: the sign is Berlyne's, the weight ours
)
# Mean and standard deviation of the four features over 20,000 compositions of 32 pixels, seed 0. They are constants so
# that a label depends on its own image only.
MEANS, DEVIATIONS = (0.531, 0.252, 0.502, 0.496), (0.204, 0.174, 0.370, 0.296)
GAIN = 0.7  # ours: scale within tanh, so that labels cover most of [-1, 1] and few are near its ends

MAX_SHAPES = 24
SEEN = 0.002  # share of the image, two pixels of 32x32: shapes with a smaller visible area are ignored
SUPERSAMPLING = 3  # draw larger and average down, because Pillow's shapes are not antialiased
HUES = ((0, 0, 0), (0, 0.07, -0.07), (0, 0.5, 0.55), (0, 1 / 3, 2 / 3))  # one hue, neighbours, opposites, a triad
STRAIGHT, RADIAL = Image.linear_gradient("L"), Image.radial_gradient("L")


def compose(count: int, image_size: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Draw compositions, and compute their valence and arousal.

    Args:
        count: number N of compositions.
        image_size: side of the images in pixels, at least 8.
        seed: image i depends only on (seed, i), so a longer set begins with the shorter one.

    Returns:
        Images, uint8 (N, H, W, 3), and valence and arousal in [-1, 1], float32 (N, 2).
    """
    if count < 1 or image_size < 8:
        raise ValueError(f"count {count} must be at least 1, and image_size {image_size} at least 8 pixels")
    images = np.empty((count, image_size, image_size, 3), np.uint8)
    labels = np.empty((count, 2), np.float32)
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        shapes, angular = round(MAX_SHAPES ** rng.random()), rng.random()
        saturation, brightness = rng.uniform((0.05, 0.15), 0.95)
        images[index], contours = draw(rng, image_size, shapes, angular, (saturation, brightness))
        labels[index] = label(images[index], *contours)
    return images, labels


def label(image: NDArray[np.uint8], angular: float, complexity: float) -> NDArray[np.float64]:
    """Valence and arousal (2,) in [-1, 1] of an image (H, W, 3), given the measures of contours from `draw`."""
    features = np.array([*measure(image), angular, complexity])
    return np.tanh(GAIN * ((features - MEANS) / DEVIATIONS) @ WEIGHTS)


def measure(image: NDArray[np.uint8]) -> tuple[float, float]:
    """Mean brightness and saturation in [0, 1] of an image (H, W, 3).

    The maximum of the channels approximates Munsell value, maximum minus minimum Munsell chroma. Unlike CIE lightness,
    they do not depend on hue. Unlike HSV saturation, the second is low for near-black.
    """
    brightness = float(image.max(axis=2).mean()) / 255
    return brightness, brightness - float(image.min(axis=2).mean()) / 255


def draw(
    rng: np.random.Generator, image_size: int, shapes: int, angular: float, mood: tuple[float, float]
) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Draw one composition, and measure its contours.

    Args:
        rng: source of all other random choices; the same draws give the same layout.
        image_size: H = W.
        shapes: number of shapes to draw, 1 to MAX_SHAPES.
        angular: expected share of shapes with corners.
        mood: mean saturation and brightness of the palette.

    Returns:
        The image (H, W, 3); and over the visible shapes, the share with corners and log(number) / log(MAX_SHAPES).
    """
    side = image_size * SUPERSAMPLING
    colours = _palette(rng, shapes + 2, mood)  # two for the background, then one per shape
    canvas = Image.new("RGB", (side, side), colours[0])
    background, turn = rng.integers(3), 360 * rng.random()
    if background > 0:  # a gradient; the crop is the largest square within the rotated image at any angle
        ramp = STRAIGHT.rotate(turn).crop((38, 38, 218, 218)) if background == 1 else RADIAL
        canvas.paste(colours[1], (0, 0, side, side), ramp.resize((side, side), Image.Resampling.BILINEAR))

    cornered = rng.random(shapes) < angular
    radii = np.clip(0.4 * shapes**-0.4 * np.exp(rng.normal(0, 0.45, shapes)), 0.05, 0.45)
    radii = np.sort(radii)[::-1]  # the largest first, at the back
    covered = Image.new("L", (side, side))  # number of the topmost shape at each pixel; 0 is none
    brush, marker = ImageDraw.Draw(canvas), ImageDraw.Draw(covered)
    for shape, centre in enumerate(_centres(rng, shapes)):
        points = side * (centre + radii[shape] * _outline(rng, cornered[shape]))
        corners = points.view(np.float64).tolist()  # x, y, x, y, ...
        brush.polygon(corners, fill=colours[shape + 2])
        marker.polygon(corners, fill=shape + 1)
    areas = np.bincount(np.asarray(covered).ravel(), minlength=shapes + 1)[1:]
    seen = areas >= min(SEEN * side**2, areas.max())  # the most visible shape always counts
    contours = float(cornered[seen].mean()), float(np.log(seen.sum()) / np.log(MAX_SHAPES))
    return np.asarray(canvas.reduce(SUPERSAMPLING)), contours


def _palette(rng: np.random.Generator, size: int, mood: tuple[float, float]) -> list[tuple[int, ...]]:
    """Colours around one saturation and brightness. All except the second contrast with the first in brightness."""
    hues = rng.random() + rng.choice(rng.choice(HUES), size) + rng.normal(0, 0.02, size)
    saturations = np.clip(rng.normal(mood[0], 0.18, size), 0, 1)
    values = np.clip(rng.normal(mood[1], 0.2, size), 0.04, 1)
    ground, shapes = values[0], values[2:]
    shapes[np.abs(shapes - ground) < 0.15] = ground + (0.25 if ground < 0.5 else -0.25)
    colours = np.stack([hues % 1, saturations, values], axis=1).tolist()
    return [tuple(round(255 * channel) for channel in hsv_to_rgb(*colour)) for colour in colours]


def _centres(rng: np.random.Generator, shapes: int) -> NDArray[np.complex128]:
    """Centres x + iy (M,) in the unit square: scattered, on a line, on a ring, or like seeds of a sunflower."""
    layout, along = rng.integers(4), (np.arange(shapes) + rng.random()) / shapes
    reach = (0, along - 0.5, 0.33, 0.45 * np.sqrt(along))[layout]
    angle = (0, 0, 2 * np.pi * along, 2.4 * np.arange(shapes))[layout]  # 2.4: the golden angle
    spot = 0.5 + rng.uniform(-0.15, 0.15, 2) + rng.uniform(-0.5, 0.5, (shapes, 2)) * (0.2 if layout else 1)
    centres = spot.view(np.complex128)[:, 0] + reach * np.exp(1j * (angle + 2 * np.pi * rng.random()))
    return np.clip(centres.view(np.float64), 0.05, 0.95).view(np.complex128)


def _outline(rng: np.random.Generator, cornered: bool) -> NDArray[np.complex128]:
    """Points x + iy (M,) around the origin, at a radius of about 1: a polygon or star, or else an ellipse or blob."""
    lobes, (depth, squeeze, turn) = int(rng.integers(3, 9)), rng.random(3)
    spikes = rng.uniform(0.8, 1.2, lobes)  # drawn for blobs too, so that the rest of the picture does not change
    angles = np.linspace(0, 2 * np.pi, 2 * lobes if cornered else 40, endpoint=False)
    if cornered:  # between two spikes is a point on the edge of a polygon, or further in for a star
        radii = np.repeat(spikes, 2)
        radii[1::2] = np.cos(np.pi / lobes) * min(1, 0.35 + depth)
    else:
        radii = 1 + 0.25 * depth * np.cos((1 + lobes // 2) * angles + 15 * spikes[0])
    return radii * (np.cos(angles) + 1j * (0.5 + 0.5 * squeeze) * np.sin(angles)) * np.exp(2j * np.pi * turn)
