"""Targets: the image classification tasks of stage 2."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emoreg.config.schema import TargetSettings
from emoreg.data.images.packed import Pack, is_pack, open_pack, read_about
from emoreg.data.images.table import Table
from emoreg.data.targets import affective, cifar, digits, folder, hugging_face, torchvision_sets
from emoreg.data.targets.subsets import keep_classes
from emoreg.errors import SettingError, UserError, is_plain, nearest
from emoreg.runtime.progress import Progress

NAMES = ("digits", "cifar10", "cifar100", "folder")


@dataclass(frozen=True)
class Target:
    """A classification task.

    Args:
        train: training images with class indices.
        test: test images.
        classes: the classes' names.
        validation: the published validation split; None for a set without one.
        notes: lines that say what was taken for what: splits, classes, images.
        left_out: lines that say which images below the root are in neither table, and why.
    """

    train: Table
    test: Table
    classes: tuple[str, ...]
    validation: Table | None = None
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def is_known(name: str) -> bool:
    """Whether `name` is that of a target, whatever the case of its letters."""
    name = name.lower()
    return name in NAMES or name in torchvision_sets.SETS or name.startswith(hugging_face.PREFIX)


def read_target(settings: TargetSettings) -> Target:
    """The whole task, before any validation split, `per_class` or limit; of `settings.classes` only, if given.

    Raises:
        UserError: the set is missing or malformed, or a class is not in it; says where and what to do.
    """
    is_affective = settings.name.lower() in affective.SETS
    target = Target(*affective.read_affective(settings)) if is_affective else _read(settings)
    for name in target.classes:
        if not is_plain(name):  # it would be written to files, pages and terminals
            raise UserError(
                f"{target.train.name}: the class name '{name}' contains control characters or broken Unicode; rename it"
            )
    if settings.classes is None:
        return target
    train = keep_classes(target.train, target.classes, settings.classes, "training")
    test = keep_classes(target.test, target.classes, settings.classes, "test")
    return Target(train, test, settings.classes, None, target.notes, target.left_out)


def _read(settings: TargetSettings) -> Target:
    if settings.root is not None and is_pack(settings.root):
        return _unpack(open_pack(settings.root, "target", settings.name, settings.image_size))
    name = settings.name.lower()
    if not is_known(name):
        close = (
            nearest(name, [*NAMES, *affective.SETS, *torchvision_sets.SETS])
            or " (known: those of torchvision, and hf:OWNER/NAME)"
        )
        raise SettingError("target.name", f"no target for classification is called '{settings.name}'{close}")
    if name == "digits":
        return Target(*digits.read_digits(), digits.CLASSES)
    if name == "folder":
        if settings.root is None:
            raise SettingError("target.root", "name the folder or zip of the target 'folder'")
        return Target(*folder.read_folder(settings.root))
    if name in ("cifar10", "cifar100"):
        return Target(*cifar.read_cifar(name, settings.root))
    if name.startswith(hugging_face.PREFIX):
        return Target(*hugging_face.read_hugging_face(settings.name, settings.root))
    return Target(*torchvision_sets.read_torchvision(name, settings.root))


def _unpack(pack: Pack) -> Target:
    labels = pack.labels[0]
    rows = [np.flatnonzero(pack.splits == split) for split in ("train", "test")]
    train, test = (Table(pack.title, pack.images.take(part), labels.values[part]) for part in rows)
    return Target(train, test, labels.names)


def is_own_test_split(settings: TargetSettings, data: str | None) -> bool:
    """Whether `data` of `read_for_scoring` means the test split of the target that a run was trained on."""
    if data is None or data.lower() == settings.name.lower():
        return True
    return settings.root is not None and Path(data).resolve() == Path(settings.root).resolve()


def read_for_scoring(
    settings: TargetSettings, data: str | None, classes: tuple[str, ...], progress: Progress | None = None
) -> Table:
    """Labelled images to score a trained classifier on; of `settings.classes` only, if given.

    Args:
        settings: the target that the run was trained on.
        data: another target's name, or a folder or zip; None for the run's own test split.
        classes: the classifier's classes; labels are indices into them.
        progress: says what was taken for what; None for silence.

    Raises:
        UserError: missing images; classes that the classifier does not know; the own test split of a run that leaves it
            unseen (`settings.test`).
    """
    if is_own_test_split(settings, data) and not settings.test:
        raise UserError(
            "target.test is false, which leaves this run's test split unseen: name other images (--data on the command "
            "line), or train another run with target.test true"
        )
    if data is None or data == settings.name:
        target = read_target(settings)
    elif is_pack(data):
        name = str(read_about(data).get("set"))
        target = read_target(TargetSettings(name, data, settings.classes, image_size=settings.image_size))
    elif is_known(data) and (data.lower() not in torchvision_sets.SETS or not Path(data).exists()):
        target = read_target(TargetSettings(name=data, classes=settings.classes))
    else:  # a folder, even if it is named like one of torchvision's sets
        return folder.read_for_scoring(data, classes, skip_others=settings.classes is not None)
    if target.classes != classes:
        raise UserError(f"the classes of {data or settings.name} are not those that the run was trained on")
    if progress is not None:
        progress.tell(target.notes, target.left_out)
    return target.test
