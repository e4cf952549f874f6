"""Image classification sets of the Hugging Face Hub, and local copies of them (extra emoreg[hub]).

A published validation split is used as such. Ours, as with torchvision's sets: a set without a labelled test split is
scored on its validation split, or else on a fifth of each class, always the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emoreg.data.images.hugging_face import choose_column, image_column, items_of, load_splits
from emoreg.data.images.names import SPLITS
from emoreg.data.images.table import Table
from emoreg.data.targets.subsets import hold_out_fifth
from emoreg.data.targets.target import Target
from emoreg.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

LABEL_NAMES = ("label", "labels", "fine_label")  # preferred if there are several class-label columns


def read_hugging_face(name: str, root: str | None) -> Target:
    """Read a set of the Hub, or a local copy, see `load_splits`; images are decoded when needed.

    Raises:
        UserError: `datasets` is not installed, the set cannot be loaded, its image or label column is missing or
            ambiguous, its splits differ in columns or classes, or a training image has no label.
    """
    splits = load_splits(name, root, "target")
    first = next(iter(splits.values()))
    image, label = _columns(name, first)
    classes = tuple(first.features[label].names)
    labels = {split: _labels(dataset, label) for split, dataset in splits.items()}

    train_name, test_name, validation_name = _choose(name, labels)
    used = [split for split in (train_name, validation_name, test_name) if split is not None]
    for split in used:
        features = splits[split].features
        names = getattr(features.get(label), "names", None)
        if image not in features or tuple(names or ()) != classes:
            raise UserError(f"{name}: the split '{split}' has other columns or classes than the first split")
    if np.any(labels[train_name] < 0):
        row = int(np.argmax(labels[train_name] < 0))
        raise UserError(f"{name}: row {row} of the split '{train_name}' has no '{label}'")

    def table(split: str) -> Table:
        return Table(name, items_of(f"{name}/{split}", splits[split], image), labels[split])

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
    is_published = root is None and test_name == "test"
    return Target(table(train_name), table(test_name), classes, validation, (note,), left_out, None, is_published)


def _columns(name: str, dataset: Dataset) -> tuple[str, str]:
    """The image column and the class-label column."""
    import datasets

    image = image_column(name, dataset, "target")
    columns = [column for column, feature in dataset.features.items() if isinstance(feature, datasets.ClassLabel)]
    return image, choose_column(name, dataset, "target", columns, "class label", LABEL_NAMES, "ClassLabel")


def _labels(dataset: Dataset, column: str) -> NDArray[np.int64]:
    """Labels (N,); -1 for images without one, as in the test splits of competitions."""
    if column not in dataset.features:
        return np.full(len(dataset), -1, np.int64)
    values = dataset.select_columns([column]).with_format(None)[:][column]
    return np.array([-1 if value is None else value for value in values], np.int64)


def _choose(name: str, labels: dict[str, NDArray[np.int64]]) -> tuple[str, str | None, str | None]:
    """Choose the splits for training, testing and validation; None for a split that the set does not have."""
    train = "train"
    if train not in labels:
        if len(labels) > 1:
            splits = ", ".join(labels)
            raise UserError(f"{name} has no split 'train', but {splits}; set target.root to a folder that has one")
        (train,) = labels
    names = ("test", *(word for word, split in SPLITS.items() if split == "validation"))
    known = [split for split in names if split != train and len(labels.get(split, ())) > 0]
    labelled = [split for split in known if np.all(labels[split] >= 0)]
    test, validation = (*labelled, None, None)[:2]
    return train, test, validation
