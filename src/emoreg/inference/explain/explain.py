"""Explain a trained classifier: saliency of both branches, effect of the emotional response, features."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray

from emoreg.config.training import Device
from emoreg.data.images.augment import normalise
from emoreg.data.images.batches import evaluation_batches
from emoreg.data.images.decode import decode
from emoreg.data.images.image_set import ImageSet, load_images
from emoreg.errors import UserError
from emoreg.inference.explain.effect import ClassEffect, Floats, class_effects, split_responses
from emoreg.inference.explain.explanation import ExplainedImage, ExplainedSplit
from emoreg.inference.explain.page import write_page
from emoreg.inference.explain.projection import Method, Projection, project
from emoreg.inference.explain.saliency import saliency_maps
from emoreg.inference.load import LoadedRun, load_run, require_classes
from emoreg.inference.pictures import thumbnail
from emoreg.inference.predict import Image, Images, find_images, predict
from emoreg.runs.run import Run
from emoreg.runtime.places import portable
from emoreg.runtime.progress import Progress
from emoreg.runtime.safe_io import make_folder, write_atomically
from emoreg.stages.evaluate import read_labelled
from emoreg.stages.leaks import count_trained_on
from emoreg.stages.target_images import limited_test, load_target
from emoreg.training.fabric import make_fabric, place, scoring_settings

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MAX_IMAGES = 52  # on one page
CHOSEN = 6  # labelled images that are explained if no images are given
POINTS = 1000  # labelled images whose features are projected


def explain(
    run: LoadedRun | Run | Path | str,
    images: Images = (),
    out: Path | str = "explain",
    *,
    data: str | None = None,
    projection: Method = "tsne",
    points: int = POINTS,
    device: Device = "auto",
    progress: Progress | None = None,
) -> Path:
    """Write a page about a classifier, with its pictures and charts as files beside it.

    Args:
        run: a finished run of stage 2, its folder, or the result of `load_run`.
        images: as for `predict`; if empty, the labelled images on which the emotional response has most effect.
        out: output folder.
        data: labelled images to use instead of the run's test split: name of a target, a folder or a zip. The page says
            how many of them the run was trained on.
        projection: method that projects features to two dimensions.
        points: maximum number of projected labelled images; sampled with the run's seed.
        device: as `training.device`.
        progress: where to report progress; None for the terminal.

    Returns:
        The path of the page.

    Raises:
        UserError: the run is unfinished; images are missing or unreadable; captum is not installed. If images are given
            and only the test split cannot be read, the page is written without it.
    """
    progress, out = progress or Progress(), Path(out)
    loaded = run if isinstance(run, LoadedRun) else load_run(run)
    require_classes(loaded, "an explanation")
    if points < 3:
        raise UserError(f"the number of points is {points}; it must be at least 3")
    is_chosen = isinstance(images, tuple | list) and not images
    shown: list[Image] = [] if is_chosen else find_images(images, progress)
    if len(shown) > MAX_IMAGES:
        raise UserError(f"{len(shown)} images are too many for one page; give at most {MAX_IMAGES}")
    make_folder(out)
    fabric = make_fabric(scoring_settings(loaded.recipe, Run(loaded.folder), device))
    place(loaded.model, fabric)
    if loaded.readout is not None:
        place(loaded.readout.model, fabric)

    split, missing = None, ""
    try:
        split = _analyse_split(loaded, data, points, fabric, progress)
    except UserError as error:
        if is_chosen or data is not None:
            raise
        missing = str(error)
        progress.say(f"the page is written without the test split: {error}")
    captions = None
    if split is not None and is_chosen:
        labels, change = split.responses.labels, split.responses.change
        chosen = _most_changed(change)
        shown = list(split.pixels(chosen))
        captions = [
            (f"{split.kind} {row} ({loaded.classes[labels[row]]})", f"change {change[row]:+.2f}") for row in chosen
        ]
    explained = _explain_images(loaded, shown, captions, fabric, progress)
    if split is not None:
        split = dataclasses.replace(split, projections=_project(loaded, split, shown, projection, fabric, progress))
        if split.effects:
            _write_table(out / "leaning.csv", split.effects)
    return write_page(out, loaded, explained, split, missing, is_chosen)


def _analyse_split(
    loaded: LoadedRun, data: str | None, points: int, fabric: Fabric, progress: Progress
) -> ExplainedSplit:
    """Analyse labelled images. They are projected later, with the explained images, which depend on the analysis."""
    run, recipe = Run(loaded.folder), loaded.recipe
    table, _, is_own = read_labelled(run, recipe, data, loaded.classes, progress)
    if is_own:
        if not recipe.target.test:
            raise UserError(f"{data} holds the test images of {run.folder}, which must stay unseen: give other images")
        table = limited_test(table, recipe)
    images = load_target(table, recipe.target, recipe.training, fabric, progress)
    trained_on = count_trained_on(run, images, progress)
    sample = np.random.default_rng(loaded.recipe.seed).permutation(len(images))[:points]
    rows = np.sort(sample).astype(np.int64)
    responses = split_responses(loaded.model, images, rows, fabric)
    effects = [] if responses.lam is None else class_effects(responses, loaded.classes)
    felt = _felt(loaded, images, rows, fabric, progress)
    return ExplainedSplit(images, responses, effects, rows, felt, is_own, trained_on)


def _felt(
    loaded: LoadedRun, images: ImageSet, rows: NDArray[np.int64], fabric: Fabric, progress: Progress
) -> Floats | None:
    """Read emotion from images, decoded again at the size of stage 1. None without a readout."""
    readout = loaded.readout
    if readout is None:
        return None
    limit = loaded.recipe.training.memory_limit_gib
    resized = load_images(images.table.take(rows), readout.image_size, False, limit, progress, readout.fit)
    resized = resized.to(fabric.device)
    with fabric.autocast():
        return torch.cat([readout.read(batch) for batch, _ in evaluation_batches(resized)]).cpu().numpy()


def _most_changed(change: Floats) -> NDArray[np.int64]:
    """Rows of the images whose true class gains or loses most probability from the emotional response.

    The first rows if nothing changes, as without an emotional branch.
    """
    if not change.any():
        return np.arange(min(CHOSEN, len(change)))
    order, half = np.argsort(-change, kind="stable"), CHOSEN // 2
    return order if len(order) <= CHOSEN else np.concatenate([order[:half], order[-half:]])


def _explain_images(
    loaded: LoadedRun,
    images: Sequence[Image],
    captions: Sequence[tuple[str, str]] | None,
    fabric: Fabric,
    progress: Progress,
) -> list[ExplainedImage]:
    predictions = list(predict(loaded, images, device=cast(Device, fabric.device.type)))
    explained = []
    with progress.task("compute saliency maps", len(images), "images") as advance:
        for number, prediction in enumerate(predictions):
            batch = _batch([prediction.source], loaded, fabric)
            (maps,) = saliency_maps(loaded.model, batch, [prediction.regulated.index])
            name, note = captions[number] if captions else (portable(prediction.image, Path()), "")
            picture = np.asarray(thumbnail(prediction.source, loaded.fit))
            explained.append(ExplainedImage(name, note, picture, prediction, maps))
            advance(1)
    return explained


def _project(
    loaded: LoadedRun,
    split: ExplainedSplit,
    explained: Sequence[Image],
    method: Method,
    fabric: Fabric,
    progress: Progress,
) -> tuple[Projection, ...]:
    if len(split.rows) + len(explained) < 3:
        return ()
    batch = _batch(explained, loaded, fabric)
    branches = (
        ("Features of the backbone", loaded.model.backbone, split.responses.features),
        ("Features of the emotional encoder", loaded.model.encoder, split.responses.emotional_features),
    )
    projections = []
    with progress.task("project the features", len(branches), "branches") as advance:
        for title, module, features in branches:
            if module is not None and features is not None:
                with torch.inference_mode(), fabric.autocast():
                    marked = module(batch).float().cpu().numpy()
                projections.append(project(title, np.concatenate([features, marked]), method, loaded.recipe.seed))
            advance(1)
    return tuple(projections)


def _batch(images: Sequence[Image], loaded: LoadedRun, fabric: Fabric) -> torch.Tensor:
    """Decode images to a batch for the network: normalised, (B, 3, S, S), on the device."""
    squares = [decode(image, loaded.image_size, loaded.fit) for image in images]
    pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
    return normalise(pixels.to(fabric.device))


def _write_table(path: Path, effects: Sequence[ClassEffect]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "images", "change", "low", "high", "accuracy_without", "accuracy", "lambda"])
    for effect in effects:
        change = effect.change
        values = (change.mean, change.low, change.high, effect.accuracy_without, effect.accuracy, effect.lam)
        writer.writerow([effect.name, change.n, *("" if math.isnan(value) else f"{value:.6f}" for value in values)])
    write_atomically(path, text.getvalue().encode())
