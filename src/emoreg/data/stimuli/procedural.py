"""Procedural stimuli: abstract compositions that stand in where affective photographs cannot be had.

No person rated them. Valence and arousal are computed from what is seen, after published psychophysics:

- Valdez & Mehrabian 1994, "Effects of color on emotions" (J. Exp. Psychol. Gen. 123(4), 394-409): for
  standardised brightness B and saturation S, pleasure = 0.69 · B + 0.22 · S, arousal = -0.31 · B + 0.60 · S.
- Bar & Neta 2006, "Humans prefer curved visual objects" (Psychol. Sci. 17(8), 645-648): angular contours are
  liked less and felt as a threat. The direction is theirs, the weights are ours.
- Berlyne 1971, "Aesthetics and Psychobiology": complexity raises arousal. The weight is ours.

Ours too: how the four are measured, that they add up, and the squashing of labels into [-1, 1].
"""

from __future__ import annotations

from colorsys import hsv_to_rgb

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

WEIGHTS = (  # on valence and arousal
    (0.69, -0.31),  # brightness: Valdez & Mehrabian
    (0.22, 0.60),  # saturation: Valdez & Mehrabian
    (-0.30, 0.15),  # angularity: the signs are Bar & Neta's, the weights ours; colour still leads
    (0.00, 0.30),  # complexity: the sign is Berlyne's, the weight ours
)
# Of these four, over 20,000 compositions of 32 pixels, seed 0. Constants, so that a label depends on its own
# image and never on the rest of the set.
MEANS, DEVIATIONS = (0.531, 0.252, 0.502, 0.496), (0.204, 0.174, 0.370, 0.296)
GAIN = 0.7  # ours: of tanh; labels spread over most of [-1, 1] and few crowd at its ends

MAX_SHAPES = 24
SEEN = 0.002  # of the image, two pixels of 32x32: shapes with a smaller visible area are ignored
SUPERSAMPLING = 3  # drawn larger and averaged down: Pillow's shapes have hard edges
HUES = ((0, 0, 0), (0, 0.07, -0.07), (0, 0.5, 0.55), (0, 1 / 3, 2 / 3))  # one, neighbours, opposites, a triad
STRAIGHT, RADIAL = Image.linear_gradient("L"), Image.radial_gradient("L")


