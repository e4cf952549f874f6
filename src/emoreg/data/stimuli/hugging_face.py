"""Affective sets of the Hugging Face Hub, and folders of the same kinds (extra emoreg[hub]), such as copies of EmoSet.

A set has an image column and a column of emotions, class labels or words. What it calls them must be known emotions of
one space: a set of other classes would be taken for affect without being any.
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

EMOTION_NAMES = ("emotion", "label", "labels")  # of columns, the first to be chosen first


def read(name: str, root: str | None) -> Stimuli:
    """Images with a category each, in the splits in which they are published; decoded when they are needed.

    Args:
        name: see `load_splits`.
        root: see `load_splits`.

    Raises:
        UserError: `datasets` is not installed; the set cannot be loaded, has no such columns, or another split than
            train among several; a word is no known emotion (the nearest is named), or an image has none.
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
        del roles[part]  # as competitions keep theirs to themselves
        left_out.append(f"{name}: left out the split '{part}', {len(parts[part]):,} images without '{column}'")

    found = [word for part in roles for word in words[part] if word is not None]
    seen = dict.fromkeys(found, f"{name}, '{column}'")
    names = known_space(seen)
    index = {word: emotion_index(word, names, place) for word, place in seen.items()}
    images: list[Item] = [item for part in roles for item in items_of(f"{name}/{part}", parts[part], image)]
    splits = [role for part, role in roles.items() for _ in range(len(parts[part])) if role is not None]
    labels = Labels(EmotionSpace("category", names), np.array([index[word] for word in found], np.int64))
    taken = ", ".join(word if word == names[label] else f"{word} for {names[label]}" for word, label in index.items())
    how = ", ".join(f"{role or 'all images'} from the split '{part}'" for part, role in roles.items())
    note = f"{name}: {how}; the emotions from the column '{column}': {taken}"
    return Stimuli(name, images, (labels,), splits or None, notes=(note,), left_out=tuple(left_out))


def _emotion_column(name: str, dataset: Dataset) -> str:
    """The column of the emotions: class labels, or words under one of EMOTION_NAMES."""
    import datasets

    def may_serve(column: str) -> bool:
        feature = dataset.features[column]
        is_text = isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")
        return isinstance(feature, datasets.ClassLabel) or (is_text and column in EMOTION_NAMES)

    columns = [column for column in dataset.features if may_serve(column)]
    return choose_column(name, dataset, "stimuli", columns, "emotion", EMOTION_NAMES, "ClassLabel")


def _words(name: str, part: str, dataset: Dataset, image: str, column: str) -> list[str | None]:
    """What each image's emotion is called (N,); None where it has none."""
    if image not in dataset.features:
        raise UserError(f"{name}: the split '{part}' has no column '{image}', but the first split has")
    if column not in dataset.features:
        return [None] * len(dataset)
    names = getattr(dataset.features[column], "names", None)
    values = dataset.select_columns([column]).with_format(None)[:][column]
    if names is None:
        return [value or None for value in values]
    return [None if value is None or value < 0 else str(names[value]) for value in values]


def _roles(name: str, parts: list[str]) -> dict[str, Split | None]:
    """What each split serves as, those of no use left out; None for the only one."""
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
        raise UserError(f"{name} has no split 'train', but {', '.join(parts)}; give a folder as stimuli.root that has")
    return roles
