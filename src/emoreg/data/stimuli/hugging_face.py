"""Affective sets of the Hugging Face Hub, and local folders in the same formats (extra emoreg[hub]).

A set has an image column and a column of emotions, as class labels or words. All of them must be known emotions of one
space; otherwise any set of classes would pass as affective.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from emoreg.data.images.hugging_face import choose_column, image_column, items_of, load_splits
from emoreg.data.images.names import SPLITS, Split
from emoreg.data.images.table import Item
from emoreg.data.stimuli.emotion import EmotionSpace, emotion_index, known_space
from emoreg.data.stimuli.stimulus_set import Labels, Stimuli
from emoreg.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

EMOTION_NAMES = ("emotion", "label", "labels")  # names of the emotion column, in order of preference


def read(name: str, root: str | None) -> Stimuli:
    """Read images with one category each, in their published splits. Images are decoded on access.

    Args:
        name: see `load_splits`.
        root: see `load_splits`.

    Raises:
        UserError: `datasets` is not installed; the set cannot be loaded, lacks one of the columns, or has several
            splits but none for training; a word is not a known emotion, or a training image has none.
    """
    parts = load_splits(name, root, "stimuli")
    first = next(iter(parts.values()))
    image, column = image_column(name, first, "stimuli"), _emotion_column(name, first)
    words = {part: _words(name, part, dataset, image, column) for part, dataset in parts.items()}
    roles = _roles(name, list(parts))
    left_out = [
        f"{name}: left out the split '{part}', {len(parts[part]):,} images" for part in parts if part not in roles
    ]
    for part in [part for part in roles if None in words[part]]:
        if roles[part] in (None, "train"):
            raise UserError(f"{name}: row {words[part].index(None)} of the split '{part}' has no '{column}'")
        del roles[part]  # such as the test split of a competition
        left_out.append(f"{name}: left out the split '{part}', {len(parts[part]):,} images without '{column}'")

    emotions = [word for part in roles for word in words[part] if word is not None]
    place = f"{name}, '{column}'"
    names = known_space(dict.fromkeys(emotions, place))
    index = {word: emotion_index(word, names, place) for word in dict.fromkeys(emotions)}
    images: list[Item] = [item for part in roles for item in items_of(f"{name}/{part}", parts[part], image)]
    splits = [role for part, role in roles.items() for _ in range(len(parts[part])) if role is not None]
    labels = Labels(EmotionSpace("category", names), np.array([index[word] for word in emotions], np.int64))
    read_as = ", ".join(word if word == names[label] else f"{word} as {names[label]}" for word, label in index.items())
    origins = ", ".join(f"{role or 'all images'} from the split '{part}'" for part, role in roles.items())
    note = f"{name}: {origins}; the emotions from the column '{column}': {read_as}"
    return Stimuli(name, images, (labels,), splits or None, notes=(note,), left_out=tuple(left_out))


def _emotion_column(name: str, dataset: Dataset) -> str:
    """The column of the emotions: class labels of any name, or words in a column named as one of EMOTION_NAMES."""
    import datasets

    def is_candidate(column: str) -> bool:
        feature = dataset.features[column]
        is_text = isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")
        return isinstance(feature, datasets.ClassLabel) or (is_text and column in EMOTION_NAMES)

    columns = [column for column in dataset.features if is_candidate(column)]
    return choose_column(name, dataset, "stimuli", columns, "emotion", EMOTION_NAMES, "ClassLabel")


def _words(name: str, part: str, dataset: Dataset, image: str, column: str) -> list[str | None]:
    """The word for each image's emotion (N,), None for images without one."""
    if image not in dataset.features:
        raise UserError(f"{name}: the split '{part}' has no column '{image}', but the first split has one")
    if column not in dataset.features:
        return [None] * len(dataset)
    names = getattr(dataset.features[column], "names", None)
    values = dataset.select_columns([column]).with_format(None)[:][column]
    if names is None:
        return [value or None for value in values]
    return [None if value is None or value < 0 else str(names[value]) for value in values]


def _roles(name: str, parts: list[str]) -> dict[str, Split | None]:
    """Map published splits to train, validation and test. Unknown ones are left out; a single split maps to None."""
    if len(parts) == 1:
        return {parts[0]: None}
    roles: dict[str, Split | None] = {}
    for part in parts:
        role = SPLITS.get(part.lower())
        if role is not None and role in roles.values():
            raise UserError(
                f"{name} has two splits for {role}, '{part}' among {', '.join(parts)}; keep one, in a folder"
            )
        if role is not None:
            roles[part] = role
    if "train" not in roles.values():
        raise UserError(
            f"{name} has no split 'train', but {', '.join(parts)}; set stimuli.root to a folder that has one"
        )
    return roles