def compose(count: int, image_size: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """`count` compositions and their valence and arousal.

    Args:
        count: N.
        image_size: side in pixels, at least 8.
        seed: image i depends on (seed, i) only, so a longer set begins with the shorter one.

    Returns:
        Images uint8 (N, H, W, 3), and labels float32 (N, 2), valence and arousal in [-1, 1].
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
    """Valence and arousal (2,) in [-1, 1] of an image (H, W, 3) with such contours, as `draw` has them."""
    features = np.array([*measure(image), angular, complexity])
    return np.tanh(GAIN * ((features - MEANS) / DEVIATIONS) @ WEIGHTS)


def measure(image: NDArray[np.uint8]) -> tuple[float, float]:
    """Brightness and saturation in [0, 1] of an image (H, W, 3), averaged over its pixels.

    The highest channel, and the highest less the lowest, stand in for Munsell value and chroma. Neither
    depends on hue, as CIE lightness does; the second does not call near-black vivid, as HSV saturation does.
    """
    brightness = float(image.max(axis=2).mean()) / 255
    return brightness, brightness - float(image.min(axis=2).mean()) / 255


def draw(
    rng: np.random.Generator, image_size: int, shapes: int, angular: float, mood: tuple[float, float]
) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """One composition, and what its contours are like.

    Args:
        rng: source of all other random choices; the same draws give the same layout.
        image_size: H = W.
        shapes: how many to draw, 1 to MAX_SHAPES.
        angular: share of them with corners, on average.
        mood: saturation and brightness about which the palette lies.

    Returns:
        The image (H, W, 3); and of the shapes seen, the share with corners and log number / log MAX_SHAPES.
    """
    side = image_size * SUPERSAMPLING
    colours = _palette(rng, shapes + 2, mood)  # two of the background, then the shapes'
    canvas = Image.new("RGB", (side, side), colours[0])
    background, turn = rng.integers(3), 360 * rng.random()
    if background > 0:  # not plain; the crop is the largest square that has no corner missing at any turn
        ramp = STRAIGHT.rotate(turn).crop((38, 38, 218, 218)) if background == 1 else RADIAL
        canvas.paste(colours[1], (0, 0, side, side), ramp.resize((side, side), Image.Resampling.BILINEAR))

    cornered = rng.random(shapes) < angular
    radii = np.clip(0.4 * shapes**-0.4 * np.exp(rng.normal(0, 0.45, shapes)), 0.05, 0.45)
    radii = np.sort(radii)[::-1]  # the largest first, at the back
    covered = Image.new("L", (side, side))  # which shape is on top where; 0 is none
    brush, marker = ImageDraw.Draw(canvas), ImageDraw.Draw(covered)
    for shape, centre in enumerate(_centres(rng, shapes)):
        points = side * (centre + radii[shape] * _outline(rng, cornered[shape]))
        corners = points.view(np.float64).tolist()  # x, y, x, y, ...
        brush.polygon(corners, fill=colours[shape + 2])
        marker.polygon(corners, fill=shape + 1)
    areas = np.bincount(np.asarray(covered).ravel(), minlength=shapes + 1)[1:]
    seen = areas >= min(SEEN * side**2, areas.max())  # the most visible counts, however small
    contours = float(cornered[seen].mean()), float(np.log(seen.sum()) / np.log(MAX_SHAPES))
    return np.asarray(canvas.reduce(SUPERSAMPLING)), contours


def _palette(rng: np.random.Generator, size: int, mood: tuple[float, float]) -> list[tuple[int, ...]]:
    """Colours about one saturation and brightness; all but the second are set off from the first."""
    hues = rng.random() + rng.choice(rng.choice(HUES), size) + rng.normal(0, 0.02, size)
    saturations = np.clip(rng.normal(mood[0], 0.18, size), 0, 1)
    values = np.clip(rng.normal(mood[1], 0.2, size), 0.04, 1)
    ground, shapes = values[0], values[2:]
    shapes[np.abs(shapes - ground) < 0.15] = ground + (0.25 if ground < 0.5 else -0.25)
    colours = np.stack([hues % 1, saturations, values], axis=1).tolist()
    return [tuple(round(255 * channel) for channel in hsv_to_rgb(*colour)) for colour in colours]


def _centres(rng: np.random.Generator, shapes: int) -> NDArray[np.complex128]:
    """x + iy (M,) in the unit square: scattered, on a line, on a ring, or as in a sunflower."""
    layout, along = rng.integers(4), (np.arange(shapes) + rng.random()) / shapes
    reach = (0, along - 0.5, 0.33, 0.45 * np.sqrt(along))[layout]
    angle = (0, 0, 2 * np.pi * along, 2.4 * np.arange(shapes))[layout]  # 2.4: the golden angle
    spot = 0.5 + rng.uniform(-0.15, 0.15, 2) + rng.uniform(-0.5, 0.5, (shapes, 2)) * (0.2 if layout else 1)
    centres = spot.view(np.complex128)[:, 0] + reach * np.exp(1j * (angle + 2 * np.pi * rng.random()))
    return np.clip(centres.view(np.float64), 0.05, 0.95).view(np.complex128)


def _outline(rng: np.random.Generator, cornered: bool) -> NDArray[np.complex128]:
    """x + iy (M,) about the origin, of radius about 1: a polygon or a star, or else an ellipse or a blob."""
    lobes, (depth, squeeze, turn) = int(rng.integers(3, 9)), rng.random(3)
    spikes = rng.uniform(0.8, 1.2, lobes)  # drawn for blobs too: the rest of the picture stays as it is
    angles = np.linspace(0, 2 * np.pi, 2 * lobes if cornered else 40, endpoint=False)
    if cornered:  # between two spikes is a notch: on the edge of a polygon, or further in on a star
        radii = np.repeat(spikes, 2)
        radii[1::2] = np.cos(np.pi / lobes) * min(1, 0.35 + depth)
    else:
        radii = 1 + 0.25 * depth * np.cos((1 + lobes // 2) * angles + 15 * spikes[0])
    return radii * (np.cos(angles) + 1j * (0.5 + 0.5 * squeeze) * np.sin(angles)) * np.exp(2j * np.pi * turn)
