"""The content of an explanation, before it is laid out as a page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from emoreg.data.images.image_set import ImageSet
from emoreg.inference.explain.effect import ClassEffect, Floats, SplitResponses
from emoreg.inference.explain.projection import Projection
from emoreg.inference.explain.saliency import SaliencyMap
from emoreg.inference.predict import Prediction


@dataclass(frozen=True)
class ExplainedImage:
    """One image: its prediction and the saliency of each branch."""

    name: str
    note: str  # for the caption; may be empty
    picture: NDArray[np.uint8]  # (H, H, 3): the square that the network sees, at a higher resolution
    prediction: Prediction
    maps: tuple[SaliencyMap, ...]


@dataclass(frozen=True)
class ExplainedSplit:
    """Analysis of N labelled images.

    Args:
        images: the images.
        responses: responses to all of them.
        effects: effect of the emotional response on each class, the largest first; empty without an emotional branch.
        rows: (M,): the images that are projected.
        felt: (M, ΣE): the emotion read from the projected images; None without a readout.
        is_own: whether they are the run's own test images.
        trained_on: number of images that the run was trained on; None if it has no record of these.
        projections: plain and emotional features of the M images, then of the explained images.
    """

    images: ImageSet
    responses: SplitResponses
    effects: list[ClassEffect]
    rows: NDArray[np.int64]
    felt: Floats | None
    is_own: bool
    trained_on: int | None
    projections: tuple[Projection, ...] = ()

    @property
    def kind(self) -> str:
        """What one of the images is called."""
        return "test image" if self.is_own else "image"

    def pixels(self, rows: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Return images as the network sees them, uint8 (S, S, 3) each."""
        batches = self.images.batches(torch.from_numpy(rows), max(len(rows), 1))
        return [pixels.cpu().numpy() for batch, *_ in batches for pixels in batch.permute(0, 2, 3, 1)]
