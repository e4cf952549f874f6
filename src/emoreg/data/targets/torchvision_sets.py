"""Every classification set that torchvision reads, by the name of its class: svhn, stl10, flowers102, food101, ...

Which sets those are, and how their splits are asked for, follows from the signatures of their classes; what
signatures cannot tell stands in the tables below. torchvision downloads and checks the files.

Ours: a published validation split is trained on, as the images for validation are cut from the training split
of every set (target.validation). A set without a test split that is labelled is scored on its validation split,
or else on a fifth of each class, always the same.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emoreg.data.images.files import File
from emoreg.data.images.table import Images, Item, Table
from emoreg.data.targets.subsets import hold_out_fifth
from emoreg.errors import UserError

Options = Mapping[str, Any]

# Without the argument `download` (to be had by hand only), or with one that is otherwise of segmentation's.
ALSO = ("fer2013", "imagenet", "oxfordiiitpet")
# With the signature of a classification set.
NOT_ONE_CLASS_AN_IMAGE = ("celeba", "lfwpairs", "sbu", "widerface")  # attributes, pairs, captions, boxes

# The parts to train on, and the one to test on; None: a fifth of each class. All others: see `_parts`.
PARTS: Mapping[str, tuple[Sequence[Options], Options | None]] = {
    "country211": ([{"split": "train"}, {"split": "valid"}], {"split": "test"}),
    "dtd": ([{"split": "train"}, {"split": "val"}], {"split": "test"}),
    "flowers102": ([{"split": "train"}, {"split": "val"}], {"split": "test"}),
    "pcam": ([{"split": "train"}, {"split": "val"}], {"split": "test"}),
    "renderedsst2": ([{"split": "train"}, {"split": "val"}], {"split": "test"}),
    # The labels of the test split are not published, or there is none.
    "clevrclassification": ([{"split": "train"}], {"split": "val"}),
    "imagenet": ([{"split": "train"}], {"split": "val"}),
    "imagenette": ([{"split": "train"}], {"split": "val"}),
    "inaturalist": ([{"version": "2021_train"}], {"version": "2021_valid"}),
    "places365": ([{"split": "train-standard"}], {"split": "val"}),
    # The published splits share no class: they are for verification and for one-shot learning.
    "lfwpeople": ([{"split": "10fold"}], None),
    "omniglot": ([{"background": True}], None),
}
# Of sets that come in several forms. balanced: 47 classes of equal size; small: 256 pixels.
FORMS: Mapping[str, Options] = {"emnist": {"split": "balanced"}, "places365": {"small": True}}
# torchvision lists their images, or classes, in whatever order the file system does.
UNSORTED = ("inaturalist", "omniglot", "sun397")
LABELS: Mapping[str, Callable[[Any], Sequence[int] | NDArray[np.uint8]]] = {
    "inaturalist": lambda part: [label for label, _ in part.index],
    "pcam": lambda part: _read_h5(_pcam_file(part, "targets"), "y", slice(None)).ravel(),
}
CLASSES: Mapping[str, Sequence[str]] = {  # Goodfellow et al. 2013, the order of the numbers in fer2013.csv
    "fer2013": ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
}


def classification_sets() -> dict[str, type]:
    """torchvision's classes by their names in lower case."""
    from torchvision import datasets

    found = {}
    for name in datasets.__all__:
        set_class, key = getattr(datasets, name), name.lower()
        if isinstance(set_class, type):
            arguments = _arguments(set_class)
            is_like_one = {"root", "target_transform", "download"} <= arguments.keys() and "transforms" not in arguments
            if key in ALSO or (is_like_one and key not in NOT_ONE_CLASS_AN_IMAGE):
                found[key] = set_class
    return found


