"""The classification sets of torchvision, by the lower-case name of its class: svhn, stl10, flowers102, food101, ...

torchvision downloads and checks the files; the table below says which attributes hold labels, names and images.

A published validation split is used as such. Ours: a set without a labelled test split is scored on its validation
split, or else on a fifth of each class, always the same.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emoreg.data.images.files import File
from emoreg.data.images.packed import is_pack
from emoreg.data.images.table import Images, Item, Table
from emoreg.data.targets.downloads import is_downloading, open_or_download
from emoreg.data.targets.subsets import hold_out_fifth
from emoreg.data.targets.target import Target
from emoreg.errors import SettingError, UserError, shortened

Options = Mapping[str, Any]  # arguments of a torchvision class
# The training part, perhaps a validation part, and the test part; or a single part, of which a fifth is for testing.
Parts = Sequence[Options]


@dataclass(frozen=True)
class _Set:
    """How to read one set. A part is an instance of the torchvision class.

    Args:
        name: name of the torchvision class.
        parts: arguments to open the parts.
        labels: attribute of a part with the labels (N,), or with N pairs (image, label); or a function of the part.
        classes: attribute with the class names, or the names themselves; None if the classes are numbers.
        images: attribute with the pixels, an array (N, H, W), (N, H, W, 3) or (N, 3, H, W), or with a list of paths or
            of pairs (path, label); or a function of the part. None if images are fetched by indexing the part.
        can_download: whether the class takes the argument `download`.
        is_unsorted: whether images and classes come in the file system's order, and have to be sorted.
    """

    name: str
    parts: Parts
    labels: str | Callable[[Any], Any]
    classes: str | tuple[str, ...] | None
    images: str | Callable[[Any], Any] | None
    can_download: bool = True
    is_unsorted: bool = False


def _splits(*names: str, argument: str = "split", **others: Any) -> Parts:
    return [{argument: name, **others} for name in names]


def _flags(**others: Any) -> Parts:
    return [{"train": True, **others}, {"train": False, **others}]


def _only(**options: Any) -> Parts:
    return [options]


def _omniglot_paths(part: Any) -> list[Path]:
    folder = Path(part.target_folder)
    return [folder / part._characters[label] / name for name, label in part._flat_character_images]


def _inaturalist_labels(part: Any) -> list[int]:
    return [label for label, _ in part.index]


def _inaturalist_paths(part: Any) -> list[Path]:
    return [Path(part.root, part.all_categories[label], name) for label, name in part.index]


def _pcam_file(part: Any, kind: str) -> Path:
    return Path(part._base_folder / part._FILES[part._split][kind][0])


def _pcam_labels(part: Any) -> NDArray[np.uint8]:
    return _read_h5(_pcam_file(part, "targets"), "y", slice(None)).ravel()


FER2013 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")  # Goodfellow et al. 2013, by label
_TABLE = (
    _Set("MNIST", _flags(), "targets", "classes", "data"),
    _Set("FashionMNIST", _flags(), "targets", "classes", "data"),
    _Set("KMNIST", _flags(), "targets", "classes", "data"),
    _Set("QMNIST", _flags(), "targets", "classes", "data"),
    _Set("EMNIST", _flags(split="balanced"), "targets", "classes", "data"),  # 47 classes of equal size
    _Set("USPS", _flags(), "targets", None, "data"),
    _Set("SEMEION", _only(), "labels", None, "data"),
    _Set("SVHN", _splits("train", "test"), "labels", None, "data"),
    _Set("STL10", _splits("train", "test"), "labels", "classes", "data"),
    _Set("Food101", _splits("train", "test"), "_labels", "classes", "_image_files"),
    _Set("StanfordCars", _splits("train", "test"), "_samples", "classes", "_samples"),
    _Set("FGVCAircraft", _splits("trainval", "test"), "_labels", "classes", "_image_files"),
    _Set("DTD", _splits("train", "val", "test"), "_labels", "classes", "_image_files"),
    _Set("Flowers102", _splits("train", "val", "test"), "_labels", "classes", "_image_files"),
    _Set("RenderedSST2", _splits("train", "val", "test"), "_samples", "classes", "_samples"),
    _Set("Country211", _splits("train", "valid", "test"), "targets", "classes", "samples"),
    _Set("EuroSAT", _only(), "targets", "classes", "samples"),
    _Set("SUN397", _only(), "_labels", "classes", "_image_files", is_unsorted=True),
    _Set("OxfordIIITPet", _splits("trainval", "test"), "_labels", "classes", None),
    _Set("GTSRB", _splits("train", "test"), "_samples", None, None),
    _Set("PCAM", _splits("train", "val", "test"), _pcam_labels, None, None),
    _Set("FER2013", _splits("train", "test"), "_samples", FER2013, None, can_download=False),
    _Set("Caltech101", _only(), "y", "categories", None),
    _Set("Caltech256", _only(), "y", "categories", None),
    # The labels of the test split are not published.
    _Set("CLEVRClassification", _splits("train", "val"), "_labels", None, "_image_files"),
    _Set("Imagenette", _splits("train", "val"), "_samples", "classes", "_samples"),
    _Set("ImageNet", _splits("train", "val"), "targets", "classes", "samples", can_download=False),
    _Set("Places365", _splits("train-standard", "val", small=True), "targets", "classes", "imgs"),  # 256 pixels
    _Set(
        "INaturalist",
        _splits("2021_train", "2021_valid", argument="version"),
        _inaturalist_labels,
        "all_categories",
        _inaturalist_paths,
        is_unsorted=True,
    ),
    # The published splits share no class: they are for verification and one-shot learning.
    _Set("LFWPeople", _only(split="10fold"), "targets", "class_to_idx", "data"),
    _Set(
        "Omniglot", _only(background=True), "_flat_character_images", "_characters", _omniglot_paths, is_unsorted=True
    ),
)
SETS: Mapping[str, _Set] = {row.name.lower(): row for row in _TABLE}


def download_note(key: str, root: str | None) -> str | None:
    """A line about the download that reading the set would start; None if its files can be read, or must be put there.

    Finding out takes as long as opening the set, and downloads nothing.
    """
    folder = Path(root or "data")
    if folder.is_file() or is_pack(folder) or not SETS[key].can_download:
        return None
    if folder.exists() and not is_downloading(key, folder):
        with contextlib.suppress(Exception):  # on missing files, or anything that parsers raise on damaged ones
            for options in SETS[key].parts:
                _constructor(key, folder, options)(download=False)
            return None
    return f"{key} cannot be read from {folder}: the first run downloads it there, if torchvision can; size unknown"


def read_torchvision(key: str, root: str | None) -> Target:
    """Read a set, with its validation split if one is published; images are decoded when needed.

    Args:
        key: name in `SETS`.
        root: folder in which torchvision keeps the set, or into which it is downloaded (checked by MD5, if torchvision
            knows it). None means "data".

    Raises:
        UserError: the set is missing and cannot be downloaded, or is incomplete.
    """
    folder = Path(root or "data")
    if folder.is_file():
        raise SettingError(
            "target.root",
            f"{folder} is a file, but {key} is read from the folder into which torchvision downloads it (images in a "
            "zip: target.name folder)",
        )
    options = SETS[key].parts
    parts = _open(key, folder)
    if not all(map(len, parts)):
        raise UserError(f"{key} in {folder} is incomplete: a split has no images")
    classes, labels = _index_classes(key, folder, parts, [_labels(key, part) for part in parts])
    tables = []
    for arguments, part, part_labels in zip(options, parts, labels, strict=True):
        title = "/".join([key, *(value for value in arguments.values() if isinstance(value, str))])
        table = Table(key, _images(key, part, title, folder), part_labels)
        if SETS[key].is_unsorted:
            table = table.take(np.argsort([str(image) for image in table.images]))
        tables.append(table)
    if len(tables) == 1:
        return Target(*hold_out_fifth(tables[0]), classes)
    train, *validation, test = tables
    has_test = _is_test(options[-1])
    return Target(train, test, classes, validation[0] if validation else None, has_published_test=has_test)


def _constructor(key: str, folder: Path, options: Options) -> Callable[..., Any]:
    from torchvision import datasets

    return functools.partial(getattr(datasets, SETS[key].name), str(folder), **options)


def _open(key: str, folder: Path) -> list[Any]:
    """Open all parts of a set together: of an interrupted download one part may be whole."""
    parts = [_constructor(key, folder, options) for options in SETS[key].parts]
    try:
        if not SETS[key].can_download:
            return [part() for part in parts]
        return open_or_download(key, folder, lambda download: [part(download=download) for part in parts])
    except Exception as error:  # parsers of text, JSON, MAT, ... may raise anything on a damaged file
        reason = shortened(str(error), 300) or type(error).__name__
        raise UserError(
            f"{key} can neither be read from {folder} nor downloaded there ({reason}). Put its files there as "
            f"torchvision.datasets.{SETS[key].name} expects them, or give a folder or zip of <split>/<class>/*.jpg, "
            "with the name folder and its root"
        ) from None


def _is_test(options: Options) -> bool:
    """Whether the test part is a published test split; for some sets it is the validation split."""
    return not any(isinstance(value, str) and "val" in value for value in options.values())


def _values(part: Any, source: str | Callable[[Any], Any]) -> Any:
    return source(part) if callable(source) else getattr(part, source)


def _labels(key: str, part: Any) -> NDArray[np.int64]:
    """Labels (N,) as stored in the set."""
    values = _values(part, SETS[key].labels)
    if isinstance(values[0], tuple):
        values = [label for _, label in values]
    try:
        labels = np.asarray(values).astype(np.int64)
    except TypeError:  # a label is None
        raise UserError(
            f"{key}: there are images without a label in {part.root}; torchvision.datasets.{SETS[key].name} says "
            "which of the published files hold them"
        ) from None
    return labels if labels.ndim == 1 else labels[:, 0]  # the first column of QMNIST's labels is the class


def _index_classes(
    key: str, folder: Path, parts: Sequence[Any], labels: Sequence[NDArray[np.int64]]
) -> tuple[tuple[str, ...], Sequence[NDArray[np.int64]]]:
    """The class names, and the labels as indices into them."""
    names, *others = [_class_names(key, part) for part in parts]
    if any(other != names for other in others):
        raise UserError(f"{key} in {folder} is incomplete: its splits have different classes")
    if names is None:
        values = np.unique(np.concatenate(labels))
        return tuple(map(str, values)), [np.searchsorted(values, part) for part in labels]
    if min(map(np.min, labels)) < 0 or max(map(np.max, labels)) >= len(names):
        raise UserError(f"{key} in {folder} is incomplete: there are labels beyond its {len(names)} classes")
    if SETS[key].is_unsorted:
        rank = np.argsort(np.argsort(names))
        return tuple(sorted(names)), [rank[part] for part in labels]
    return tuple(names), labels


def _class_names(key: str, part: Any) -> list[str] | None:
    """Distinct names in the order of the labels; None for a set whose classes are numbers."""
    classes = SETS[key].classes
    if isinstance(classes, str):
        classes = getattr(part, classes, None)  # older releases of torchvision have no names for Flowers102
    if classes is None:
        return None
    names = [str(name[0] if isinstance(name, tuple) else name) for name in classes]  # of a tuple of synonyms, the first
    counts = Counter(names)  # ImageNet has two classes called crane
    return [f"{name} ({label})" if counts[name] > 1 else name for label, name in enumerate(names)]


def _images(key: str, part: Any, title: str, folder: Path) -> Images:
    """The images of a part: pixels (N, H, W, 3), files, or items."""
    source = SETS[key].images
    if source is None:
        fetch = functools.partial(_image, part)
        if key == "pcam":  # a part holds a module, which cannot be pickled for a worker process
            fetch = functools.partial(_pcam_image, _pcam_file(part, "images"))
        return [Item(title, index, fetch) for index in range(len(part))]
    images = _values(part, source)
    if isinstance(images, list):
        paths = [Path(entry[0] if isinstance(entry, tuple) else entry) for entry in images]
        return [File(path.relative_to(folder).as_posix(), folder) for path in paths]
    pixels: NDArray[np.uint8] = np.asarray(images)
    if pixels.ndim == 3:
        return np.broadcast_to(pixels[..., None], (*pixels.shape, 3))  # grey
    return pixels if pixels.shape[-1] == 3 else pixels.transpose(0, 2, 3, 1)


def _image(part: Any, index: int) -> Image.Image:
    """Fetch an image. Thread-safe: these sets open a file by its path, or convert a row of an array."""
    return part[index][0]


def _pcam_image(path: Path, index: int) -> Image.Image:
    return Image.fromarray(_read_h5(path, "x", index))


def _read_h5(path: Path, dataset: str, rows: int | slice) -> NDArray[np.uint8]:
    import h5py  # torchvision requires it for this set; it serialises threads by a lock

    with h5py.File(path) as file:
        return np.asarray(file[dataset][rows])
