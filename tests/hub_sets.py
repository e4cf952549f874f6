"""Sets as `datasets` writes them, with images of one shade each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

import extras

datasets = extras.load("hub", "datasets")


def split_of(shades: Sequence[int], columns: Mapping[str, tuple[Any, Sequence[Any]]]) -> Any:
    """A split of images as bright as their shades, with columns: (feature, values) by name. May replace the images."""
    images = [Image.new("RGB", (8, 8), (shade,) * 3) for shade in shades]
    every = {"image": (datasets.Image(), images), **columns}
    features = datasets.Features({name: feature for name, (feature, _) in every.items()})
    return datasets.Dataset.from_dict({name: values for name, (_, values) in every.items()}, features=features)


def saved(root: Path, splits: Mapping[str, Any]) -> Path:
    """The folder of a set on disk."""
    datasets.DatasetDict(splits).save_to_disk(root)
    return root