def read_torchvision(key: str, root: str | None) -> tuple[Table, Table, tuple[str, ...]]:
    """Training table, test table and class names; images are decoded when they are needed.

    Args:
        key: of `classification_sets`.
        root: the folder in which torchvision keeps the set, or into which it is downloaded (checked by MD5,
            where torchvision knows it). None is "data".

    Raises:
        UserError: the set is not there and cannot be downloaded, or is not whole.
    """
    folder = Path(root or "data").expanduser()
    if folder.is_file():
        raise UserError(
            f"target.root: {folder} is a file, but {key} is read from the folder into which torchvision "
            "downloads it (images in a zip: target.name folder)"
        )
    set_class = classification_sets()[key]
    train, test = _parts(key, set_class)
    asked = [*train, *([] if test is None else [test])]
    parts = [_open(key, set_class, folder, {**FORMS.get(key, {}), **options}) for options in asked]
    labels = [_labels(key, part) for part in parts]
    names, labels = _name(key, folder, parts, labels)
    tables = []
    for options, part, of_part in zip(asked, parts, labels, strict=True):
        where = "/".join([key, *(value for value in options.values() if isinstance(value, str))])
        table = Table(key, _images(key, part, where, folder), of_part)
        if key in UNSORTED:
            table = table.take(np.argsort([str(image) for image in table.images]))
        tables.append(table)
    if test is None:
        return *hold_out_fifth(_join(tables)), names
    return _join(tables[:-1]), tables[-1], names


def _parts(key: str, set_class: type) -> tuple[Sequence[Options], Options | None]:
    """The arguments that open the training parts and the test part of a set."""
    arguments = _arguments(set_class)
    if key in PARTS:
        return PARTS[key]
    if "train" in arguments:
        return [{"train": True}], {"train": False}
    if "split" in arguments:
        return [{"split": arguments["split"].default}], {"split": "test"}
    return [{}], None


def _arguments(set_class: type) -> dict[str, inspect.Parameter]:
    """What the constructor takes, and what it hands to that of its base class as **kwargs."""
    found: dict[str, inspect.Parameter] = {}
    for ancestor in set_class.__mro__:
        if "__init__" in vars(ancestor):
            arguments = inspect.signature(vars(ancestor)["__init__"]).parameters
            found = {**arguments, **found}
            if all(argument.kind != argument.VAR_KEYWORD for argument in arguments.values()):
                break
    return found


def _open(key: str, set_class: type, folder: Path, options: Options) -> Any:
    arguments = _arguments(set_class)
    # Where a set lets its caller load the files, it only names them: they are decoded by us, as any others.
    ask = functools.partial(set_class, str(folder), **options, **({"loader": Path} if "loader" in arguments else {}))
    try:
        if "download" not in arguments:
            return ask()
        try:
            return ask(download=True)
        except ValueError as refusal:  # "no longer available for download": its files may be there all the same
            try:
                return ask()
            except RuntimeError:
                raise refusal from None
    except Exception as error:  # what parsers of text, JSON, MAT, ... raise when a file is damaged, no one can list
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"{key} can neither be read from {folder} nor downloaded there ({reason}). Put its files there as "
            f"torchvision.datasets.{set_class.__name__} wants them, or give a folder or zip of "
            "<split>/<class>/*.jpg: target.name folder, target.root ..."
        ) from None


def _labels(key: str, part: Any) -> NDArray[np.int64]:
    """(N,), as the set has them; no image is decoded for them if it can be helped."""
    found: Any = LABELS[key](part) if key in LABELS else None
    for attribute in ("targets", "_labels", "labels", "y"):
        found = getattr(part, attribute, None) if found is None else found
    for attribute in ("_samples", "samples", "_flat_character_images"):  # (image, label)
        if found is None and hasattr(part, attribute):
            found = [label for _, label in getattr(part, attribute)]
    if found is None:
        found = [part[index][1] for index in range(len(part))]
    try:
        labels = np.asarray(found).astype(np.int64)
    except TypeError:  # None
        raise UserError(
            f"{key}: there are images without a label in {part.root}; torchvision.datasets.{type(part).__name__} "
            "says which of the published files hold them"
        ) from None
    return labels if labels.ndim == 1 else labels[:, 0]  # QMNIST's rows begin with the class


