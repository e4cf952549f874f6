"""Image sets of the published size, without files, to count the steps of runs whose sets are still missing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emoreg.config.schema import StimuliSettings, TargetSettings
from emoreg.data.images.names import Split
from emoreg.data.images.packed import is_pack
from emoreg.data.images.table import Table
from emoreg.data.stimuli import PUBLISHED
from emoreg.data.stimuli.emotion import VALENCE_AROUSAL
from emoreg.data.stimuli.stimulus_set import Labels, Stimuli
from emoreg.data.targets.cifar import holds_image_folders
from emoreg.data.targets.target import Target
from emoreg.study.missing_sets import is_missing

# Training images, test images and classes of the published archives (Krizhevsky 2009), which are checked by MD5.
CIFAR: Mapping[str, tuple[int, int, int]] = {"cifar10": (50_000, 10_000, 10), "cifar100": (50_000, 10_000, 100)}
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def target_like(settings: TargetSettings) -> Target | None:
    """A target with as many images and classes as the published archive, if that will be read or downloaded.

    None for any other target, and for one that exists as a pack, a zip or folders, which must be read instead.
    """
    name, root = settings.name.lower(), settings.root
    if name not in CIFAR:
        return None
    if root is not None and (is_pack(root) or Path(root).is_file() or holds_image_folders(name, Path(root))):
        return None
    train, test, classes = CIFAR[name]
    kept = classes if settings.classes is None else len(settings.classes)
    names = settings.classes or tuple(str(number) for number in range(classes))
    labels = [np.arange(count * kept // classes) % kept for count in (train, test)]
    tables = [Table(name, _pixels(len(each)), each) for each in labels]
    return Target(tables[0], tables[1], names)


def stimuli_like(settings: StimuliSettings) -> Stimuli | None:
    """A missing stimulus set, with as many images as are published, in the published splits.

    None for a set that exists, and if no number is published.
    """
    splits: list[Split] = []
    if settings.name in CIFAR:
        target = target_like(TargetSettings(settings.name, settings.root, settings.classes))
        images = 0 if target is None else len(target.train)
    elif is_missing(settings) and (published := PUBLISHED.get(settings.name)) is not None:
        splits = [split for split in SPLITS for _ in range(published.splits.get(split, 0))]
        images = len(splits) or published.images
    else:
        images = 0
    if images == 0:
        return None
    values = np.random.default_rng(0).random((images, 2), dtype=np.float32)
    return Stimuli(settings.name, _pixels(images), (Labels(VALENCE_AROUSAL, values),), splits or None)


def _pixels(count: int) -> NDArray[np.uint8]:
    return np.zeros((count, 1, 1, 3), np.uint8)
