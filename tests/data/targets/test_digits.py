from __future__ import annotations

import numpy as np

from emoreg.data.targets.digits import read_digits
from narrow import pixels


def test_each_of_1797_digits_occurs_once_and_every_class_is_in_both_splits() -> None:
    target = read_digits()
    assert (len(target.train), len(target.test)) == (1348, 449)
    for part in (target.train, target.test):
        images = pixels(part.images)
        assert images[0].shape == (8, 8, 3) and images.dtype == np.uint8
        assert images.min() == 0 and images.max() == 255
        assert set(part.labels.tolist()) == set(range(10))
