"""Image classification sets of the Hugging Face Hub, and folders of the same kinds (extra emoreg[hub]).

A published validation split is used as one. Ours, as with torchvision's sets: a set without a test split that is
labelled is scored on its validation split, or else on a fifth of each class, always the same.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emoreg.data.images.files import IMAGE_FORMATS
from emoreg.data.images.table import Item, Table
from emoreg.data.targets.subsets import hold_out_fifth
from emoreg.data.targets.target import Target
from emoreg.errors import SettingError, UserError, shortened
from emoreg.runtime.optional import importing

if TYPE_CHECKING:
    from datasets import Dataset

PREFIX = "hf:"
IMAGE_NAMES = ("image", "img")  # that are chosen where there are several of the kind
LABEL_NAMES = ("label", "labels", "fine_label")
VALIDATION_NAMES = ("validation", "valid", "val", "dev")


def read_hugging_face(name: str, root: str | None) -> Target:
    """The task; images are decoded when they are needed.

    Args:
        name: hf:OWNER/NAME or hf:OWNER/NAME/CONFIG, of the Hub, from which the set is downloaded once.
        root: a folder to read instead, which `datasets` can load (image folders, Parquet, ...) or has saved
            with `save_to_disk`. The name is then a title only, but for CONFIG.

    Raises:
        UserError: `datasets` is not installed; the set cannot be loaded; it has no image column, no class
            label or several; images without a label.
    """
    parts = name[len(PREFIX) :].split("/")
    if len(parts) > 3 or not all(parts):
        raise SettingError("target.name", f"'{name}' is not of the form hf:OWNER/NAME or hf:OWNER/NAME/CONFIG")
    splits = _load(name, "/".join(parts[:2]), parts[2] if len(parts) == 3 else None, root)
    image, label = _columns(name, next(iter(splits.values())))
    features = {split: dataset.features for split, dataset in splits.items()}
    classes = tuple(next(iter(features.values()))[label].names)
    labels = {split: _labels(dataset, label) for split, dataset in splits.items()}

    train_name, test_name, validation_name = _choose(name, labels)
    used = [split for split in (train_name, validation_name, test_name) if split is not None]
    for split in used:
        names = getattr(features[split].get(label), "names", None)
        if image not in features[split] or tuple(names or ()) != classes:
            raise UserError(f"{name}: the split '{split}' has other columns or classes than the first split")
    if np.any(labels[train_name] < 0):
        row = int(np.argmax(labels[train_name] < 0))
        raise UserError(f"{name}: row {row} of the split '{train_name}' has no '{label}'")

    def table(split: str) -> Table:
        return Table(name, _items(f"{name}/{split}", splits[split], image), labels[split])

    left_out = tuple(
        f"{name}: left out the split '{split}', {len(dataset):,} images"
        f"{' without labels' if np.any(labels[split] < 0) else ''}"
        for split, dataset in splits.items()
        if split not in used
    )
    if test_name is None:
        note = f"{name}: split '{train_name}', {len(classes):,} classes; a fifth of each class is the test split"
        return Target(*hold_out_fifth(table(train_name)), classes, None, (note,), left_out)
    validation = None if validation_name is None else table(validation_name)
    roles = {"train": train_name, "validation": validation_name, "test": test_name}
    how = ", ".join(f"{role} from the split '{split}'" for role, split in roles.items() if split is not None)
    note = f"{name}: {how}; {len(classes):,} classes"
    return Target(table(train_name), table(test_name), classes, validation, (note,), left_out)


@contextlib.contextmanager
def _quiet_client() -> Iterator[None]:
    """Silences the Hub client's messages about retries; a failure is reported in one line."""
    from huggingface_hub.utils import logging as client

    level = client.get_verbosity()
    client.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        client.set_verbosity(level)


