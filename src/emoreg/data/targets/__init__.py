"""Targets: the image classification tasks of stage 2."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from emoreg.config.recipe import EDITION
from emoreg.config.schema import TargetLabels, TargetSettings, task_of
from emoreg.config.target_words import PREDICTED
from emoreg.data.embedded import refuse_root, without_unread_root
from emoreg.data.images.hugging_face import PREFIX, parse_hub_name
from emoreg.data.images.names import Split, composed
from emoreg.data.images.packed import is_pack, open_pack, read_about
from emoreg.data.images.splits import classes_without
from emoreg.data.images.table import Table, joined
from emoreg.data.targets import affective, cifar, digits, folder, hugging_face, torchvision_sets
from emoreg.data.targets.subsets import keep_classes
from emoreg.data.targets.target import GIVEN_IMAGES, Target
from emoreg.errors import SettingError, UserError, is_plain, nearest
from emoreg.runtime.progress import Progress

__all__ = [
    "Target",
    "compose_names",
    "is_known",
    "is_own_test_split",
    "read_for_scoring",
    "read_target",
    "require_known",
    "with_notes_on_classes",
]

NAMES = ("digits", "cifar10", "cifar100", "folder")


def is_known(name: str) -> bool:
    """Whether `name`, in any case, is the name of a target other than an affective set."""
    name = name.lower()
    return name in NAMES or name in torchvision_sets.SETS or name.startswith(PREFIX)


def require_known(name: str) -> None:
    """Raise SettingError for an unknown name, with the closest match."""
    if name.lower().startswith(PREFIX):
        parse_hub_name(name, "target")
    elif not is_known(name) and name.lower() not in affective.SETS:
        names = [*NAMES, *affective.SETS, *torchvision_sets.SETS]
        close = nearest(name.lower(), names) or " (known: those of torchvision, and hf:OWNER/NAME)"
        raise SettingError("target.name", f"no target for classification is called '{name}'{close}")


def read_target(settings: TargetSettings, edition: int = EDITION) -> Target:
    """Read the whole task, before `per_class` or a limit applies; if given, only `settings.classes`.

    Args:
        settings: settings of the target; those that choose training images are not used (see `training_part`).
        edition: edition of the run. In the first, a published validation split is trained on.

    Raises:
        UserError: the set is missing or malformed, or has no such class.
    """
    if settings.name.lower() in affective.SETS:
        target = affective.read_affective(settings)
    elif settings.labels == "majority" or (settings.task != "classification" and is_pack(settings.root)):
        target = _read(settings, edition)
    else:
        sets = ", ".join(affective.SETS)
        reason = f"must be majority for {settings.name}, which is not an affective set ({sets}), not {settings.labels}"
        raise SettingError("target.labels", reason)
    target = compose_names(target)
    if edition == 1 and target.validation is not None:
        target = dataclasses.replace(target, train=joined([target.train, target.validation]), validation=None)
    if settings.classes is not None:
        target = _keep_classes(target, tuple(map(composed, settings.classes)))
    return with_notes_on_classes(target)


def with_notes_on_classes(target: Target) -> Target:
    """Add notes on the use of a validation split, and on classes without images in a part."""
    return dataclasses.replace(target, notes=(*target.notes, *_notes_on_classes(target)))


def _keep_classes(target: Target, kept: tuple[str, ...]) -> Target:
    train = keep_classes(target.train, target.classes, kept, "training")
    test = keep_classes(target.test, target.classes, kept, "test")
    validation = target.validation
    if validation is not None:
        validation = keep_classes(validation, target.classes, kept, "validation", may_lack=True)
    return dataclasses.replace(
        target, train=train, test=test, validation=validation, classes=kept, whole=len(target.classes)
    )


def compose_names(target: Target) -> Target:
    """Convert class names to one Unicode form. UserError for control characters, or names that become equal."""
    names = tuple(map(composed, target.classes))
    for name in names:
        if not is_plain(name):  # names are written to files, pages and terminals
            raise UserError(
                f"{target.train.name}: the class name '{name}' contains control characters or broken Unicode; rename it"
            )
        if names.count(name) > 1:
            raise UserError(f"{target.train.name}: two classes are called '{name}', in two Unicode forms; rename one")
    return dataclasses.replace(target, classes=names)


def _notes_on_classes(target: Target) -> Iterator[str]:
    name, labels = target.train.name, target.train.labels
    split = f"its training split, {len(target.train):,} images,"
    yield from classes_without(name, target.test.labels, labels, target.classes, split, "training images")
    split = f"its test split, {len(target.test):,} images,"
    yield from classes_without(name, labels, target.test.labels, target.classes, split, "test images")
    if target.validation is not None:
        yield f"{name}: its own validation split, {len(target.validation):,} images, is used; no images are held out"
        split = "its validation split"
        yield from classes_without(name, labels, target.validation.labels, target.classes, split, "validation images")


def _read(settings: TargetSettings, edition: int) -> Target:
    """Read a set that is not affective, with all classes."""
    name = settings.name.lower()
    if name.startswith(GIVEN_IMAGES):
        reason = f"'{settings.name}' are images that were given in Python: give them again (data=), or name others"
        raise SettingError("target.name", f"{reason}, such as a pack of them (emoreg.write_pack)")
    if settings.root is not None and is_pack(settings.root):
        return _read_pack(settings.root, settings)
    require_known(settings.name)
    refuse_root(settings)
    if name == "digits":
        return digits.read_digits()
    if name == "folder":
        if settings.root is None:
            raise SettingError("target.root", "name the folder or zip of the target 'folder'")
        return folder.read_folder(settings.root, edition)
    if name in cifar.SIZES:
        return cifar.read_cifar(name, settings.root, edition)
    if name.startswith(PREFIX):
        return hugging_face.read_hugging_face(settings.name, settings.root)
    return torchvision_sets.read_torchvision(name, settings.root)


def _read_pack(root: str, settings: TargetSettings) -> Target:
    pack = open_pack(root, "target", settings.name, settings.image_size, settings.fit)
    labels = pack.labels[0]
    packed = labels_of_pack(pack.about)
    if packed != settings.labels:
        what = f"{root} is a pack with {PREDICTED[task_of(packed)]}"
        raise SettingError("target.root", f"{what}; as a target it needs target.labels {packed}")

    def part(split: Split) -> Table:
        rows = np.flatnonzero(pack.splits == split)
        return Table(pack.title, pack.images.take(rows), labels.values[rows])

    validation = part("validation") if np.any(pack.splits == "validation") else None
    target = Target(part("train"), part("test"), labels.names, validation, task=settings.task)
    return dataclasses.replace(target, has_published_test=cifar.is_whole(settings.name.lower(), target))


def labels_of_pack(about: Mapping[str, Any]) -> TargetLabels:
    """The `target.labels` that read a target's pack with this description; majority if it is damaged."""
    try:
        kind = about["labels"][0]["kind"]
    except (LookupError, TypeError):
        return "majority"
    return kind if kind in ("multilabel", "dimensions") else "majority"


