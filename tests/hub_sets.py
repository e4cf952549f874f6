"""Image sets in the format of Hugging Face's `datasets`; each image has one shade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

import extras

datasets = extras.load("hub", "datasets")


def split_of(shades: Sequence[int], columns: Mapping[str, tuple[Any, Sequence[Any]]]) -> Any:
    """A split with one grey image per shade.

    Args:
        shades: brightness of each image, 0 to 255.
        columns: (feature, values) of further columns, by name; "image" replaces the images.
    """
    images = [Image.new("RGB", (8, 8), (shade,) * 3) for shade in shades]
    all_columns = {"image": (datasets.Image(), images), **columns}
    features = datasets.Features({name: feature for name, (feature, _) in all_columns.items()})
    return datasets.Dataset.from_dict({name: values for name, (_, values) in all_columns.items()}, features=features)


def saved(root: Path, splits: Mapping[str, Any]) -> Path:
    """Save a set to disk; return its folder."""
    datasets.DatasetDict(splits).save_to_disk(root)
    return root
