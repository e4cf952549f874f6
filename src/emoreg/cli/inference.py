"""The commands that apply a trained classifier to images: calibrate, predict and explain."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from emoreg.cli.parser import DeviceName, File, Folder, Quiet, Shown
from emoreg.errors import UserError, printable
from emoreg.runtime.progress import Progress
from emoreg.runtime.streams import print_line

Run = Annotated[Path, Shown("RUN", "folder of a finished run of stage 2")]
Images = Annotated[Sequence[Path], Shown("IMAGE")]
ExperienceFolder = Annotated[Path, Shown("DIR", "the stage-1 run, if it was moved")]
Temperature = Annotated[str, Shown("T|calibrated")]


def calibrate(run: Run, *, data: str | None = None, device: DeviceName = "auto", quiet: Quiet = False) -> None:
    """Fit the temperature that calibrates a classifier's probabilities.

    The temperature T minimises the NLL of z / T on the run's validation images, where z are the logits (Guo et al.
    2017). It is recorded in the run's folder (calibration.json); predict and export use it with --temperature
    calibrated. The predicted classes stay the same.

    Args:
        data: labelled images instead of the validation images, which the run was neither trained nor tested on: a
            target's name (cifar10), or a folder or zip of [test/]<class>/*.jpg|png

    Examples:
        emoreg calibrate runs/cifar10-resnet20-learn-e-reg-seed0
        emoreg calibrate runs/cifar10-resnet20-learn-e-reg-seed0 --data my-photos/
    """
    from emoreg.inference.calibrate import calibrate as calibrate_run

    calibration = calibrate_run(run, data, device, progress=Progress(quiet=quiet))
    print(printable(f"temperature {calibration.temperature:.4g}: {calibration.origin}"))
    print(printable(f"use it: emoreg predict {run} IMAGE --temperature calibrated"))


def predict(
    run: Run,
    images: Images,
    *,
    json: bool = False,
    out: File | None = None,
    pictures: Folder | None = None,
    probabilities: bool = False,
    lam: Annotated[float, Shown("λ")] | None = None,
    temperature: Temperature | None = None,
    feel_with: Literal["experience", "encoder"] = "experience",
    experience: ExperienceFolder | None = None,
    batch_size: int | None = None,
    device: DeviceName = "auto",
    quiet: Quiet = False,
) -> int:
    """Classify images, and read out what the classifier feels.

    Prints class and probability of the non-emotional, the emotional and the regulated response, λ, and what the
    network feels: the emotion that the stage-1 head reads out. Unreadable images are reported and skipped; the exit
    code is then 1.

    Args:
        images: images, folders or zips of images
        json: print JSON Lines, one object per image, as soon as it is predicted
        out: write the predictions to a file: .csv or .jsonl
        pictures: write a picture (PNG) of each prediction
        probabilities: include the probabilities of all classes (with --json or --out)
        lam: set λ by hand, in [0, 1]. Default: as trained
        temperature: divide the logits of the regulated response by T, from 0.01 to 100, before the softmax; calibrated
            takes the run's own T, from emoreg calibrate. Default: as trained
        feel_with: the features that the stage-1 head reads: experience, of the stage-1 encoder that the head was
            trained with, or encoder, of the same encoder after stage 2
        batch_size: images per batch. Default: by device

    Examples:
        emoreg predict runs/cifar10-resnet20-learn-e-reg-seed0 cat.jpg dog.png
        emoreg predict runs/cifar10-resnet20-learn-e-reg-seed0 my-photos/ --out predictions.csv
        emoreg predict runs/cifar10-resnet20-learn-e-reg-seed0 my-photos/ --json | head
        emoreg predict runs/cifar10-resnet20-learn-e-reg-seed0 cat.jpg --pictures pictures/ --lam 0.3
        emoreg predict runs/cifar10-resnet20-learn-e-reg-seed0 cat.jpg --temperature calibrated
    """
    if json and out:
        raise UserError("--json prints and --out writes the same rows; give one of them")
    if probabilities and not (json or out):
        raise UserError("--probabilities is for --json and --out, whose rows have room for all classes")

    from emoreg.inference.load import load_run
    from emoreg.inference.pictures import write_picture
    from emoreg.inference.predict import Prediction, find_images
    from emoreg.inference.predict import predict as predict_images
    from emoreg.inference.summary import Summary
    from emoreg.inference.writers import json_line, row_writer
    from emoreg.runtime.fonts import lacking_note
    from emoreg.runtime.safe_io import make_folder
    from emoreg.runtime.terminal import show

    progress, unreadable = Progress(quiet=quiet), 0
    loaded, sources = load_run(run, experience), find_images(images, progress)
    if pictures is not None:
        make_folder(pictures)

    def skip(error: UserError) -> None:
        nonlocal unreadable
        unreadable += 1
        advance(1)
        print_line(f"emoreg: {error}; skipped")

    def print_json(prediction: Prediction) -> None:
        print(json_line(prediction.row(probabilities)))

    predictions = predict_images(
        loaded,
        sources,
        lam=lam,
        temperature=temperature,
        feel_with=feel_with,
        batch_size=batch_size,
        device=device,
        on_unreadable=skip,
    )
    summary, letters = Summary(), set("".join(loaded.classes))  # letters in the pictures
    writer = row_writer(out, probabilities) if out else contextlib.nullcontext(print_json if json else summary.add)
    with writer as write, progress.task("predict", len(sources), "images") as advance:
        for prediction in predictions:
            write(prediction)
            if pictures is not None:
                write_picture(pictures, prediction)
                letters.update(prediction.image)
            advance(1)
    if not json and not out:
        show(summary.shown(loaded, feel_with))
    if out is not None:
        progress.say(f"written: {out}")
    if pictures is not None:
        progress.say(f"written: {pictures}")
        if note := lacking_note("".join(letters)):
            progress.say(note)
    if unreadable:
        print_line(f"emoreg: {unreadable:,} of {len(sources):,} images could not be read")
    return 1 if unreadable else 0


def explain(
    run: Run,
    images: Images = (),
    *,
    out: Folder | None = None,
    data: str | None = None,
    projection: Literal["tsne", "pca"] = "tsne",
    points: int = 1000,
    experience: ExperienceFolder | None = None,
    device: DeviceName = "auto",
    quiet: Quiet = False,
) -> None:
    """Write a page that explains a classifier: where it looks, and what it relies on.

    Shows where both branches look in an image, which classes rely on the emotional response, λ of each image if it is
    gated, and a map of the features by class and by felt emotion. The page opens in any browser; its pictures and
    charts are files in the same folder.

    Args:
        images: images, folders or zips. Default: the labelled images that the emotional response changes most
        out: folder of the page. Default: RUN/explain
        data: labelled images instead of the run's test split: a target's name (cifar10), or a folder or zip of
            [test/]<class>/*.jpg|png
        projection: how features are projected to a plane
        points: number of labelled images in the projection

    Examples:
        emoreg explain runs/cifar10-resnet20-learn-e-reg-seed0
        emoreg explain runs/cifar10-resnet20-learn-e-reg-seed0 cat.jpg dog.png --out inside
        emoreg explain runs/cifar10-resnet20-learn-e-reg-seed0 --data my-photos/ --projection pca
    """
    from emoreg.inference.explain.explain import explain as write_explanation
    from emoreg.inference.load import load_run

    page = write_explanation(
        load_run(run, experience),
        images,
        out or run / "explain",
        data=data,
        projection=projection,
        points=points,
        device=device,
        progress=Progress(quiet=quiet),
    )
    print(f"page: {page.resolve()}")