def _load(name: str, path: str, config: str | None, root: str | None) -> dict[str, Dataset]:
    """All splits by name."""
    try:
        with importing("datasets", name, "'emoreg[hub]'"):
            import datasets
    except UserError as error:
        raise SettingError("target.name", str(error)) from None
    if root is not None and not Path(root).is_dir():
        raise SettingError("target.root", f"{root} is not a folder; {name} wants one that `datasets` can load")
    if root is None and Path(path).exists():  # load_dataset would read it in place of the Hub's
        raise SettingError("target.name", f"there is a folder {path} here; to read it, give it as target.root too")
    try:
        if root is None:
            with _quiet_client():
                loaded = datasets.load_dataset(path, config)
        elif any((Path(root) / file).exists() for file in ("dataset_dict.json", "state.json")):
            loaded = datasets.load_from_disk(root)
        else:
            loaded = datasets.load_dataset(str(Path(root).resolve()), config)
    except Exception as error:  # of datasets, huggingface_hub, fsspec, pyarrow, the HTTP client: no common class
        reason = shortened(str(error), 300) or type(error).__name__
        where = f" from {root}" if root is not None else ""
        advice = (
            "Check the name at https://huggingface.co/datasets; without a network, set target.root to a folder with "
            "the set, or load it once where there is a network"
            if root is None
            else "See https://huggingface.co/docs/datasets/image_dataset for what a folder may hold"
        )
        if config is None:
            advice += "; choose one of several configurations as hf:OWNER/NAME/CONFIG"
        raise UserError(f"{name} could not be loaded{where} ({reason}). {advice}") from None
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def _columns(name: str, dataset: Dataset) -> tuple[str, str]:
    """The image column and the class-label column."""
    import datasets

    found = []
    for kind, what, preferred in (
        (datasets.Image, "image", IMAGE_NAMES),
        (datasets.ClassLabel, "class label", LABEL_NAMES),
    ):
        columns = [column for column, feature in dataset.features.items() if isinstance(feature, kind)]
        chosen = columns if len(columns) == 1 else [column for column in preferred if column in columns][:1]
        if not chosen:
            problem = f"has several {what} columns ({', '.join(columns)})" if columns else f"has no {what} column"
            have = ", ".join(f"{column}: {type(feature).__name__}" for column, feature in dataset.features.items())
            change = f"rename the one that is meant to '{preferred[0]}'" if columns else f"cast one to {kind.__name__}"
            raise UserError(
                f"{name} {problem}; its columns: {have}. With `datasets`, {change}, save_to_disk, and give that "
                "folder as target.root"
            )
        found.append(chosen[0])
    return found[0], found[1]


def _labels(dataset: Dataset, column: str) -> NDArray[np.int64]:
    """(N,); -1 for none, as in the test splits of competitions."""
    if column not in dataset.features:
        return np.full(len(dataset), -1, np.int64)
    values = dataset.select_columns([column]).with_format(None)[:][column]
    return np.array([-1 if value is None else value for value in values], np.int64)


def _choose(name: str, labels: dict[str, NDArray[np.int64]]) -> tuple[str, str | None, str | None]:
    """The split to train on, the one to test on (None: a fifth of the first), and the one for validation, if any."""
    train = "train" if "train" in labels else next(iter(labels)) if len(labels) == 1 else None
    if train is None:
        raise UserError(f"{name} has no split 'train', but {', '.join(labels)}; give a folder as target.root that has")
    known = [split for split in ("test", *VALIDATION_NAMES) if split != train and len(labels.get(split, ())) > 0]
    labelled = [split for split in known if np.all(labels[split] >= 0)]
    test, validation = (*labelled, None, None)[:2]
    return train, test, validation


def _items(name: str, dataset: Dataset, column: str) -> list[Item]:
    import datasets

    undecoded = dataset.select_columns([column]).with_format(None).cast_column(column, datasets.Image(decode=False))
    fetch = functools.partial(_fetch, undecoded, column)
    return [Item(name, index, fetch) for index in range(len(dataset))]


def _fetch(dataset: Dataset, column: str, index: int) -> Image.Image:
    """Decode one image. Thread-safe: rows are looked up in a table that does not change."""
    value = dataset[index][column]
    if value is None:
        raise ValueError("the row has no image")
    source = io.BytesIO(value["bytes"]) if value["bytes"] is not None else value["path"]
    return Image.open(source, formats=IMAGE_FORMATS)
