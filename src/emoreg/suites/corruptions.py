"""Accuracy on damaged images: the 15 corruptions of Hendrycks & Dietterich 2019 at 5 severities, made in memory.

By imagecorruptions (Michaelis et al. 2019), whose constants are those of ImageNet-C. They damage an image of 32 pixels
more than those of CIFAR-C do, so the figures compare arms, and not with published mean corruption errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from emoreg.suites.scored import MORE, Scored
from emoreg.suites.subject import Subject, checksum_of, drawn, with_pixels

CORRUPTIONS: tuple[str, ...] = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
SEVERITIES = (1, 2, 3, 4, 5)
LEAST_SIZE = 32  # pixels a side that imagecorruptions takes
OWN_SEED = ("impulse_noise", "glass_blur")  # which draw from a seed of their own, and not from NumPy's generator
KEPT_BYTES = 2**29  # of damaged images that a process keeps for its next run

Pixels = NDArray[np.uint8]

_kept: dict[tuple[str, int], dict[tuple[str, int], Pixels]] = {}  # of one set of images


def check_size(image_size: int, where: str) -> None:
    """UserError for images that are too small to be damaged.

    Args:
        image_size: pixels a side.
        where: whose images these are, for the message.
    """
    if image_size < LEAST_SIZE:
        raise UserError(
            f"{where}: corruptions need images of at least {LEAST_SIZE} pixels a side, not {image_size} "
            "(target.image_size): leave the suite out, or train at a larger size"
        )


def score(subject: Subject, options: CorruptionOptions) -> Scored:
    """Accuracy on damaged images.

    Returns:
        mean_accuracy, over all corruptions and severities; clean_accuracy, on the same images undamaged; severity_1 to
        severity_5, over all corruptions; and one of each corruption, over its severities.

    Raises:
        UserError: the library is not installed; images below 32 pixels.
    """
    check_size(subject.recipe.target.image_size, str(subject.run.folder))
    images = drawn(subject.scored, options.images, options.seed)
    checksum = checksum_of(images)
    accuracy: dict[tuple[str, int], float] = {}
    with subject.progress.task(f"{subject.run.folder.name}: corruptions", len(CORRUPTIONS) * 5, "sets") as advance:
        for key, pixels in _damaged(images, checksum, options.seed):
            own = with_pixels(images, torch.from_numpy(pixels).permute(0, 3, 1, 2))
            accuracy[key] = subject.answers(own).accuracy
            advance(1)
    figures = {
        "mean_accuracy": fmean(accuracy.values()),
        "clean_accuracy": subject.answers(images).accuracy,
        **{f"severity_{level}": fmean(accuracy[name, level] for name in CORRUPTIONS) for level in SEVERITIES},
        **{name: fmean(accuracy[name, level] for level in SEVERITIES) for name in CORRUPTIONS},
    }
    return Scored(figures, f"{len(images):,} {subject.name}, each damaged in 75 ways", {subject.name: checksum})


def _damaged(images: ImageSet, checksum: str, seed: int) -> Iterator[tuple[tuple[str, int], Pixels]]:
    """(corruption, severity) with the images, uint8 (N, S, S, 3); kept for the next run if they are few enough."""
    size = len(images) * images.image_size**2 * 3 * len(CORRUPTIONS) * len(SEVERITIES)
    kept = _kept.get((checksum, seed))
    if kept is None:
        _kept.clear()
        kept = _kept[checksum, seed] = {}
    whole = [
        pixels.permute(0, 2, 3, 1).cpu().numpy() for pixels, _, _ in images.batches(torch.arange(len(images)), 256)
    ]
    clean = np.concatenate(whole)
    for name in CORRUPTIONS:
        for severity in SEVERITIES:
            pixels = kept.get((name, severity))
            if pixels is None:
                pixels = damage(clean, name, severity, seed)
                if size <= KEPT_BYTES:
                    kept[name, severity] = pixels
            yield (name, severity), pixels


def damage(images: Pixels, name: str, severity: int, seed: int) -> Pixels:
    """Images with one corruption; what is drawn for one depends on the seed and its place alone.

    Args:
        images: uint8 (N, S, S, 3).
        name: of CORRUPTIONS.
        severity: 1 to 5.
        seed: of the draws.
    """
    with importing("imagecorruptions", "the suite corruptions", MORE):
        from imagecorruptions import corrupt
    places: Sequence[int] = range(len(images))
    out = np.empty_like(images)
    for place in places:
        own: dict[str, Any] = {}
        if name in OWN_SEED:
            own["seed"] = derive_seed(seed, "corruption", name, severity, place, "own") % 2**32
        with numpy_drawn_from(seed, "corruption", name, severity, place):
            out[place] = corrupt(images[place], severity, name, **own)
    return out
