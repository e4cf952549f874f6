"""Look inside a trained classifier: where both branches look, what it leans on, how its features lie."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from emoreg.config.schema import Device
from emoreg.data.images.augment import normalise
from emoreg.data.images.batches import evaluation_batches
from emoreg.data.images.decode import decode
from emoreg.data.images.image_set import ImageSet, load_images
from emoreg.data.targets import read_for_scoring
from emoreg.errors import UserError
from emoreg.inference.explain.explanation import Explained, Plane, Split, squares
from emoreg.inference.explain.leaning import Floats, Leaning, Looked, leanings, look, project
from emoreg.inference.explain.saliency import salient
from emoreg.inference.load import LoadedRun, load_run
from emoreg.inference.pictures import thumbnail
from emoreg.inference.predict import Image, Images, find_images, predict
from emoreg.runs.run import Run
from emoreg.runtime.progress import Progress
from emoreg.runtime.safe_io import write_atomically
from emoreg.training.loop import make_fabric

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Method = Literal["tsne", "pca"]
MAX_IMAGES = 52  # a page with more is read by nobody
CHOSEN = 6  # test images, where none are given
POINTS = 1000  # of the test split, in the planes of features


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
        run: of a classifier, its folder, or what `load_run` gives.
        images: as for `predict`; none for the test images where the emotional response changes most.
        out: the folder that is written to.
        data: labelled images in place of the run's test split: a target's name, a folder or a zip.
        projection: of the features on a plane.
        points: images in it, at most; drawn by seed.
        device: as training.device.
        progress: where it is shown; None for the terminal.

    Returns:
        The path of the page.

    Raises:
        UserError: unfinished run; missing or unreadable images; captum is not installed. Where the test split cannot
            be read, and images are given, the page goes without it.
    """
    from emoreg.inference.explain.page import write_page

    progress, out = progress or Progress(), Path(out)
    loaded = run if isinstance(run, LoadedRun) else load_run(run)
    if points < 3:
        raise UserError(f"the number of points is {points}; it must be at least 3")
    given: list[Image] = find_images(images) if isinstance(images, Path | str) or len(images) else []
    if len(given) > MAX_IMAGES:
        raise UserError(f"{len(given)} images are too many for one page; give at most {MAX_IMAGES}")
    _make_folder(out)
    fabric = make_fabric(dataclasses.replace(loaded.recipe.training, device=device))
    loaded.model.to(fabric.device)
    if loaded.readout is not None:
        loaded.readout.model.to(fabric.device)

    missing = ""
    try:
        labelled, rows, looked = _look_at_split(loaded, data, points, fabric, progress)
    except UserError as error:
        if not given or data is not None:
            raise
        labelled, missing = None, str(error)
        progress.say(f"the page goes without the test split: {error}")
    names = None
    if labelled is not None and not given:
        chosen = _most_changed(looked)
        given, names = _test_images(labelled, chosen, looked, loaded.classes)
    explained = _explain_images(loaded, given, names, fabric, progress)
    split = None
    if labelled is not None:
        split = _split(loaded, labelled, rows, looked, given, projection, fabric, progress)
        _write_table(out / "leaning.csv", split.leanings)
    return write_page(out, loaded, explained, split, missing, is_chosen=names is not None)


def _look_at_split(
    loaded: LoadedRun, data: str | None, points: int, fabric: Fabric, progress: Progress
) -> tuple[ImageSet, NDArray[np.int64], Looked]:
    target, training = loaded.recipe.target, loaded.recipe.training
    table = read_for_scoring(target, data, loaded.classes)
    images = load_images(table, loaded.image_size, target.skip_unreadable, training.memory_limit_gib, progress).to(
        fabric.device
    )
    draw = np.random.default_rng(loaded.recipe.seed)
    rows = np.sort(draw.permutation(len(images))[:points]).astype(np.int64)
    return images, rows, look(loaded.model, images, rows, fabric)


