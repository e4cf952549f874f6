"""What a reader of any image set gives: images and their labels, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emoreg.errors import UserError
from emoreg.images.files import File


@dataclass(frozen=True)
class Table:
    """Images, not yet decoded (or drawn in memory), and one label each.

    Args:
        name: of the set, for messages and records.
        images: N files, or uint8 pixels (N, H, W, 3).
        labels: (N,) int64 class indices, or (N, E) float32 (see `EmotionSpace`).
    """

    name: str
    images: Sequence[File] | NDArray[np.uint8]
    labels: NDArray[np.int64] | NDArray[np.float32]

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise ValueError(f"{self.name}: {len(self.images)} images but {len(self.labels)} labels")
        if len(self.images) == 0:
            raise UserError(f"{self.name} holds no images")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: NDArray[np.int64]) -> Table:
        """The table of these rows, in this order."""
        images = self.images[rows] if isinstance(self.images, np.ndarray) else [self.images[row] for row in rows]
        return Table(self.name, images, self.labels[rows])
