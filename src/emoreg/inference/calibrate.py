"""Fit the temperature of a finished classifier, on images that it was neither trained nor tested on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.nn import functional as F

from emoreg.config.recipe import TrainRecipe
from emoreg.config.target_words import PREDICTED
from emoreg.config.training import Device
from emoreg.data.images.image_set import ImageSet
from emoreg.data.images.table import Table
from emoreg.data.targets.target import Target
from emoreg.errors import UserError, printable
from emoreg.inference.temperature import Calibration, write_calibration
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.provenance import environment, package_version
from emoreg.runs.run import Run, open_run
from emoreg.runtime.lock import hold
from emoreg.runtime.progress import Progress
from emoreg.stages.classifier import load_classifier
from emoreg.stages.evaluate import read_labelled
from emoreg.stages.leaks import count_trained_on, report_unchecked
from emoreg.stages.target_images import load_target, parts_of
from emoreg.suites.calibration import MAX_TEMPERATURE, fit_temperature
from emoreg.suites.subject import checksum_of, outputs_of, refuse_changed_images, refuse_other_images, target_of
from emoreg.training.fabric import make_fabric, place, resolve_precision, scoring_settings


def calibrate(
    run: Run | Path | str,
    data: Target | Path | str | None = None,
    device: Device = "auto",
    model: RegulatedClassifier | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Fit the temperature T of a finished classifier, and record it in the run's folder (calibration.json).

    Temperature scaling (Guo et al. 2017): T minimises the mean cross-entropy (NLL) of z / T, where z are the regulated
    logits. `predict` and `export` use it with `temperature="calibrated"`. An earlier record is replaced. Fitted on all
    validation images of a run with test images, T is that of the suite `calibration`.

    Args:
        run: a finished run of stage 2, of one class per image, or its folder.
        data: labelled images instead of the run's validation images, as for `evaluate`: a target's name, a folder or a
            zip; or, for a run that was given its images in Python, the same images, whose validation images are used.
        device: as `training.device`.
        model: for a run that trained your own model, one built with the same code.
        progress: shows progress; None for the terminal.

    Returns:
        The temperature, in [0.01, 100], the name and number of the images, and their NLL before and after.

    Raises:
        UserError: the run is not finished, has no validation images, or does not predict classes; its folder cannot be
            written; the images have changed, are those that it was trained or tested on, or are all classified
            correctly.
        FolderInUse: another process works on the run.
    """
    progress, run = progress or Progress(), open_run(run)
    recipe = run.recipe
    if not isinstance(recipe, TrainRecipe):
        raise UserError(f"{run.folder} is a run of stage 1; a temperature calibrates classifiers")
    if (task := recipe.target.task) != "classification":
        what = f"{run.folder} predicts {PREDICTED[task]}"
        raise UserError(f"{what}; a temperature calibrates classifiers that predict one class per image")
    with hold(run.folder):  # its weights stay those that the temperature is recorded for
        classifier, classes = load_classifier(run, model)
        training = scoring_settings(recipe, run, device)
        fabric = make_fabric(training)
        if isinstance(data, str | Path):
            table, source, is_own = read_labelled(run, recipe, data, classes, progress)
            if is_own:
                raise UserError(
                    f"{data} holds the test images of {run.folder}, which must stay unseen: give other images"
                )
            name = printable(f"images of {source}")
            images = load_target(table, recipe.target, training, fabric, progress)
            _refuse_training_images(run, images, name, progress)
        else:
            name, table = "validation images", _validation_images(run, recipe, classes, data)
            images = load_target(table, recipe.target, training, fabric, progress)
            refuse_changed_images(run, recipe, images, "validation")

        outputs = outputs_of(place(classifier, fabric).eval(), images, fabric)
        if outputs.accuracy == 1:
            raise UserError(
                f"{run.folder} classifies all {len(images):,} {name} correctly, so that the NLL only falls with the "
                "temperature and none is the best: give more labelled images (--data)"
            )
        temperature, z = fit_temperature(outputs.logits, outputs.labels), outputs.logits.double()
        if temperature > 0.99 * MAX_TEMPERATURE:
            progress.warn(
                f"{run.folder.name}: the temperature is the highest, at which all classes are almost equally probable: "
                f"the predictions for these {len(images):,} images are no better than chance; are the labels right?"
            )
        nll, nll_scaled = (F.cross_entropy(logits, outputs.labels).item() for logits in (z, z / temperature))
        calibration = Calibration(temperature, name, len(images), nll, nll_scaled)
        where: dict[str, Any] = environment()
        where["packages"] = {**where["packages"], "scipy": package_version("scipy")}
        where |= {"device": str(fabric.device), "precision": resolve_precision(training, fabric.device.type)}
        write_calibration(run, calibration, checksum_of(images), where)
        return calibration


def _validation_images(run: Run, recipe: TrainRecipe, classes: tuple[str, ...], data: Target | None) -> Table:
    """The validation images of a run. UserError if it has none."""
    if data is not None:
        refuse_other_images(run, data)
    _, validation, _ = parts_of(target_of(run, recipe, classes, data), recipe)
    if validation is None:
        raise UserError(
            f"{run.folder} has no validation images, and a temperature fitted on images that it was trained or tested "
            "on would mislead: give other labelled images (--data), or train a run with target.validation above 0"
        )
    return validation


def _refuse_training_images(run: Run, images: ImageSet, name: str, progress: Progress) -> None:
    """Raise UserError if images are among those that a run was trained on; print a line if it has no record of them."""
    count = count_trained_on(run, images, Progress(quiet=True))
    if count is None:
        report_unchecked(run, progress)
    elif count:
        raise UserError(
            f"{count:,} of the {len(images):,} {name} are among those that {run.folder} was trained on, where it is "
            "too confident: leave them out"
        )
