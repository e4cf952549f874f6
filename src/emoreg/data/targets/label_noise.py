"""Wrong labels of training images, drawn: symmetric and asymmetric noise.

Noise of the same seed is nested: the wrong labels of a smaller share are among those of a larger one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from emoreg.config.schema import TargetSettings
from emoreg.data.images.table import Table
from emoreg.errors import SettingError, nearest

Rows = NDArray[np.int64]

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# What CIFAR-10's classes are taken for, and the others are not taken for any (Patrini et al. 2017, section 5).
TAKEN_FOR: Mapping[str, str] = {
    "truck": "automobile",
    "bird": "airplane",
    "deer": "horse",
    "cat": "dog",
    "dog": "cat",
}
# CIFAR-100's superclasses (Krizhevsky 2009), in each the classes in the order of their labels.
SUPERCLASSES: tuple[tuple[str, ...], ...] = (
    ("beaver", "dolphin", "otter", "seal", "whale"),
    ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    ("orchid", "poppy", "rose", "sunflower", "tulip"),
    ("bottle", "bowl", "can", "cup", "plate"),
    ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    ("clock", "keyboard", "lamp", "telephone", "television"),
    ("bed", "chair", "couch", "table", "wardrobe"),
    ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    ("bear", "leopard", "lion", "tiger", "wolf"),
    ("bridge", "castle", "house", "road", "skyscraper"),
    ("cloud", "forest", "mountain", "plain", "sea"),
    ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    ("fox", "porcupine", "possum", "raccoon", "skunk"),
    ("crab", "lobster", "snail", "spider", "worm"),
    ("baby", "boy", "girl", "man", "woman"),
    ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
)


def noisy_labels(table: Table, settings: TargetSettings, classes: Sequence[str], seed: int) -> Rows:
    """The labels (N,) of training images with those that are wrong.

    Of each class that is changed, noise_share of the images, rounded, get another label.

    Args:
        table: the training images, with their own labels.
        settings: name, label_noise (drawn) and noise_share are used.
        classes: names, by label.
        seed: of the draw.

    Raises:
        SettingError: the labels are no classes; the classes of cifar10 or cifar100 are not all there, or called
            otherwise, with asymmetric noise.
    """
    if table.labels.ndim != 1:
        raise SettingError("target.label_noise", f"must be none: {table.name} has no classes")
    assert settings.noise_share is not None
    labels = table.labels.astype(np.int64)
    rng = np.random.default_rng(seed)
    order, steps = rng.permutation(len(labels)), rng.integers(1, len(classes), len(labels))
    wrong_of = (labels + steps) % len(classes)  # any other class, all alike
    if settings.label_noise == "asymmetric":
        wrong_of = _taken_for(settings.name.lower(), classes)[labels]
    noisy = labels.copy()
    for label in range(len(classes)):
        rows = order[labels[order] == label]
        changed = rows[: round(settings.noise_share * len(rows))]
        noisy[changed] = wrong_of[changed]
    return noisy


def _taken_for(name: str, classes: Sequence[str]) -> Rows:
    """The label (K,) that each class gets; its own for one that is not taken for another."""
    if name == "cifar10":
        pairs = {**{own: own for own in CIFAR10}, **TAKEN_FOR}
    elif name == "cifar100":
        pairs = {own: after for group in SUPERCLASSES for own, after in zip(group, group[1:] + group[:1], strict=True)}
    else:
        return (np.arange(len(classes)) + 1) % len(classes)
    for other in (own for own in classes if own not in pairs):
        reason = f"asymmetric needs the published names of {name}'s classes; '{other}' is none{nearest(other, pairs)}"
        raise SettingError("target.label_noise", reason)
    if missing := sorted(set(pairs) - set(classes)):
        reason = f"asymmetric needs all classes of {name}, and '{missing[0]}' is not among target.classes"
        raise SettingError("target.label_noise", reason)
    return np.array([list(classes).index(pairs[own]) for own in classes], np.int64)
