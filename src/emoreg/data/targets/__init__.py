"""Targets: the image classification tasks of stage 2."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emoreg.config.schema import TargetSettings
from emoreg.data.images.packed import Pack, is_pack, open_pack, read_about
from emoreg.data.images.table import Table
from emoreg.errors import UserError, is_plain, nearest

NAMES = ("digits", "cifar10", "cifar100", "folder")


@dataclass(frozen=True)
class Target:
    """A classification task: training and test images with class indices, and the classes' names."""

    train: Table
    test: Table
    classes: tuple[str, ...]


def read_target(settings: TargetSettings) -> Target:
    """The whole task, before any validation split, `per_class` or limit; of `settings.classes` only, if given.

    Raises:
        UserError: the set is missing or malformed, or a class is not in it; says where and what to do.
    """
    from emoreg.data.targets.subsets import keep_classes

    target = _read(settings)
    for name in target.classes:
        if not is_plain(name):  # it would be written to files, to pages and to terminals
            raise UserError(
                f"{target.train.name}: a class is called '{name}'; without control characters and in Unicode it can be "
                "written down: rename it"
            )
    if settings.classes is None:
        return target
    train = keep_classes(target.train, target.classes, settings.classes, "training")
    test = keep_classes(target.test, target.classes, settings.classes, "test")
    return Target(train, test, settings.classes)


def _read(settings: TargetSettings) -> Target:
    from emoreg.data.targets import cifar, digits, folder, hugging_face, torchvision_sets

    if settings.root is not None and is_pack(settings.root):
        return _unpack(open_pack(settings.root, "target", settings.name, settings.image_size))
    name = settings.name.lower()
    if name == "digits":
        return Target(*digits.read_digits(), digits.CLASSES)
    if name == "folder":
        if settings.root is None:
            raise UserError("target.root: name the folder or zip of the target 'folder'")
        return Target(*folder.read_folder(settings.root))
    if name in ("cifar10", "cifar100"):
        return Target(*cifar.read_cifar(name, settings.root))
    if name.startswith(hugging_face.PREFIX):
        return Target(*hugging_face.read_hugging_face(settings.name, settings.root))
    sets = torchvision_sets.classification_sets()
    if name not in sets:
        close = nearest(name, [*NAMES, *sets]) or " (known: those of torchvision, and hf:OWNER/NAME)"
        raise UserError(f"target.name: no target for classification is called '{settings.name}'{close}")
    return Target(*torchvision_sets.read_torchvision(name, settings.root))


def _unpack(pack: Pack) -> Target:
    labels = pack.labels[0]
    rows = [np.flatnonzero(pack.splits == split) for split in ("train", "test")]
    train, test = (Table(pack.title, pack.images.take(part), labels.values[part]) for part in rows)
    return Target(train, test, labels.names)


def read_for_scoring(settings: TargetSettings, data: str | None, classes: tuple[str, ...]) -> Table:
    """Labelled images to score a trained classifier on; of `settings.classes` only, if given.

    Args:
        settings: of the run's own target.
        data: another target's name, or a folder or zip; None for the run's own test split.
        classes: the classifier's, in order; labels are indices into them.

    Raises:
        UserError: missing images, or classes that the classifier does not know.
    """
    from emoreg.data.targets import folder

    if data is None or data == settings.name:
        target = read_target(settings)
    elif is_pack(data):
        name = str(read_about(data).get("set"))
        target = read_target(TargetSettings(name, data, settings.classes, image_size=settings.image_size))
    elif _is_name(data):
        target = read_target(TargetSettings(name=data, classes=settings.classes))
    else:
        return folder.read_for_scoring(data, classes, leave_out_others=settings.classes is not None)
    if target.classes != classes:
        raise UserError(f"the classes of {data or settings.name} are not those that the run was trained on")
    return target.test


def _is_name(data: str) -> bool:
    """Whether `data` is a target's name; a folder that is called like one of torchvision's sets is a folder."""
    from emoreg.data.targets import hugging_face, torchvision_sets

    if data.lower() in NAMES or data.lower().startswith(hugging_face.PREFIX):
        return True
    return not Path(data).exists() and data.lower() in torchvision_sets.classification_sets()
