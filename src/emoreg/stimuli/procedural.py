"""Procedural stimuli: abstract compositions that stand in where affective photographs cannot be had.

No person rated them. Their valence and arousal are computed from what is drawn, after published psychophysics:

- Valdez & Mehrabian 1994, "Effects of color on emotions" (J. Exp. Psychol. Gen. 123): for standardised
  brightness B and saturation S, pleasure = 0.69 · B + 0.22 · S and arousal = -0.31 · B + 0.60 · S.
- Bar & Neta 2006, "Humans prefer curved visual objects" (Psychol. Sci. 17): angular contours are liked less
  and felt as a threat. The direction is theirs; the weights below are ours.
- Berlyne 1971, "Aesthetics and Psychobiology": complexity raises arousal. The weight below is ours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

ANGULAR_ON_VALENCE, ANGULAR_ON_AROUSAL, COMPLEX_ON_AROUSAL = -0.30, 0.15, 0.30  # ours

# Mean and standard deviation over 6,000 compositions of 32 pixels, seed 1; fixed, so that a label depends on
# its own image only. Brightness and saturation are HSV's value and saturation, averaged over the pixels.
BRIGHTNESS, SATURATION = (0.567, 0.232), (0.450, 0.251)
ANGULAR, COMPLEX = (0.507, 0.366), (0.493, 0.299)
SPREAD = 0.6  # gain before tanh, so that labels fill most of [-1, 1]

MAX_SHAPES = 24
SUPERSAMPLING = 3  # drawn larger and averaged down: Pillow's shapes have hard edges


def compose(count: int, image_size: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """`count` compositions and their valence and arousal.

    Args:
        count: N.
        image_size: side in pixels, at least 8.
        seed: image i depends on (seed, i) only, so a longer set begins with the shorter one.

    Returns:
        Images uint8 (N, H, W, 3), and labels float32 (N, 2) in [-1, 1].
    """
    if count < 1 or image_size < 8:
        raise ValueError(f"count {count} must be at least 1, and image_size {image_size} at least 8 pixels")
    images = np.empty((count, image_size, image_size, 3), np.uint8)
    contours = np.empty((count, 2))
    for index in range(count):
        images[index], contours[index] = draw(np.random.default_rng([seed, index]), image_size)
    return images, label(images, contours[:, 0], contours[:, 1])


def label(images: NDArray[np.uint8], angular: NDArray[np.float64], complexity: NDArray[np.float64]) -> NDArray[np.float32]:
    """Valence and arousal (N, 2) in [-1, 1] of images (N, H, W, 3) and their contours.

    Args:
        images: brightness and saturation are measured on them: what is seen counts, not what was intended.
        angular: share of the shapes with corners (N,), in [0, 1].
        complexity: log of the number of shapes over the log of the most (N,), in [0, 1].
    """
    highest, lowest = images.max(axis=3) / 255, images.min(axis=3) / 255
    value = highest.mean(axis=(1, 2))
    saturation = ((highest - lowest) / np.maximum(highest, 1e-6)).mean(axis=(1, 2))
    b, s = _standardise(value, BRIGHTNESS), _standardise(saturation, SATURATION)
    a, c = _standardise(angular, ANGULAR), _standardise(complexity, COMPLEX)
    valence = 0.69 * b + 0.22 * s + ANGULAR_ON_VALENCE * a
    arousal = -0.31 * b + 0.60 * s + ANGULAR_ON_AROUSAL * a + COMPLEX_ON_AROUSAL * c
    return np.tanh(SPREAD * np.stack([valence, arousal], axis=1)).astype(np.float32)


def _standardise(values: NDArray[np.float64], constants: tuple[float, float]) -> NDArray[np.float64]:
    return (values - constants[0]) / constants[1]


def draw(rng: np.random.Generator, image_size: int) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """One composition uint8 (H, W, 3), and (share of angular shapes, complexity), both in [0, 1]."""
    side = image_size * SUPERSAMPLING
    count = round(MAX_SHAPES ** rng.random())
    angular_share = rng.random()
    hues = rng.random() + rng.choice([0.0, 0.08, 0.33, 0.5]) * np.arange(3)  # any hue: it carries no label
    mood = rng.uniform((0.05, 0.2), (0.9, 0.95))  # saturation and brightness about which the palette lies

    def colour() -> tuple[int, int, int]:
        hue = rng.choice(hues) + rng.normal(0, 0.02)
        saturation, value = np.clip(mood + rng.normal(0, 0.18, size=2), 0, 1)
        return _rgb(hue, saturation, value)

    canvas = Image.new("RGB", (side, side), colour())
    if rng.random() < 0.5:
        ramp = Image.linear_gradient("L").resize((side, side)).rotate(90 * int(rng.integers(4)))
        canvas.paste(Image.new("RGB", (side, side), colour()), mask=ramp)
    brush = ImageDraw.Draw(canvas)
    angular = 0
    for _ in range(count):
        centre, radius = rng.random(2) * side, side * (0.07 + 0.4 * rng.random() / count**0.35)
        if rng.random() < angular_share:
            angular += 1
            corners = _corners(rng, radius)
        else:
            corners = _curve(rng, radius)
        brush.polygon([(float(x), float(y)) for x, y in centre + corners], fill=colour())
    small = canvas.resize((image_size, image_size), Image.Resampling.BOX)
    return np.asarray(small), (angular / count, float(np.log(count) / np.log(MAX_SHAPES)))


def _corners(rng: np.random.Generator, radius: float) -> NDArray[np.float64]:
    """A triangle, a shard or a star: (M, 2) around the origin."""
    points = int(rng.integers(3, 9))
    angles = rng.random() * 2 * np.pi + np.linspace(0, 2 * np.pi, points, endpoint=False)
    radii = radius * rng.uniform(0.6, 1.2, size=points)
    if points >= 6:
        radii[1::2] *= 0.4  # a star
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]


def _curve(rng: np.random.Generator, radius: float) -> NDArray[np.float64]:
    """An ellipse or a soft blob: (M, 2) around the origin."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radii = radius * (1 + 0.2 * rng.random() * np.sin(int(rng.integers(2, 5)) * angles + rng.random() * 6))
    points = np.stack([np.cos(angles), np.sin(angles) * rng.uniform(0.4, 1.0)], axis=1) * radii[:, None]
    turn = rng.random() * np.pi
    return points @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])


def _rgb(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    import colorsys

    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)
