"""Draw images on the plane of valence and arousal, at the emotion that a stage-1 encoder reads from them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from emoreg.data.images.augment import normalise
from emoreg.inference.load import EmotionReadout
from emoreg.inference.pictures import FAINT, QUIET, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Pixels = NDArray[np.uint8]
    Plane = NDArray[np.float32]

APART = 0.17  # minimum distance between two drawn images; the plane has a side of 2
SIDE = 17  # of a drawn image, in points


def draw_affect_plane(readout: EmotionReadout, unseen: Pixels, labels: Plane, target: Pixels, name: str) -> bytes:
    """Draw two planes of valence and arousal as a PNG: affective images with their labels, and a target's images.

    Args:
        readout: an encoder with its head, trained on a single set with labels of valence and arousal.
        unseen: affective images that the encoder was not trained on, (N, S, S, 3).
        labels: labels of `unseen`, (N, 2), in [-1, 1].
        target: images of the classification target, (M, S, S, 3), of the same size.
        name: name of the target.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with style.context(["default", STYLE]):
        figure = Figure((8.6, 5.0), dpi=130, facecolor="white", layout="constrained")
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        _draw(left, unseen, _read(readout, unseen), labels)
        left.set_title("Images that it has not seen; lines lead to their labels")
        _draw(right, target, _read(readout, target))
        right.set_title(f"Images of {name}, which have no emotional label")
        left.set_ylabel("Arousal")
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _read(readout: EmotionReadout, images: Pixels) -> Plane:
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    felt: Plane = readout.read(normalise(pixels)).numpy()
    return felt


def _draw(axes: Axes, images: Pixels, felt: Plane, labels: Plane | None = None) -> None:
    """Draw images at the emotion read from them, skipping those that would overlap."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    axes.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
    axes.axvline(0, color=FAINT, linewidth=0.8, zorder=0)
    for row in rows_without_overlap(felt):
        if labels is not None:
            axes.plot(*zip(felt[row], labels[row], strict=True), color=QUIET, linewidth=0.7, zorder=1)
            axes.plot(*labels[row], ".", color=QUIET, markersize=3, zorder=1)
        picture = OffsetImage(images[row], zoom=SIDE / images.shape[1], interpolation="nearest")
        axes.add_artist(AnnotationBbox(picture, tuple(felt[row]), frameon=False, zorder=2))
    axes.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), xticks=(-1, 0, 1), yticks=(-1, 0, 1), xlabel="Valence", aspect="equal")


def rows_without_overlap(felt: Plane) -> list[int]:
    """Rows of the images to draw: in order, each that lies on the plane and does not overlap an earlier one."""
    drawn: list[int] = []
    for row, place in enumerate(felt):
        if np.abs(place).max() <= 1 and all(np.abs(place - felt[other]).max() >= APART for other in drawn):
            drawn.append(row)
    return drawn
