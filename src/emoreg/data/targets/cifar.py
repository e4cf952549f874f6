"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images")."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from emoreg.data.images.table import Table
from emoreg.data.targets.folder import read_folder
from emoreg.errors import UserError


def read_cifar(name: str, root: str | None) -> tuple[Table, Table, tuple[str, ...]]:
    """Training table, test table and class names.

    Args:
        name: cifar10 or cifar100.
        root: a folder or zip of `<split>/<class>/*.jpg|png`; or the folder of the published archive, where
            torchvision downloads it (checked by MD5) if it is not there. None is "data".

    Raises:
        UserError: the set is not there and cannot be downloaded, or is not whole.
    """
    folder = Path(root or "data")
    if root is not None and (zipfile.is_zipfile(folder) or holds_image_folders(folder)):
        train, test, classes = read_folder(folder)
        expected = 10 if name == "cifar10" else 100
        if len(classes) != expected:
            raise UserError(f"{folder} has {len(classes)} classes; {name} has {expected}")
        return train, test, classes

    from torchvision import datasets

    dataset = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    try:
        parts = [dataset(str(folder), train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong checksum is a RuntimeError
        raise UserError(
            f"{name} is not in {folder} and could not be downloaded there ({error}). Without a network: put the "
            f"published archive ({dataset.filename}) into {folder}, or set target.root to a folder or zip of "
            "<split>/<class>/*.png"
        ) from None
    tables = [Table(name, part.data, np.asarray(part.targets, np.int64)) for part in parts]
    return tables[0], tables[1], tuple(parts[0].classes)


def holds_image_folders(folder: Path) -> bool:
    """Whether the images are in folders, rather than in the published archive."""
    return any((folder / prefix / "train").is_dir() for prefix in (".", "cifar10", "cifar100"))
