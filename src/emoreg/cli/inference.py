"""The commands that use a trained classifier: predict, and look inside."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emoreg.cli.parser import command_parser
from emoreg.errors import UserError
from emoreg.runtime.progress import Progress

if TYPE_CHECKING:
    from emoreg.inference.load import LoadedRun
    from emoreg.inference.predict import Prediction

PREDICT_EXAMPLES = """\
examples:
  emoreg predict runs/cifar10-resnet20-learn-e-reg-seed0 cat.jpg dog.png
  emoreg predict runs/cifar10-resnet20-learn-e-reg-seed0 my-photos/ --out predictions.csv
  emoreg predict runs/cifar10-resnet20-learn-e-reg-seed0 my-photos/ --json | head
  emoreg predict runs/cifar10-resnet20-learn-e-reg-seed0 cat.jpg --pictures pictures/ --lam 0.3
"""
EXPLAIN_EXAMPLES = """\
examples:
  emoreg explain runs/cifar10-resnet20-learn-e-reg-seed0
  emoreg explain runs/cifar10-resnet20-learn-e-reg-seed0 cat.jpg dog.png --out inside
  emoreg explain runs/cifar10-resnet20-learn-e-reg-seed0 --data my-photos/ --projection pca
"""
DEVICES = ["auto", "cpu", "cuda", "mps"]
SHOWN = 40  # rows in the terminal; more are counted


def predict(arguments: Sequence[str]) -> int:
    """The command `emoreg predict`. 1 if an image could not be read."""
    options = _predict_parser().parse_args(arguments)
    if options.json and options.out:
        raise UserError("--json prints and --out writes the same rows; give one of them")

    from emoreg.inference.load import load_run
    from emoreg.inference.pictures import write_picture
    from emoreg.inference.predict import find_images
    from emoreg.inference.predict import predict as predictions_of
    from emoreg.inference.writers import json_line, row_writer

    loaded = load_run(options.run, options.experience)
    images = find_images(options.images)
    if options.pictures is not None:
        _make_folder(options.pictures)
    progress, unreadable = Progress(quiet=options.quiet), 0

    def on_unreadable(error: UserError) -> None:
        nonlocal unreadable
        unreadable += 1
        advance(1)
        print(f"emoreg: {error}; left out", file=sys.stderr)

    predictions = predictions_of(
        loaded,
        images,
        lam=options.lam,
        feel_with=options.feel_with,
        batch_size=options.batch_size,
        device=options.device,
        on_unreadable=on_unreadable,
    )
    seen = _Seen([], Counter())
    with (
        row_writer(options.out, options.probabilities) if options.out else contextlib.nullcontext(seen.add) as write,
        progress.task("predict", len(images), "images") as advance,
    ):
        for prediction in predictions:
            if options.json:
                print(json_line(prediction.row(options.probabilities)))
            else:
                write(prediction)
            if options.pictures is not None:
                write_picture(options.pictures, prediction)
            advance(1)
    if not options.json and not options.out:
        _print_predictions(seen, loaded, options.feel_with)
    for path in (options.out, options.pictures):
        if path is not None:
            progress.say(f"written: {path}")
    if unreadable:
        print(f"emoreg: {unreadable:,} of {len(images):,} images could not be read", file=sys.stderr)
    return 1 if unreadable else 0


def _predict_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "emoreg predict",
        "Class and probability of images from the non-emotional, the emotional and the regulated response, λ, and\n"
        "what the network feels: the emotion that the head of stage 1 reads out. Images that cannot be read are told\n"
        "and left out; the exit code is then 1.",
        PREDICT_EXAMPLES,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a finished run of stage 2")
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=Path, help="images, folders or zips of images")
    parser.add_argument("--json", action="store_true", help="print JSON Lines: one object an image, as they come")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write a file: .csv or .jsonl")
    parser.add_argument("--pictures", metavar="DIR", type=Path, help="write a picture (PNG) of each prediction")
    parser.add_argument("--probabilities", action="store_true", help="of all classes too (--json, --out)")
    parser.add_argument("--lam", metavar="λ", type=float, help="regulate by hand, in [0, 1]; left out, as trained")
    parser.add_argument(
        "--feel-with",
        choices=["experience", "encoder"],
        default="experience",
        help="whose features the head of stage 1 reads: those of the encoder as stage 1 left it, which it was trained "
        "with, or of the one that stage 2 made of it (%(default)s)",
    )
    parser.add_argument("--experience", metavar="DIR", type=Path, help="the stage-1 run, if it has been moved")
    parser.add_argument("--batch-size", metavar="N", type=int, help="images at a time; left out, as the device bears")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="(%(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror}") from None


@dataclass
class _Seen:
    """What the terminal shows: the first predictions, and how many there were of each class."""

    first: list[Prediction]
    counts: Counter[str]

    def add(self, prediction: Prediction) -> None:
        self.counts[prediction.regulated.name] += 1
        if len(self.first) < SHOWN:
            self.first.append(prediction)


def _print_predictions(seen: _Seen, loaded: LoadedRun, feel_with: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    shown, counts, total = seen.first, seen.counts, seen.counts.total()
    if total:
        is_regulated = loaded.model.encoder is not None
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("image", overflow="fold")
        table.add_column("regulated" if is_regulated else "class")
        if is_regulated:
            table.add_column("non-emotional")
            table.add_column("emotional")
            table.add_column("λ", justify="right")
        heads = loaded.readout.heads if loaded.readout is not None else ()
        for head in heads:
            if head.space.kind == "dimensions":
                for name in head.space.names:
                    table.add_column(f"felt\n{name}", justify="right")
            else:
                table.add_column("felt")
        for prediction in shown:
            answers = [prediction.regulated]
            if prediction.emotional is not None:
                answers += [prediction.non_emotional, prediction.emotional]
            cells = [prediction.image, *(f"{answer.name} {answer.probability:.2f}" for answer in answers)]
            if prediction.lam is not None:
                cells.append(f"{prediction.lam:.2f}")
            for emotion in prediction.felt:
                is_plane = emotion.head.space.kind == "dimensions"
                cells += [f"{value:+.2f}" for value in emotion.values] if is_plane else [emotion.summary]
            table.add_row(*(Text(cell) for cell in cells))
        console.print(table)
    if total > len(shown):
        named = ", ".join(f"{name} {count:,}" for name, count in counts.most_common(10))
        more = f", and {len(counts) - 10} other classes" if len(counts) > 10 else ""
        told = f"{total - len(shown):,} more (--json and --out give all). Of all {total:,}: {named}{more}"
        console.print(told, highlight=False, markup=False)
    console.print(felt_note(loaded, feel_with), highlight=False, markup=False, style="dim")


def felt_note(loaded: LoadedRun, feel_with: str) -> str:
    """In a sentence, what "felt" is here."""
    if loaded.readout is None:
        return f"nothing is felt: {loaded.no_readout_reason}"
    where = loaded.readout.folder
    if feel_with == "encoder" and loaded.model.freeze_encoder:
        return f"felt: what the stage-1 head of {where} reads out of the encoder, which was frozen in stage 2"
    if feel_with == "experience":
        return f"felt: what the stage-1 head of {where} reads out of the encoder as stage 1 left it"
    return f"felt: what the stage-1 head of {where} reads out of the encoder of stage 2, which it need not fit"


def explain(arguments: Sequence[str]) -> None:
    """The command `emoreg explain`."""
    parser = command_parser(
        "emoreg explain",
        "Look inside a trained classifier: where both branches look in an image, which classes lean on the emotional\n"
        "response, λ of each image where it is gated, and how the features lie, by class and by felt emotion. Writes\n"
        "one page that opens anywhere, with its pictures and charts as files beside it.",
        EXPLAIN_EXAMPLES,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a finished run of stage 2")
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="*",
        type=Path,
        help="images, folders or zips; left out, the test images where the emotional response changes most",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder of the page; default: RUN/explain")
    parser.add_argument(
        "--data",
        help="labelled images in place of the run's test split: a target's name (cifar10), or a folder or zip of "
        "[test/]<class>/*.jpg|png",
    )
    parser.add_argument(
        "--projection", choices=["tsne", "pca"], default="tsne", help="of the features on a plane (%(default)s)"
    )
    parser.add_argument("--points", metavar="N", type=int, default=1000, help="test images in it (%(default)s)")
    parser.add_argument("--experience", metavar="DIR", type=Path, help="the stage-1 run, if it has been moved")
    parser.add_argument("--device", default="auto", choices=DEVICES, help="(%(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options = parser.parse_args(arguments)

    from rich.console import Console

    from emoreg.inference.explain.explain import explain as write_explanation
    from emoreg.inference.load import load_run

    page = write_explanation(
        load_run(options.run, options.experience),
        options.images,
        options.out or options.run / "explain",
        data=options.data,
        projection=options.projection,
        points=options.points,
        device=options.device,
        progress=Progress(quiet=options.quiet),
    )
    Console().print(f"page: {page.resolve()}", highlight=False, markup=False, soft_wrap=True)
