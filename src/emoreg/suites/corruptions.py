"""Accuracy on damaged images: the 15 corruptions of Hendrycks & Dietterich 2019 at 5 severities, made in memory.

By imagecorruptions (Michaelis et al. 2019), with the constants of ImageNet-C. They damage images of 32 pixels more than
those of CIFAR-C, so the figures can be compared between arms, but not with published mean corruption errors.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emoreg.data.images.image_set import ImageSet
from emoreg.errors import UserError
from emoreg.runtime.optional import importing
from emoreg.runtime.seeding import derive_seed, numpy_drawn_from
from emoreg.suites.options import CorruptionOptions
from emoreg.suites.subject import MORE, Scored, Subject, checksum_of, drawn

CORRUPTIONS: tuple[str, ...] = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
SEVERITIES = (1, 2, 3, 4, 5)
MIN_SIZE = 32  # pixels a side, for imagecorruptions
OWN_SEED = ("impulse_noise", "glass_blur")  # these take a seed instead of drawing from NumPy's generator
MAX_CACHE_BYTES = 2**29  # of damaged images that a process keeps for its next run

Pixels = NDArray[np.uint8]

# Damaged images by corruption and severity; for one set of images, by its checksum and the seed.
_cache: dict[tuple[str, int], dict[tuple[str, int], Pixels]] = {}


def check_size(image_size: int, where: str) -> None:
    """Raise UserError for images that are too small to be damaged.

    Args:
        image_size: pixels a side.
        where: run or target of the images, for the message.
    """
    if image_size < MIN_SIZE:
        raise UserError(
            f"{where}: corruptions need images of at least {MIN_SIZE} pixels a side, not {image_size} "
            "(target.image_size): leave the suite out, or train at a larger size"
        )


def score(subject: Subject, options: CorruptionOptions) -> Scored:
    """Compute the accuracy on damaged images.

    Returns:
        mean_accuracy, the mean over all corruptions and severities; clean_accuracy, of the same images undamaged;
        severity_1 to severity_5, means over all corruptions; and the mean over severities of each corruption.

    Raises:
        UserError: the library is not installed; images are smaller than 32 pixels.
    """
    check_size(subject.recipe.target.image_size, str(subject.run.folder))
    images = drawn(subject.scored, options.images, options.seed)
    checksum = checksum_of(images)
    accuracy: dict[tuple[str, int], float] = {}
    with subject.progress.task(f"{subject.run.folder.name}: corruptions", len(CORRUPTIONS) * 5, "sets") as advance:
        for key, pixels in _damaged(images, checksum, options.seed):
            held = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(images.labels.device)
            accuracy[key] = subject.predict(dataclasses.replace(images, pixels=held)).accuracy
            advance(1)
    figures = {
        "mean_accuracy": fmean(accuracy.values()),
        "clean_accuracy": subject.predict(images).accuracy,
        **{f"severity_{level}": fmean(accuracy[name, level] for name in CORRUPTIONS) for level in SEVERITIES},
        **{name: fmean(accuracy[name, level] for level in SEVERITIES) for name in CORRUPTIONS},
    }
    return Scored(figures, f"{len(images):,} {subject.name}, each damaged in 75 ways", {subject.name: checksum})


def _damaged(images: ImageSet, checksum: str, seed: int) -> Iterator[tuple[tuple[str, int], Pixels]]:
    """Yield (corruption, severity) and the images, uint8 (N, S, S, 3); cached for the next run if they are small."""
    size = len(images) * images.image_size**2 * 3 * len(CORRUPTIONS) * len(SEVERITIES)
    if (checksum, seed) not in _cache:
        _cache.clear()
    cached = _cache.setdefault((checksum, seed), {})
    batches = images.batches(torch.arange(len(images)), 256)
    clean = np.concatenate([pixels.permute(0, 2, 3, 1).cpu().numpy() for pixels, _, _ in batches])
    for key in itertools.product(CORRUPTIONS, SEVERITIES):
        pixels = cached.get(key)
        if pixels is None:
            pixels = damage(clean, *key, seed)
            if size <= MAX_CACHE_BYTES:
                cached[key] = pixels
        yield key, pixels


def damage(images: Pixels, name: str, severity: int, seed: int) -> Pixels:
    """Damage images with one corruption; the random draws for an image depend only on the seed and its place.

    Args:
        images: uint8 (N, S, S, 3).
        name: one of CORRUPTIONS.
        severity: 1 to 5.
        seed: of the draws.
    """
    with importing("imagecorruptions", "the suite corruptions", MORE):
        from imagecorruptions import corrupt
    out = np.empty_like(images)
    for place, image in enumerate(images):
        options: dict[str, Any] = {}
        if name in OWN_SEED:
            options["seed"] = derive_seed(seed, "corruption", name, severity, place, "own") % 2**32
        with numpy_drawn_from(seed, "corruption", name, severity, place):
            out[place] = corrupt(image, severity, name, **options)
    return out
