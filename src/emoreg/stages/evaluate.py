"""Measure a finished run of stage 2 on its own test split, or on other labelled images."""

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
from emoreg.data.given import contents_of_given
from emoreg.data.images.table import Table
from emoreg.data.targets import is_own_test_split, read_for_scoring, read_target
from emoreg.data.targets.target import GIVEN_IMAGES, Target, check_target
from emoreg.errors import SettingError, UserError
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.run import Run, open_run
from emoreg.runtime.places import portable
from emoreg.runtime.progress import Progress
from emoreg.stages.classifier import load_classifier
from emoreg.stages.confusion import remark_on_predictions
from emoreg.stages.leaks import count_trained_on, report_unchecked
from emoreg.stages.metrics import measure
from emoreg.stages.target_images import load_target
from emoreg.training.fabric import make_fabric, place, scoring_settings


def evaluate(
    run: Run | Path | str,
    data: Target | Path | str | None = None,
    device: Device = "auto",
    model: RegulatedClassifier | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a finished run on its own test split, or on other labelled images.

    The run's own test split was scored once, when training ended; scoring it again prints a warning.

    Args:
        run: the run or its folder.
        data: a target's name ("cifar10"), or a folder or zip of `[test/]<class>/*.jpg|png` whose classes the
            run knows; or images in Python, whose test images are scored; None for the run's own test split.
        device: as training.device.
        model: for a run that trained your own model, one built alike.
        progress: None prints to the terminal. The warning about another look is printed even if it is quiet.

    Returns:
        target, a description of what was scored; `measure`'s metrics; images_trained_on, the number of images that the
        run was trained on (None if it has no record of them); images_per_second; and classes, their names in the order
        of per_class and confusion.

    Raises:
        UserError: unfinished run; missing images; classes that the run does not know; the own test split of a run
            that leaves it unseen (target.test).
    """
    progress = progress or Progress()
    run = open_run(run)
    recipe = run.recipe
    if not isinstance(recipe, TrainRecipe):
        raise UserError(f"{run.folder} is a run of stage 1; evaluate takes a classifier's")
    training = scoring_settings(recipe, run, device)
    fabric = make_fabric(training)
    classifier, classes = load_classifier(run, model)
    if data is None or isinstance(data, str | Path):
        table, name, is_own = read_labelled(run, recipe, data, classes, progress)
    else:
        table, name, is_own = _given(run, recipe.target, data, classes)
    if is_own and not recipe.target.test:
        raise UserError("target.test is false, which leaves this run's test split unseen: give other images (data=)")
    images = load_target(table, recipe.target, training, fabric, progress)
    trained_on = count_trained_on(run, images, progress)
    if is_own:
        progress.warn(
            f"{run.folder.name}: another look at its test images, which were scored when training ended; choices made "
            "from it bias what is reported on them"
        )
    elif trained_on is None:
        report_unchecked(run, progress)
    place(classifier, fabric)
    start = time.perf_counter()
    metrics = measure(classifier, images, fabric, names=classes)
    speed = len(images) / (time.perf_counter() - start)
    if remark := remark_on_predictions(metrics, classes):
        progress.say(f"{run.folder.name}: {remark}")
    scored = f"{name}, {len(classes)} {OUTPUTS[recipe.target.task]}"
    return {
        "target": describe_target(recipe.target, len(classes), total_classes(run.final)) if is_own else scored,
        **metrics,
        "images_trained_on": trained_on,
        "images_per_second": speed,
        "classes": list(classes),
    }


def read_labelled(
    run: Run, recipe: TrainRecipe, data: str | Path | None, classes: tuple[str, ...], progress: Progress
) -> tuple[Table, str, bool]:
    """Read images by the name or place of a target, or the run's own; warn if these have changed.

    Returns:
        The images, their name, and whether they are the run's own test split.
    """
    target, source = recipe.target, None if data is None else str(data)
    if source is not None and not is_own_test_split(target, source) and _holds(source, run, recipe):
        target = dataclasses.replace(target, root=source)
    table = read_for_scoring(target, source, classes, progress, recipe.edition)
    is_own = is_own_test_split(target, source)
    if is_own:
        then, now = run.inputs.data.get("target"), contents_of(target)
        if then is not None and now is not None and then.sha256 != now.sha256:
            progress.warn(f"{run.folder.name}: its images have changed since it was trained: {then} then, {now} now")
    return table, portable(str(source), run.folder), is_own or _has_checksum(table, run)


def _given(run: Run, target: TargetSettings, data: Target, classes: tuple[str, ...]) -> tuple[Table, str, bool]:
    """As `read_labelled`, of a user-supplied target, if its task and classes are the run's."""
    check_target(data)
    if data.task != target.task:
        raise SettingError("data.task", f"is {data.task}, and the run was trained on {target.task}")
    if data.classes != classes:
        raise SettingError(
            "data.classes", f"must be those that the run was trained on, in their order: {', '.join(classes)}"
        )
    is_own = _has_checksum(data.test, run)
    if run.final.get("test_images_checksum") is None:  # a run of an earlier version
        then, now = run.inputs.data.get("target"), contents_of_given(data)
        is_known = then is not None and now is not None
        is_own = then == now if is_known else target.name == f"{GIVEN_IMAGES}{data.train.name}"
    return data.test, f"{GIVEN_IMAGES}{data.test.name}", is_own


def _has_checksum(table: Table, run: Run) -> bool:
    """Whether images are a run's own test images by their content; False if the run has no record of it."""
    checksum = run.final.get("test_images_checksum")
    return checksum is not None and checksum_of_images(table) == checksum


def _holds(root: str, run: Run, recipe: TrainRecipe) -> bool:
    """Whether the images of a run are at `root` now, though its recipe has another path.

    Since files are identified by name and size only, the test images must be equal by their content too.
    """
    target = dataclasses.replace(recipe.target, root=root)
    then, now = run.inputs.data.get("target"), contents_of(target)
    if then is None or now is None or then.sha256 is None or then.sha256 != now.sha256:
        return False
    if run.final.get("test_images_checksum") is None:
        return True
    return _has_checksum(read_target(target, recipe.edition).test, run)


def total_classes(final: Mapping[str, Any]) -> int | None:
    """Number of classes of a run's whole target, from its final.json; None if an earlier emoreg wrote it."""
    target = final.get("target")
    count = target.get("classes") if isinstance(target, Mapping) else None
    return count if type(count) is int and count > 0 else None