def _name(
    key: str, folder: Path, parts: Sequence[Any], labels: Sequence[NDArray[np.int64]]
) -> tuple[tuple[str, ...], list[NDArray[np.int64]]]:
    """The classes' names, and the labels as places among them. Numbers, where the classes have no names."""
    names = _class_names(key, parts[0])
    for part in parts[1:]:
        if _class_names(key, part) != names:
            raise UserError(f"{key} in {folder} is not whole: its splits have different classes")
    if names is None:
        values = np.unique(np.concatenate(labels))
        return tuple(map(str, values)), [np.searchsorted(values, of_part) for of_part in labels]
    if min(map(np.min, labels)) < 0 or max(map(np.max, labels)) >= len(names):
        raise UserError(f"{key} in {folder} is not whole: there are labels beyond its {len(names)} classes")
    if key in UNSORTED:
        place = np.argsort(np.argsort(names))
        names, labels = sorted(names), [place[of_part] for of_part in labels]
    return tuple(names), list(labels)


def _class_names(key: str, part: Any) -> list[str] | None:
    found: Any = CLASSES.get(key)
    for attribute in ("classes", "categories", "all_categories", "_characters", "class_to_idx"):
        found = getattr(part, attribute, None) if found is None else found
    if found is None:
        return None
    names = [str(name[0] if isinstance(name, tuple) else name) for name in found]  # a tuple is of synonyms
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    return [f"{name} ({label})" if name in twice else name for label, name in enumerate(names)]  # ImageNet's cranes


def _images(key: str, part: Any, where: str, folder: Path) -> Images:
    """Pixels (N, H, W, 3), where the set holds them; files, where it says which; or else items."""
    data = getattr(part, "data", None)
    if data is not None and getattr(data, "ndim", 0) in (3, 4):
        pixels: NDArray[np.uint8] = np.asarray(data)
        if pixels.ndim == 3:
            return np.broadcast_to(pixels[..., None], (*pixels.shape, 3))  # grey
        return pixels if pixels.shape[-1] == 3 else pixels.transpose(0, 2, 3, 1)
    if "loader" in _arguments(type(part)):
        paths = [Path(part[index][0]).relative_to(folder) for index in range(len(part))]  # as `_open` asked for
        return [File(path.as_posix(), folder) for path in paths]
    if key == "pcam":  # an opened set holds a module, which cannot be handed to a worker process
        fetch: Callable[[int], Image.Image] = functools.partial(_pcam_image, _pcam_file(part, "images"))
    else:
        fetch = functools.partial(_image, part)
    return [Item(where, index, fetch) for index in range(len(part))]


def _image(part: Any, index: int) -> Image.Image:
    """From several threads at once: these sets only look up a path and open the file, or make an image of an array."""
    return part[index][0]


def _pcam_file(part: Any, kind: str) -> Path:
    return Path(part._base_folder / part._FILES[part._split][kind][0])


def _pcam_image(path: Path, index: int) -> Image.Image:
    return Image.fromarray(_read_h5(path, "x", index))


def _read_h5(path: Path, dataset: str, rows: int | slice) -> NDArray[np.uint8]:
    import h5py  # torchvision asks for it when it opens the set; it lets one thread in at a time

    with h5py.File(path) as file:
        return np.asarray(file[dataset][rows])


def _join(tables: Sequence[Table]) -> Table:
    labels = np.concatenate([table.labels for table in tables])
    pixels = [table.images for table in tables if isinstance(table.images, np.ndarray)]
    if pixels:
        return Table(tables[0].name, np.concatenate(pixels), labels)
    images: list[Any] = [image for table in tables for image in table.images]
    return Table(tables[0].name, images, labels)