def is_own_test_split(settings: TargetSettings, data: str | None) -> bool:
    """Whether `data` of `read_for_scoring` means the test split of the target that a run was trained on."""
    if data is None or data.lower() == settings.name.lower():
        return True
    return settings.root is not None and Path(data).resolve() == Path(settings.root).resolve()


def read_for_scoring(
    settings: TargetSettings,
    data: str | None,
    classes: tuple[str, ...],
    progress: Progress | None = None,
    edition: int = EDITION,
) -> Table:
    """Read labelled images to score a trained classifier on; if given, only `settings.classes`.

    Args:
        settings: the target that the run was trained on.
        data: another target's name, or a folder or zip; None for the run's own test split.
        classes: the classifier's classes; labels are indices into them.
        progress: prints how the images were read; None prints nothing.
        edition: edition of the run.

    Raises:
        UserError: missing images, classes that the classifier does not know, or the own test split of a run that must
            not see it (`settings.test`).
    """
    known = tuple(map(composed, classes))
    if data is None or is_own_test_split(settings, data):
        if not settings.test:
            raise UserError(
                "target.test is false, which leaves this run's test split unseen: name other images (--data on the "
                "command line), or train another run with target.test true"
            )
        target = read_target(without_unread_root(settings), edition)
    elif settings.task != "classification":
        raise UserError(
            f"the run predicts {PREDICTED[settings.task]} and is scored on its own test split alone: leave out "
            f"--data ({data})"
        )
    elif is_pack(data):
        name = str(read_about(data).get("set"))
        labels = settings.labels if name in affective.SETS else "majority"
        target = read_target(
            TargetSettings(
                name, data, settings.classes, image_size=settings.image_size, fit=settings.fit, labels=labels
            )
        )
    elif is_known(data) and (data.lower() not in torchvision_sets.SETS or not Path(data).exists()):
        target = read_target(TargetSettings(name=data, classes=settings.classes))
    else:  # a folder, even if it is named like one of torchvision's sets
        table, notes, left_out = folder.read_for_scoring(data, known, skip_others=settings.classes is not None)
        if progress is not None:
            progress.report_notes(notes, left_out)
        return table
    if target.classes != known:
        raise UserError(f"the classes of {data or settings.name} are not those that the run was trained on")
    if progress is not None:
        progress.report_notes(target.notes, target.left_out)
    return target.test
