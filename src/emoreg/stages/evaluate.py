"""What a finished run of stage 2 scores on its own test split, or on other labelled images."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import TargetSettings
from emoreg.config.target_words import OUTPUTS, describe_target
from emoreg.config.training import Device
from emoreg.data.fingerprint import checksum_of_images, contents_of
from emoreg.data.images.table import Table
from emoreg.data.targets import is_own_test_split, read_for_scoring, read_target
from emoreg.data.targets.target import GIVEN_IMAGES, Target, check_target
from emoreg.errors import SettingError, UserError
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.run import Run, open_run
from emoreg.runtime.places import portable
from emoreg.runtime.progress import Progress
from emoreg.stages.classifier import load_classifier
from emoreg.stages.classify import load_target
from emoreg.stages.confusion import remark_on_answers
from emoreg.stages.inputs import contents_of_given
from emoreg.stages.leaks import count_trained_on
from emoreg.stages.metrics import measure
from emoreg.training.fabric import make_fabric, place, scoring


def evaluate(
    run: Run | Path | str,
    data: Target | Path | str | None = None,
    device: Device = "auto",
    model: RegulatedClassifier | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Metrics of a finished run on its own test split, or on other labelled images.

    The run's own test split was scored once, when training ended; scoring it again says so in a line.

    Args:
        run: the run or its folder.
        data: a target's name ("cifar10"), or a folder or zip of `[test/]<class>/*.jpg|png` whose classes the
            run knows; or images in Python, whose test images are scored; None for the run's own test split.
        device: as training.device.
        model: for a run that trained your own model, one built alike.
        progress: where it is shown; None for the terminal. That it is another look is told even if it is quiet.

    Returns:
        target, what was scored in words; `measure`'s metrics; images_trained_on, how many of the images the run was
        trained on (None where it has no record of these); images_per_second; and classes, their names in the order of
        per_class and confusion.

    Raises:
        UserError: unfinished run; missing images; classes that the run does not know; the own test split of a run
            that leaves it unseen (target.test).
    """
    progress = progress or Progress()
    run = open_run(run)
    recipe = run.recipe
    if not isinstance(recipe, TrainRecipe):
        raise UserError(f"{run.folder} is a run of stage 1; evaluate takes a classifier's")
    training = scoring(recipe, run, device)
    fabric = make_fabric(training)
    classifier, classes = load_classifier(run, model)
    target = recipe.target
    was, checksum = run.inputs.data.get("target"), run.final.get("test_images_checksum")
    if data is None or isinstance(data, str | Path):
        data = None if data is None else str(data)
        if data is not None and not is_own_test_split(target, data) and _holds(data, run):
            target = dataclasses.replace(target, root=data)
        table = read_for_scoring(target, data, classes, progress, recipe.edition)
        is_own = is_own_test_split(target, data)
        now = contents_of(target) if is_own else None
        scored = portable(str(data), run.folder)
    else:
        table, scored, now = _test_of(data, target, classes), f"{GIVEN_IMAGES}{data.test.name}", None
        is_own = False
        if checksum is None:
            given = contents_of_given(data)
            is_known = was is not None and given is not None
            is_own = was == given if is_known else target.name == f"{GIVEN_IMAGES}{data.train.name}"
    if not is_own and checksum is not None:
        is_own = checksum_of_images(table) == checksum
    if is_own and not target.test:
        raise UserError("target.test is false, which leaves this run's test split unseen: give other images (data=)")
    images = load_target(table, recipe.target, training, fabric, progress)
    trained_on = count_trained_on(run, images, progress)
    if is_own:
        progress.warn(
            f"{run.folder.name}: another look at its test images, which were scored when training ended; choices made "
            "from it bias what is reported on them"
        )
        if was is not None and now is not None and was.sha256 != now.sha256:
            progress.warn(f"{run.folder.name}: its images have changed since it was trained: {was} then, {now} now")
    if trained_on is None and not is_own:
        progress.say(
            f"{run.folder.name} holds no record of its training images, as runs of earlier versions and of sets too "
            "large to hold in memory: not checked whether these are among them"
        )
    place(classifier, fabric)
    begun = time.perf_counter()
    metrics = measure(classifier, images, fabric, names=classes)
    speed = len(images) / (time.perf_counter() - begun)
    if remark := remark_on_answers(metrics, classes):
        progress.say(f"{run.folder.name}: {remark}")
    what = describe_run(run) if is_own else f"{scored}, {len(classes)} {OUTPUTS[target.task]}"
    return {
        "target": what,
        **metrics,
        "images_trained_on": trained_on,
        "images_per_second": speed,
        "classes": list(classes),
    }


def describe_run(run: Run) -> str:
    """The target of a finished run of stage 2 in words, see `describe_target`. UserError if its files are damaged."""
    recipe, final = run.recipe, run.final
    assert isinstance(recipe, TrainRecipe)
    return describe_target(recipe.target, len(final.get("classes") or ()) or None, whole_of(final))


def whole_of(final: Mapping[str, Any]) -> int | None:
    """Number of classes of a run's whole target, from its final.json; None in that of an earlier emoreg."""
    told = final.get("target")
    found = told.get("classes") if isinstance(told, Mapping) else None
    return found if type(found) is int and found > 0 else None


def _test_of(data: Target, target: TargetSettings, classes: tuple[str, ...]) -> Table:
    """The test images that a caller gives. UserError for another task, or classes, than the run was trained on."""
    check_target(data)
    if data.task != target.task:
        raise SettingError("data.task", f"is {data.task}, and the run was trained on {target.task}")
    if data.classes != classes:
        raise SettingError(
            "data.classes", f"must be those that the run was trained on, in their order: {', '.join(classes)}"
        )
    return data.test


def _holds(root: str, run: Run) -> bool:
    """Whether the images that a run was trained with are at `root` now, whatever their path was.

    Of files that are known by name and size those of the test split must be the same by their content too.
    """
    recipe, was, checksum = run.recipe, run.inputs.data.get("target"), run.final.get("test_images_checksum")
    assert isinstance(recipe, TrainRecipe)
    there = dataclasses.replace(recipe.target, root=root)
    now = contents_of(there)
    if was is None or now is None or was.sha256 is None or was.sha256 != now.sha256:
        return False
    return checksum is None or checksum_of_images(read_target(there, recipe.edition).test) == checksum
