"""Write a confusion matrix as a table (CSV) and a picture (PNG)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emoreg.inference.pictures import INK, QUIET, STYLE
from emoreg.report.drawing import short
from emoreg.runs.run import CONFUSION_PICTURE, CONFUSION_TABLE
from emoreg.runtime.fonts import set_fonts
from emoreg.runtime.safe_io import make_folder, write_atomically, writing

MAX_NUMBERS = 20  # with more classes, cells have no numbers and not every class is named
CELL = 0.42  # side of a cell with a number, in inches


def write_confusion(folder: Path, matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> tuple[Path, Path]:
    """Write confusion.csv and confusion.png.

    Args:
        folder: created if it does not exist.
        matrix: number of images by true class (row) and predicted class (column), (K, K).
        classes: K names.

    Raises:
        UserError: a file cannot be written.
    """
    make_folder(folder)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true class \\ answer", *classes])
    writer.writerows([name, *row] for name, row in zip(classes, matrix, strict=True))
    paths = folder / CONFUSION_TABLE, folder / CONFUSION_PICTURE
    for path, content in zip(paths, (text.getvalue().encode(), draw_confusion(matrix, classes)), strict=True):
        with writing(path):
            write_atomically(path, content)
    return paths


def draw_confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> bytes:
    """Draw a confusion matrix as a PNG: shares of each true class as shades, and counts if there are few classes."""
    from matplotlib import style
    from matplotlib.figure import Figure

    counts = np.asarray(matrix, dtype=float)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    few = len(classes) <= MAX_NUMBERS
    side = max(3.2, CELL * len(classes)) if few else 8.0
    buffer = io.BytesIO()
    with style.context(["default", STYLE]):
        figure = Figure((side + 2.0, side + 1.2), dpi=130, facecolor="white", layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        places = range(len(classes)) if few else range(0, len(classes), -(-len(classes) // 50))
        names = [short(classes[place], 18) for place in places]
        size = 8 if few else 5
        axes.set_xticks(places, names, rotation=0 if max(map(len, names)) <= 3 and few else 90, fontsize=size)
        axes.set_yticks(places, names, fontsize=size)
        axes.tick_params(length=0)
        axes.set(xlabel="predicted class", ylabel="true class")
        right = 100 * np.trace(counts) / max(counts.sum(), 1)
        axes.set_title(f"{int(counts.sum()):,} images, {right:.2f} % right", color=QUIET)
        for row, column in np.ndindex(*counts.shape) if few else ():
            if counts[row, column]:
                ink = "white" if shares[row, column] > 0.55 else INK
                number = f"{int(counts[row, column]):,}"
                axes.text(column, row, number, ha="center", va="center", fontsize=7, color=ink)
        figure.colorbar(image, ax=axes, shrink=0.6, label="share of the class's images")
        set_fonts(figure)
        figure.savefig(buffer, format="png")
    return buffer.getvalue()
