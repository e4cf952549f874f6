"""Describe a target in words: name, part, source. Everything that shows results uses these descriptions."""

from __future__ import annotations

import re
from collections.abc import Mapping

from emoreg.config.label_noise import HUMAN_LABELS
from emoreg.config.schema import TargetLabels, TargetSettings, Task

LABELS: Mapping[TargetLabels, str] = {
    "polarity": "by polarity",
    "ekman": "by Ekman's six emotions",
    "multilabel": "several emotions per image",
    "dimensions": "rated dimensions",
}
PREDICTED: Mapping[Task, str] = {
    "classification": "one class per image",
    "multilabel": "several labels per image",
    "regression": "values",
}
OUTPUTS: Mapping[Task, str] = {"classification": "classes", "multilabel": "labels", "regression": "dimensions"}
CLASSES = {"cifar10": 10, "cifar100": 100, "digits": 10}  # as published; runs record the number for other sets


def name_of(settings: TargetSettings) -> str:
    """Return the name of a set; for a user's folder with the folder's name: "cifar100", "folder photos"."""
    return f"folder {_place(settings)}" if _is_own(settings) else settings.name


def part_of(settings: TargetSettings, whole: int | None = None) -> str:
    """Describe the part of a set that is used: "5 of 100 classes, 200 images per class"; empty if all of it is.

    Includes changes to its training images: "a long tail of factor 10, symmetric label noise of 40 %".

    Args:
        settings: settings of the target.
        whole: number of classes of the whole set; None if unknown.
    """
    parts = []
    if settings.task != "classification" and _is_own(settings):
        parts.append(PREDICTED[settings.task])
    elif settings.labels in LABELS:
        parts.append(LABELS[settings.labels])
    if subset := _subset_of_classes(settings, whole):
        parts.append(subset)
    if settings.per_class is not None:
        parts.append(f"{settings.per_class:,} image{'' if settings.per_class == 1 else 's'} per class")
    if settings.share is not None:
        parts.append(f"{100 * settings.share:g} % of its training images")
    if settings.imbalance is not None:
        parts.append(f"a long tail of factor {settings.imbalance:g}")
    if settings.limit is not None:
        parts.append(f"at most {settings.limit:,} training images")
    if settings.label_noise in HUMAN_LABELS:
        parts.append(f"{settings.label_noise} labels of people")
    elif settings.noise_share is not None:
        parts.append(f"{settings.label_noise} label noise of {100 * settings.noise_share:g} %")
    return ", ".join(parts)


def describe_target(settings: TargetSettings, classes: int | None, whole: int | None = None) -> str:
    """Describe a target in full: "cifar100, 5 of 100 classes, 200 images per class, 32 pixels, read from cifar-small".

    Args:
        settings: settings of the target.
        classes: number of classes of the classifier; None if unknown.
        whole: number of classes of the whole set; None if unknown.
    """
    is_whole = classes is not None and not _subset_of_classes(settings, whole)
    parts = (
        name_of(settings),
        f"{classes:,} {OUTPUTS[settings.task]}" if is_whole else "",
        part_of(settings, whole),
        f"{settings.image_size} pixels",
        "" if settings.root is None or _is_own(settings) else f"read from {_place(settings)}",
    )
    return ", ".join(part for part in parts if part)


def _subset_of_classes(settings: TargetSettings, whole: int | None) -> str:
    """Return a phrase such as "5 of 100 classes"; empty if all are used."""
    whole = whole or CLASSES.get(settings.name.lower())
    if settings.classes is None or len(settings.classes) == whole:
        return ""
    return f"{len(settings.classes)} of {'its' if whole is None else f'{whole:,}'} classes"


def _is_own(settings: TargetSettings) -> bool:
    return settings.name.lower() == "folder" and settings.root is not None


def _place(settings: TargetSettings) -> str:
    """Return the last part of the root; the rest of a path is private."""
    return next((part for part in reversed(re.split(r"[/\\]", settings.root or "")) if part), ".")