def _most_changed(looked: Looked) -> NDArray[np.int64]:
    """Half of them those that the emotional response helps most, half those that it harms most."""
    order = np.argsort(-looked.change, kind="stable")
    half = min(CHOSEN, len(order)) // 2
    return np.concatenate([order[: CHOSEN - half], order[len(order) - half :]]) if len(order) > CHOSEN else order


def _test_images(
    images: ImageSet, rows: NDArray[np.int64], looked: Looked, classes: Sequence[str]
) -> tuple[list[Image], list[tuple[str, str]]]:
    pixels = squares(images, rows)
    names = [
        (f"test image {row} ({classes[looked.labels[row]]})", f"change {looked.change[row]:+.2f}")
        for row in rows.tolist()
    ]
    return list(pixels), names


def _explain_images(
    loaded: LoadedRun,
    images: Sequence[Image],
    names: Sequence[tuple[str, str]] | None,
    fabric: Fabric,
    progress: Progress,
) -> list[Explained]:
    predictions = list(predict(loaded, images, device=cast(Device, fabric.device.type)))
    explained = []
    with progress.task("look where both branches look", len(images), "images") as advance:
        for number, prediction in enumerate(predictions):
            pixels = _pixels([prediction.source], loaded.image_size).to(fabric.device)
            answer = int(prediction.regulated.probabilities.argmax())
            (saliency,) = salient(loaded.model, normalise(pixels), [answer])
            picture = np.asarray(thumbnail(prediction.source))
            name, note = names[number] if names else (prediction.image, "")
            explained.append(Explained(name, note, picture, prediction, saliency))
            advance(1)
    return explained


def _pixels(images: Sequence[Image], image_size: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([decode(image, image_size) for image in images])).permute(0, 3, 1, 2)


def _split(
    loaded: LoadedRun,
    images: ImageSet,
    rows: NDArray[np.int64],
    looked: Looked,
    explained: Sequence[Image],
    projection: Method,
    fabric: Fabric,
    progress: Progress,
) -> Split:
    with torch.inference_mode(), fabric.autocast():
        batch = normalise(_pixels(explained, loaded.image_size).to(fabric.device))
        own = [
            module(batch).float().cpu().numpy() if module is not None else None
            for module in (loaded.model.backbone, loaded.model.encoder)
        ]
    both = zip(
        ("Features of the backbone", "Features of the emotional encoder"),
        (looked.features, looked.emotional_features),
        own,
        strict=True,
    )
    planes = []
    count = len(rows) + len(explained)
    if count >= 3:
        with progress.task("lay out the features", 2, "planes") as advance:
            for title, features, more in both:
                if features is not None and more is not None:
                    plane, how = project(np.concatenate([features, more]), projection, loaded.recipe.seed)
                    planes.append(Plane(title, plane, how))
                advance(1)
    is_regulated = looked.lam is not None
    return Split(
        images.table.name,
        images,
        looked,
        leanings(looked, loaded.classes) if is_regulated else [],
        rows,
        tuple(planes),
        _feel(loaded, images, rows, fabric, progress),
    )


def _feel(
    loaded: LoadedRun, images: ImageSet, rows: NDArray[np.int64], fabric: Fabric, progress: Progress
) -> Floats | None:
    """What is felt at these images, which are decoded again where stage 1 saw another size."""
    readout = loaded.readout
    if readout is None:
        return None
    limit = loaded.recipe.training.memory_limit_gib
    seen = load_images(images.table.take(rows), readout.image_size, False, limit, progress).to(fabric.device)
    with fabric.autocast():
        return torch.cat([readout.read(batch) for batch, _ in evaluation_batches(seen)]).cpu().numpy()


def _write_table(path: Path, found: Sequence[Leaning]) -> None:
    if not found:
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "images", "change", "low", "high", "accuracy_without", "accuracy", "lambda"])
    for row in found:
        values = (row.change.mean, row.change.low, row.change.high, row.was_right, row.is_right, row.lam)
        writer.writerow([row.name, row.change.n, *("" if math.isnan(value) else f"{value:.6f}" for value in values)])
    write_atomically(path, text.getvalue().encode())


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror or error}") from None
