"""Assertions that narrow the type of a value."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from emoreg.data.images.files import File
from emoreg.data.images.table import Images

T = TypeVar("T")


def present(value: T | None) -> T:
    assert value is not None
    return value


def pixels(images: Images) -> NDArray[np.uint8]:
    assert isinstance(images, np.ndarray)
    return images


def files(images: Images) -> list[File]:
    narrowed = [image for image in images if isinstance(image, File)]
    assert len(narrowed) == len(images)
    return narrowed
