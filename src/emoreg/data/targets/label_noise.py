"""Random label noise, symmetric and asymmetric.

With the same seed noise is nested: the wrong labels of a smaller share are a subset of those of a larger one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emoreg.config.schema import TargetSettings
from emoreg.data.images.table import Table
from emoreg.errors import SettingError, nearest

Rows = NDArray[np.int64]

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# CIFAR-10's classes that asymmetric noise changes, and their wrong labels (Patrini et al. 2017, section 5).
CONFUSED_WITH = {"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat"}
# CIFAR-100's superclasses (Krizhevsky 2009), each with its classes in the order of their labels.
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
    """Add noise to the labels (N,) of training images.

    Of each class that is changed, noise_share of the images, rounded, get another label.

    Args:
        table: the training images, with their true labels.
        settings: name, label_noise (symmetric or asymmetric) and noise_share are used.
        classes: class names, by label.
        seed: seed of the draw.

    Raises:
        SettingError: the labels are not classes, or the noise is asymmetric and classes of cifar10 or cifar100 are
            missing or have other names.
    """
    if table.labels.ndim != 1:
        raise SettingError("target.label_noise", f"must be none: {table.name} has no classes")
    assert settings.noise_share is not None
    labels = table.labels.astype(np.int64)
    rng = np.random.default_rng(seed)
    order, steps = rng.permutation(len(labels)), rng.integers(1, len(classes), len(labels))
    wrong = (labels + steps) % len(classes)  # any other class, with equal probability
    if settings.label_noise == "asymmetric":
        wrong = _wrong_labels(settings.name.lower(), classes)[labels]
    noisy = labels.copy()
    for label in range(len(classes)):
        rows = order[labels[order] == label]
        changed = rows[: round(settings.noise_share * len(rows))]
        noisy[changed] = wrong[changed]
    return noisy


def _wrong_labels(name: str, classes: Sequence[str]) -> Rows:
    """The label (K,) that asymmetric noise gives to each class; its own if the class is never changed."""
    if name == "cifar10":
        wrong = {name: CONFUSED_WITH.get(name, name) for name in CIFAR10}
    elif name == "cifar100":
        wrong = {group[k - 1]: group[k] for group in SUPERCLASSES for k in range(len(group))}
    else:
        return (np.arange(len(classes)) + 1) % len(classes)
    for other in classes:
        if other not in wrong:
            reason = f"asymmetric needs the published names of {name}'s classes, not '{other}'{nearest(other, wrong)}"
            raise SettingError("target.label_noise", reason)
    missing = sorted(set(wrong) - set(classes))
    if missing:
        reason = f"asymmetric needs all classes of {name}, and '{missing[0]}' is not among target.classes"
        raise SettingError("target.label_noise", reason)
    return np.array([list(classes).index(wrong[true]) for true in classes], np.int64)
