"""Targets: the image classification tasks of stage 2."""

from __future__ import annotations

from dataclasses import dataclass

from emoreg.errors import UserError, nearest
from emoreg.images.table import Table
from emoreg.settings import TargetSettings

NAMES = ("digits", "cifar10", "cifar100", "folder")


@dataclass(frozen=True)
class Target:
    """A classification task: training and test images with class indices, and the classes' names."""

    train: Table
    test: Table
    classes: tuple[str, ...]


def read_target(settings: TargetSettings) -> Target:
    """The whole task, before any validation split or limit.

    Raises:
        UserError: the set is missing or malformed; says where and what to do.
    """
    from emoreg.targets import cifar, digits, folder

    if settings.name == "digits":
        return Target(*digits.read_digits(), digits.CLASSES)
    if settings.name == "folder":
        if settings.root is None:
            raise UserError("target.root: name the folder or zip of the target 'folder'")
        return Target(*folder.read_folder(settings.root))
    if settings.name in ("cifar10", "cifar100"):
        return Target(*cifar.read_cifar(settings.name, settings.root))  # type: ignore[arg-type]
    raise UserError(f"target.name: no target '{settings.name}'{nearest(settings.name, NAMES)}")


def read_for_scoring(settings: TargetSettings, data: str | None, classes: tuple[str, ...]) -> Table:
    """Labelled images to score a trained classifier on.

    Args:
        settings: of the run's own target.
        data: another target's name, or a folder or zip; None for the run's own test split.
        classes: the classifier's, in order; labels are indices into them.

    Raises:
        UserError: missing images, or classes that the classifier does not know.
    """
    from emoreg.targets import folder

    if data is not None and data not in NAMES:
        return folder.read_for_scoring(data, classes)
    target = read_target(settings if data in (None, settings.name) else TargetSettings(name=data))
    if target.classes != classes:
        raise UserError(f"the classes of {data or settings.name} are not those that the run was trained on")
    return target.test
