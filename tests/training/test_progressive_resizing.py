from __future__ import annotations

import numpy as np

from emoreg.config.training import TrainingSettings
from emoreg.training.progressive_resizing import progressive_size


def test_images_grow_to_their_size_and_keep_it() -> None:
    asked = TrainingSettings(epochs=10, initial_scale=0.5)
    sizes = [progressive_size(32, asked, done) for done in np.linspace(0, 10, 101)]
    assert sizes[0] == 16 and sizes == sorted(sizes) and set(sizes) == {16, 20, 24, 28, 32}
    assert set(sizes[80:]) == {32}
    assert {progressive_size(30, TrainingSettings(epochs=10), done) for done in (0.0, 5.0)} == {30}
