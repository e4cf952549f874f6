"""Any images in folders: `[<split>/]<class>/*.jpg|png`, in a folder or in a zip."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from emoreg.data.images.files import File, is_image, list_files
from emoreg.data.images.splits import split_rows
from emoreg.data.images.table import Table
from emoreg.errors import UserError, nearest

TRAIN_NAMES = ("train", "training")
VALIDATION_NAMES = ("val", "validation", "valid")
TEST_NAMES = ("test", "testing", *VALIDATION_NAMES)  # the first that exists is the test split


def read_folder(root: str | Path) -> tuple[Table, Table, tuple[str, ...]]:
    """Training table, test table and class names (sorted) of a folder or zip.

    The class is the name of an image's folder, the split that of the folder above. Without splits a fifth of
    each class, always the same, becomes the test split.

    Raises:
        UserError: nothing at `root`, no images, fewer than two classes, a class without images in a split.
    """
    images, by_split = _list_images(root)
    classes = tuple(sorted({_class_of(image) for image in images}))
    if len(classes) < 2:
        raise UserError(f"{root} holds one class only, '{classes[0]}'; a classifier needs two")

    train = next((by_split[name] for name in TRAIN_NAMES if name in by_split), None)
    test = next((by_split[name] for name in TEST_NAMES if name in by_split), None)
    if train is not None and test is not None:
        _refuse_empty_classes(Path(root), "train", train, classes)
        _refuse_empty_classes(Path(root), "test", test, classes)
        return _table(root, train, classes), _table(root, test, classes), classes
    if train is not None or test is not None:
        missing = "test" if test is None else "train"
        raise UserError(f"{root} has a split '{'train' if missing == 'test' else 'test'}' but no folder '{missing}'")
    _refuse_empty_classes(Path(root), "", images, classes)
    table = _table(root, images, classes)
    train_rows, test_rows = split_rows(table.labels, share=0.2, seed=0)
    return table.take(train_rows), table.take(test_rows), classes


def read_validation(root: str | Path) -> tuple[Table, tuple[str, ...]] | None:
    """The validation split and class names, as `read_folder` has them; None without one besides a test split.

    Raises:
        UserError: as `read_folder`; a class without images in it.
    """
    images, by_split = _list_images(root)
    name = next((name for name in VALIDATION_NAMES if name in by_split), None)
    if name is None or not any(name in by_split for name in TEST_NAMES if name not in VALIDATION_NAMES):
        return None
    classes = tuple(sorted({_class_of(image) for image in images}))
    _refuse_empty_classes(Path(root), name, by_split[name], classes)
    return _table(root, by_split[name], classes), classes


def read_for_scoring(root: str | Path, classes: tuple[str, ...], skip_others: bool = False) -> Table:
    """The test split, or all images where there are no splits, labelled by their place in `classes`.

    Args:
        root: folder or zip.
        classes: the classifier's.
        skip_others: skip images of classes that are not in `classes`.

    Raises:
        UserError: as `read_folder`; a class that is not in `classes` (the nearest is named), or none that is.
    """
    images, by_split = _list_images(root)
    images = next((by_split[name] for name in TEST_NAMES if name in by_split), images)
    known = [image for image in images if _class_of(image) in classes]
    if not known or (len(known) < len(images) and not skip_others):
        image = next(image for image in images if _class_of(image) not in classes)
        raise UserError(f"{image}: no class '{_class_of(image)}' in this run{nearest(_class_of(image), classes)}")
    return _table(root, known, classes)


def _list_images(root: str | Path) -> tuple[list[File], dict[str, list[File]]]:
    """All images in class folders, and the same grouped by the folder above."""
    images = [f for f in list_files(root) if is_image(f.name) and "/" in f.name]
    if not images:
        raise UserError(f"{root} holds no images as [<split>/]<class>/*.jpg|png")
    by_split: dict[str, list[File]] = defaultdict(list)
    for image in images:
        parts = image.name.split("/")
        by_split[parts[-3].lower() if len(parts) > 2 else ""].append(image)
    return images, by_split


def _class_of(image: File) -> str:
    return image.name.split("/")[-2]


def _table(root: str | Path, images: list[File], classes: tuple[str, ...]) -> Table:
    index = {name: number for number, name in enumerate(classes)}
    return Table(Path(root).stem, images, np.array([index[_class_of(image)] for image in images], np.int64))


def _refuse_empty_classes(root: Path, split: str, images: list[File], classes: tuple[str, ...]) -> None:
    """UserError for a class without images in this split, or for an empty class folder."""
    present = {_class_of(image) for image in images}
    for name in classes:
        if name not in present:
            raise UserError(f"{root}: class '{name}' has no images in the split '{split}'")
    if root.is_dir():  # an empty folder holds no files, so it is not in the list of files
        for image in images:
            for sibling in sorted((root / image.name).parent.parent.iterdir()):
                if sibling.is_dir() and not sibling.name.startswith(".") and sibling.name not in present:
                    raise UserError(f"{sibling}: class '{sibling.name}' has no images")
            break
