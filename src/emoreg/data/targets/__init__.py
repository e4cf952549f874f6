"""Targets: the image classification tasks of stage 2."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from emoreg.config.recipe import EDITION
from emoreg.config.schema import TargetSettings
from emoreg.config.target_words import ANSWERED
from emoreg.data.images.hugging_face import PREFIX, parts_of
from emoreg.data.images.names import composed
from emoreg.data.images.packed import Pack, is_pack, open_pack, read_about
from emoreg.data.images.splits import classes_without
from emoreg.data.images.table import Table, joined
from emoreg.data.targets import affective, cifar, digits, folder, hugging_face, torchvision_sets
from emoreg.data.targets.subsets import keep_classes
from emoreg.data.targets.target import GIVEN_IMAGES, Target
from emoreg.errors import SettingError, UserError, is_plain, nearest
from emoreg.runtime.progress import Progress

__all__ = [
    "Target",
    "is_known",
    "is_own_test_split",
    "read_for_scoring",
    "read_target",
    "require_known",
    "with_notes_on_classes",
]

NAMES = ("digits", "cifar10", "cifar100", "folder")


def is_known(name: str) -> bool:
    """Whether `name` is that of a target, whatever the case of its letters."""
    name = name.lower()
    return name in NAMES or name in torchvision_sets.SETS or name.startswith(PREFIX)


def require_known(name: str) -> None:
    """SettingError, of target.name, for a name that is no target's, with the nearest one or the form of the Hub's."""
    if name.lower().startswith(PREFIX):
        parts_of(name, "target")
    elif not is_known(name) and name.lower() not in affective.SETS:
        names = [*NAMES, *affective.SETS, *torchvision_sets.SETS]
        close = nearest(name.lower(), names) or " (known: those of torchvision, and hf:OWNER/NAME)"
        raise SettingError("target.name", f"no target for classification is called '{name}'{close}")


def read_target(settings: TargetSettings, edition: int = EDITION) -> Target:
    """The whole task, before any cut of `per_class` or limit; of `settings.classes` only, if given.

    Args:
        settings: name and location of the set.
        edition: of the run; in the first one a published validation split was trained on.

    Raises:
        UserError: the set is missing or malformed, or a class is not in it; says where and what to do.
    """
    is_affective = settings.name.lower() in affective.SETS
    if settings.labels != "majority" and not is_affective:
        sets = ", ".join(affective.SETS)
        reason = f"must be majority for {settings.name}, which is no affective set as {sets} are, not {settings.labels}"
        raise SettingError("target.labels", reason)
    target = _with_composed_names(affective.read_affective(settings) if is_affective else _read(settings, edition))
    if edition == 1 and target.validation is not None:
        target = dataclasses.replace(target, train=joined([target.train, target.validation]), validation=None)
    if settings.classes is not None:
        kept = tuple(map(composed, settings.classes))
        target = dataclasses.replace(
            target,
            train=keep_classes(target.train, target.classes, kept, "training"),
            test=keep_classes(target.test, target.classes, kept, "test"),
            validation=target.validation
            and keep_classes(target.validation, target.classes, kept, "validation", may_lack=True),
            classes=kept,
            whole=len(target.classes),
        )
    return with_notes_on_classes(target)


def with_notes_on_classes(target: Target) -> Target:
    """The same with lines on classes without images in a part, and on a setting that is not used."""
    return dataclasses.replace(target, notes=(*target.notes, *_what_is_missing(target)))


def _with_composed_names(target: Target) -> Target:
    """The same with its classes' names in one Unicode form. UserError for names that are not plain, or alike."""
    names = tuple(map(composed, target.classes))
    for name in names:
        if not is_plain(name):  # it would be written to files, pages and terminals
            raise UserError(
                f"{target.train.name}: the class name '{name}' contains control characters or broken Unicode; rename it"
            )
        if names.count(name) > 1:
            raise UserError(f"{target.train.name}: two classes are called '{name}', in two Unicode forms; rename one")
    return dataclasses.replace(target, classes=names)


