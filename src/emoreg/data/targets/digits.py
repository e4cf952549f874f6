"""Handwritten digits (Alpaydin & Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI), embedded.

1,797 8x8 images with 17 grey levels, which come with scikit-learn: a target that needs no download.
"""

from __future__ import annotations

import numpy as np

from emoreg.data.images.splits import split_rows
from emoreg.data.images.table import Table
from emoreg.data.targets.target import Target

CLASSES = tuple("0123456789")


def read_digits() -> Target:
    """Read the digits. The test share (1/4) is ours, because the embedded set has no published split."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = (digits.images * (255 / 16)).round().astype(np.uint8)  # (1797, 8, 8), 0..16 in the file
    table = Table("digits", np.repeat(grey[..., None], 3, axis=-1), digits.target.astype(np.int64))
    train, test = split_rows(table.labels, share=0.25, seed=0)
    return Target(table.take(train), table.take(test), CLASSES)
