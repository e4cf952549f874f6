"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images")."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from emoreg.config.recipe import EDITION
from emoreg.data.images.layout import split_name
from emoreg.data.images.packed import is_pack
from emoreg.data.images.table import Table
from emoreg.data.targets.downloads import open_or_download
from emoreg.data.targets.folder import read_folder
from emoreg.data.targets.target import Target
from emoreg.errors import UserError, shortened

SIZES = {"cifar10": (10, 10_000), "cifar100": (100, 10_000)}  # classes and test images (Krizhevsky 2009)
# The folder that torchvision unpacks, the published archive, and its size in MB.
ARCHIVES = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-python.tar.gz", 170),
    "cifar100": ("cifar-100-python", "cifar-100-python.tar.gz", 169),
}


def download_note(name: str, root: str | None) -> str | None:
    """A line about the download that reading the set would start; None if nothing has to be downloaded."""
    folder = Path(root or "data")
    if zipfile.is_zipfile(folder) or is_pack(folder) or holds_image_folders(name, folder):
        return None
    if _holds_archive(name, folder):
        return None
    return f"{name} is not in {folder}: the first run downloads it there ({ARCHIVES[name][2]} MB)"


def is_whole(name: str, target: Target) -> bool:
    """Whether a target has as many classes and test images as published; False for sets other than CIFAR."""
    return SIZES.get(name) == (len(target.classes), len(target.test))


def read_cifar(name: str, root: str | None, edition: int = EDITION) -> Target:
    """Read CIFAR-10 or CIFAR-100.

    Args:
        name: cifar10 or cifar100.
        root: a folder or zip of `<split>/<class>/*.jpg|png`; or the folder of the published archive, which torchvision
            downloads (checked by MD5) if it is missing. None means "data".
        edition: edition of the run, see `read_folder`.

    Raises:
        UserError: the set is missing and cannot be downloaded, or is incomplete.
    """
    folder = Path(root or "data")
    if root is not None and (zipfile.is_zipfile(folder) or holds_image_folders(name, folder)):
        target, expected = read_folder(folder, edition), SIZES[name][0]
        if len(target.classes) != expected:
            raise UserError(f"{folder} has {len(target.classes)} classes; {name} has {expected}")
        return dataclasses.replace(target, has_published_test=is_whole(name, target))

    from torchvision import datasets

    dataset = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100

    def construct(download: bool) -> list[Any]:
        return [dataset(str(folder), train=train, download=download) for train in (True, False)]

    try:
        parts = open_or_download(name, folder, construct)
    except Exception as error:  # tarfile, zlib and pickle may raise anything on a damaged file
        reason = shortened(str(error), 300) or type(error).__name__
        raise UserError(
            f"{name} can neither be read from {folder} nor downloaded there ({reason}). Without a network: put the "
            f"published archive ({dataset.filename}) into {folder}, or give a folder or zip of "
            "<split>/<class>/*.png as the root"
        ) from None
    tables = [Table(name, part.data, np.asarray(part.targets, np.int64)) for part in parts]
    return Target(tables[0], tables[1], tuple(parts[0].classes), has_published_test=True)


def holds_image_folders(name: str, folder: Path) -> bool:
    """Whether there is a training split in the folder, or in a subfolder named after the set, but no archive of it.

    A folder that names a split among other words, such as `training-photos`, is none, since it may lie beside any set;
    unless another split has the same words, such as `cifar10_test` beside `cifar10_train`.
    """
    if _holds_archive(name, folder):
        return False
    try:
        return any(_holds_splits(each) for each in (folder, folder / name))
    except OSError:
        return False


def _holds_splits(folder: Path) -> bool:
    named = [parsed for path in folder.glob("*/") if (parsed := split_name(path.name)) is not None]
    words = {rest for split, rest in named if split == "train"}
    return "" in words or any(rest in words for split, rest in named if split != "train")


def _holds_archive(name: str, folder: Path) -> bool:
    unpacked, archive, _ = ARCHIVES[name]
    return (folder / unpacked).is_dir() or (folder / archive).is_file()