def _what_is_missing(target: Target) -> Iterator[str]:
    name, labels = target.train.name, target.train.labels
    what = f"its training split, {len(target.train):,} images,"
    yield from classes_without(name, target.test.labels, labels, target.classes, what, "training images")
    what = f"its test split, {len(target.test):,} images,"
    yield from classes_without(name, labels, target.test.labels, target.classes, what, "test images")
    if target.validation is not None:
        yield f"{name}: its own validation split, {len(target.validation):,} images, is used; no share is cut for it"
        what = "its validation split"
        yield from classes_without(name, labels, target.validation.labels, target.classes, what, "validation images")


def _read(settings: TargetSettings, edition: int) -> Target:
    name = settings.name.lower()
    if name.startswith(GIVEN_IMAGES):
        reason = f"'{settings.name}' are images that were given in Python: name others, or give them again (data=)"
        raise SettingError("target.name", reason)
    if settings.root is not None and is_pack(settings.root):
        target = _unpack(open_pack(settings.root, "target", settings.name, settings.image_size, settings.fit))
        is_whole = name in cifar.SIZES and cifar.is_whole(name, target)  # a pack does not tell of others
        return dataclasses.replace(target, has_published_test=is_whole)
    require_known(settings.name)
    if name == "digits":
        return digits.read_digits()
    if name == "folder":
        if settings.root is None:
            raise SettingError("target.root", "name the folder or zip of the target 'folder'")
        return folder.read_folder(settings.root, edition)
    if name in ("cifar10", "cifar100"):
        return cifar.read_cifar(name, settings.root, edition)
    if name.startswith(PREFIX):
        return hugging_face.read_hugging_face(settings.name, settings.root)
    return torchvision_sets.read_torchvision(name, settings.root)


def _unpack(pack: Pack) -> Target:
    labels = pack.labels[0]
    rows = {split: np.flatnonzero(pack.splits == split) for split in ("train", "validation", "test")}
    parts = {
        split: Table(pack.title, pack.images.take(part), labels.values[part])
        for split, part in rows.items()
        if split != "validation" or len(part)
    }
    return Target(parts["train"], parts["test"], labels.names, parts.get("validation"))


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
    """Labelled images to score a trained classifier on; of `settings.classes` only, if given.

    Args:
        settings: the target that the run was trained on.
        data: another target's name, or a folder or zip; None for the run's own test split.
        classes: the classifier's classes; labels are indices into them.
        progress: says what was taken for what; None for silence.
        edition: of the run.

    Raises:
        UserError: missing images; classes that the classifier does not know; the own test split of a run that leaves it
            unseen (`settings.test`).
    """
    is_own = is_own_test_split(settings, data)
    if is_own and not settings.test:
        raise UserError(
            "target.test is false, which leaves this run's test split unseen: name other images (--data on the command "
            "line), or train another run with target.test true"
        )
    own = tuple(map(composed, classes))
    if settings.task != "classification" and not is_own:
        raise UserError(
            f"the run answers with {ANSWERED[settings.task]} and is scored on its own test split alone: leave out "
            f"--data ({data})"
        )
    if data is None or is_own:
        target = read_target(settings, edition)
    elif is_pack(data):
        name = str(read_about(data).get("set"))
        packed = TargetSettings(name, data, settings.classes, image_size=settings.image_size, fit=settings.fit)
        target = read_target(packed)
    elif is_known(data) and (data.lower() not in torchvision_sets.SETS or not Path(data).exists()):
        target = read_target(TargetSettings(name=data, classes=settings.classes))
    else:  # a folder, even if it is named like one of torchvision's sets
        table, *told = folder.read_for_scoring(data, own, skip_others=settings.classes is not None)
        if progress is not None:
            progress.tell(*told)
        return table
    if target.classes != own:
        raise UserError(f"the classes of {data or settings.name} are not those that the run was trained on")
    if progress is not None:
        progress.tell(target.notes, target.left_out)
    return target.test
