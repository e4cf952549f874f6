"""What is found when a classifier is looked into: the parts of the page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from emoreg.data.images.image_set import ImageSet
from emoreg.inference.explain.leaning import Floats, Leaning, Looked
from emoreg.inference.explain.saliency import Saliency
from emoreg.inference.predict import Prediction


@dataclass(frozen=True)
class Explained:
    """One image: what the classifier answers, and where its branches look."""

    name: str
    note: str  # beside the name; may be empty
    picture: NDArray[np.uint8]  # (H, H, 3): the middle square, sharper than the network sees it
    prediction: Prediction
    saliency: tuple[Saliency, ...]


@dataclass(frozen=True)
class Plane:
    """The features of one branch on a plane: those of test images, then those of the images that are explained."""

    title: str
    points: Floats  # (M + m, 2)
    how: str


@dataclass(frozen=True)
class Split:
    """What labelled images say.

    Args:
        name: of the images.
        images: all of them.
        looked: at all of them.
        leanings: of the classes, the highest first; empty without an emotional branch.
        rows: (M,) of those that are in the planes.
        planes: of the plain and of the emotional features.
        felt: (M, ΣE), what the stage-1 heads read out of the same M; None where they cannot.
    """

    name: str
    images: ImageSet
    looked: Looked
    leanings: list[Leaning]
    rows: NDArray[np.int64]
    planes: tuple[Plane, ...]
    felt: Floats | None


def squares(images: ImageSet, rows: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
    """These images as the network sees them, uint8 (S, S, 3) each."""
    batches = images.batches(torch.from_numpy(rows), max(len(rows), 1))
    return [pixels.cpu().numpy() for batch, *_ in batches for pixels in batch.permute(0, 2, 3, 1)]
