"""What a target is, in words: its name, how much of it, from where. Whoever shows results of it says it in these."""

from __future__ import annotations

import re
from collections.abc import Mapping

from emoreg.config.label_noise import HUMAN_LABELS
from emoreg.config.schema import TargetLabels, TargetSettings, Task

LABELS: Mapping[TargetLabels, str] = {
    "polarity": "by polarity",
    "ekman": "by Ekman's six emotions",
    "multilabel": "several emotions an image",
    "dimensions": "rated dimensions",
}
ANSWERED: Mapping[Task, str] = {
    "classification": "one class an image",
    "multilabel": "several labels an image",
    "regression": "values",
}
OUTPUTS: Mapping[Task, str] = {"classification": "classes", "multilabel": "labels", "regression": "dimensions"}
CLASSES = {"cifar10": 10, "cifar100": 100, "digits": 10}  # as published; of other sets a run knows the number


def name_of(settings: TargetSettings) -> str:
    """The name of a set; of the user's own folder that of the folder: "cifar100", "folder photos"."""
    return f"folder {_place(settings)}" if _is_own(settings) else settings.name


def part_of(settings: TargetSettings, classes: int | None, whole: int | None = None) -> str:
    """What part of a set is trained on and tested on: "5 of 100 classes, 200 images a class"; empty for all of it.

    What is done to its training images counts: "a long tail of factor 10, symmetric label noise of 40 %".

    Args:
        settings: of the target.
        classes: number that the classifier knows; None where it is not known.
        whole: number of classes of the whole set; None where it is not known.
    """
    parts = []
    if settings.labels in LABELS:
        parts.append(LABELS[settings.labels])
    if some := _some_classes(settings, whole):
        parts.append(some)
    if settings.per_class is not None:
        parts.append(f"{settings.per_class:,} image{'' if settings.per_class == 1 else 's'} a class")
    if settings.share is not None:
        parts.append(f"{100 * settings.share:g} % of its training images")
    if settings.imbalance is not None:
        parts.append(f"a long tail of factor {settings.imbalance:g}")
    if settings.limit is not None:
        parts.append(f"at most {settings.limit:,} training images")
    if settings.label_noise != "none":
        share = "" if settings.noise_share is None else f" of {100 * settings.noise_share:g} %"
        is_human = settings.label_noise in HUMAN_LABELS
        parts.append(f"{settings.label_noise} {'labels of people' if is_human else f'label noise{share}'}")
    return ", ".join(parts)


def describe_target(settings: TargetSettings, classes: int | None, whole: int | None = None) -> str:
    """All of it: "cifar100, 5 of 100 classes, 200 images a class, 32 pixels, read from cifar-small".

    Args:
        settings: of the target.
        classes: as for `part_of`.
        whole: as for `part_of`.
    """
    part = part_of(settings, classes, whole)
    parts = [name_of(settings)]
    if classes is not None and not _some_classes(settings, whole):
        parts.append(f"{classes:,} {OUTPUTS[settings.task]}")
    parts += [part] if part else []
    parts.append(f"{settings.image_size} pixels")
    if settings.root is not None and not _is_own(settings):
        parts.append(f"read from {_place(settings)}")
    return ", ".join(parts)


def _some_classes(settings: TargetSettings, whole: int | None) -> str:
    """ "5 of 100 classes"; empty for all of them."""
    whole = whole or CLASSES.get(settings.name.lower())
    if settings.classes is None or len(settings.classes) == whole:
        return ""
    return f"{len(settings.classes)} of {'its' if whole is None else f'{whole:,}'} classes"


def _is_own(settings: TargetSettings) -> bool:
    return settings.name.lower() == "folder" and settings.root is not None


def _place(settings: TargetSettings) -> str:
    """The last part of the root: where it lies is nobody else's business."""
    return next((part for part in reversed(re.split(r"[/\\]", settings.root or "")) if part), ".")
