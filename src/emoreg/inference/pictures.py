"""Predictions as pictures: the image, the responses side by side, and the emotion that is felt."""

from __future__ import annotations

import io
import math
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emoreg.data.images.decode import square, upright
from emoreg.data.images.files import File
from emoreg.data.stimuli.emotion import MIKELS_8
from emoreg.errors import UserError
from emoreg.inference.predict import Feeling, Image, Prediction
from emoreg.runtime.safe_io import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from PIL import Image as Pillow

THUMBNAIL = 320  # pixels: about twice what is seen, for sharp screens
TOP = 5  # classes that are shown
MAX_BARS = 12  # emotions that are shown
INK, QUIET, FAINT = "#1b1d1f", "#5b6167", "#d5d8db"
# The report's colours of Backbone, of a regulated arm, and one beside them.
NON_EMOTIONAL, EMOTIONAL, REGULATED = "#4d4d4d", "#c44e00", "#0072b2"
# Around the wheel (ours): the pleasant categories on the right, the unpleasant ones on the left, those with much
# arousal above and those with little below. Mikels et al. 2005 give no order.
WHEEL = ("excitement", "amusement", "awe", "contentment", "sadness", "disgust", "fear", "anger")
STYLE = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "text.parse_math"), False),
    **{"axes.edgecolor": QUIET, "axes.linewidth": 0.6, "font.size": 9, "axes.titlesize": 9.5},
    **{"axes.titlelocation": "left", "xtick.major.width": 0.6, "ytick.major.width": 0.6},
}


def write_picture(folder: Path, prediction: Prediction) -> Path:
    """Write the picture of one prediction as PNG.

    Args:
        folder: where it goes; its name is that of the image, or that with a number if there is one already.
        prediction: what is drawn.

    Returns:
        Its path.
    """
    stem = re.sub(r"[^\w.-]+", "_", Path(prediction.image).with_suffix("").as_posix()).strip("._")[-100:] or "image"
    path, number = folder / f"{stem}.png", 2
    while path.exists():
        path, number = folder / f"{stem}-{number}.png", number + 1
    try:
        write_atomically(path, draw_prediction(prediction))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    return path


def draw_prediction(prediction: Prediction) -> bytes:
    """A PNG: the image, a bar a response for the most probable classes, and what is felt."""
    from matplotlib import style
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    panels = 2 + len(prediction.felt)
    with style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # an empty box stands for the letter
        figure = Figure((2.9 * panels, 3.0), dpi=130, facecolor="white", layout="constrained")
        parts = figure.subfigures(1, panels, squeeze=False, width_ratios=[2.4, 3.3, *[3.0] * len(prediction.felt)])[0]
        axes = parts[0].add_subplot()
        axes.imshow(thumbnail(prediction.source))
        axes.set_axis_off()
        name = Path(prediction.image).name
        axes.set_title(name if len(name) <= 28 else f"…{name[-27:]}", color=QUIET)
        draw_answers(parts[1].add_subplot(), prediction)
        for part, feeling in zip(parts[2:], prediction.felt, strict=True):
            draw_feeling(part, feeling)
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def draw_answers(
    axes: Axes, prediction: Prediction, colours: tuple[str, str, str] = (NON_EMOTIONAL, EMOTIONAL, REGULATED)
) -> None:
    """Probabilities of the most probable classes, a bar each for the responses.

    Args:
        axes: where.
        prediction: what the classifier answered.
        colours: of the non-emotional, the emotional and the regulated response.
    """
    answers = [("regulated", prediction.regulated, colours[2])]
    if prediction.emotional is not None:
        emotional = ("emotional", prediction.emotional, colours[1])
        answers = [("non-emotional", prediction.non_emotional, colours[0]), emotional, *answers]
    else:
        answers = [("plain", prediction.regulated, colours[0])]
    strongest = np.max([answer.probabilities for _, answer, _ in answers], axis=0)
    best = int(prediction.regulated.probabilities.argmax())
    strongest[best] = 2  # the answer itself comes first
    shown = np.argsort(-strongest, kind="stable")[:TOP]
    height = 0.8 / len(answers)
    for number, (label, answer, colour) in enumerate(answers):
        places = np.arange(len(shown)) + (number - (len(answers) - 1) / 2) * height
        axes.barh(places, answer.probabilities[shown], height * 0.9, color=colour, label=label)
    names = [prediction.regulated.classes[index] for index in shown]
    axes.set_yticks(range(len(shown)), [name if len(name) <= 18 else f"{name[:17]}…" for name in names])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
    axes.tick_params(axis="y", length=0)
    lam = "" if prediction.lam is None else f", λ = {prediction.lam:.2f}"
    axes.set_title(f"{names[0]} ({prediction.regulated.probability:.2f}){lam}", weight="bold")
    axes.set_xlabel("probability")
    if len(answers) > 1:
        axes.legend(frameon=False, fontsize=7.5, loc="lower right", handlelength=1, borderpad=0)


def draw_feeling(figure: Figure | SubFigure, feeling: Feeling, colour: str = EMOTIONAL) -> None:
    """A plane for valence and arousal, a wheel for Mikels' categories, bars for anything else."""
    names = feeling.head.space.names
    dimensions = feeling.head.space.kind == "dimensions"
    if dimensions and {"valence", "arousal"} <= set(names):
        axes = figure.add_subplot()
        draw_plane(axes)
        at = {name: float(value) for name, value in zip(names, feeling.values, strict=True)}
        axes.plot(np.clip(at["valence"], -1, 1), np.clip(at["arousal"], -1, 1), "o", color=colour, markersize=9)
    elif set(names) == set(MIKELS_8) and not dimensions:
        axes = figure.add_subplot(projection="polar", rlabel_position=90)
        _draw_wheel(axes, dict(zip(names, feeling.values.tolist(), strict=True)), colour)
    else:
        axes = figure.add_subplot()
        order = range(len(names)) if dimensions else np.argsort(-feeling.values, kind="stable")[:MAX_BARS]
        axes.barh(range(len(order)), feeling.values[list(order)], 0.7, color=colour)
        axes.set_yticks(range(len(order)), [names[index] for index in order])
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.set_xlim((-1, 1) if dimensions else (0, 1))
        axes.axvline(0, color=FAINT, linewidth=0.6)
        axes.tick_params(axis="y", length=0)
    told = feeling.told if len(feeling.told) <= 34 else feeling.told.replace(", ", ",\n", 1)
    axes.set_title(f"felt: {told}", color=QUIET, pad=None if axes.name != "polar" else 16)


def draw_plane(axes: Axes) -> None:
    """The plane of valence and arousal (Russell 1980), empty."""
    from matplotlib.patches import Circle

    axes.axhline(0, color=FAINT, linewidth=0.6)
    axes.axvline(0, color=FAINT, linewidth=0.6)
    axes.add_patch(Circle((0, 0), 1, fill=False, color=FAINT, linewidth=0.6))
    axes.set_xlim(-1.08, 1.08)
    axes.set_ylim(-1.08, 1.08)
    axes.set_aspect("equal")
    axes.set_xticks((-1, 0, 1))
    axes.set_yticks((-1, 0, 1))
    axes.set_xlabel("valence: unpleasant – pleasant")
    axes.set_ylabel("arousal: calm – excited")


def _draw_wheel(axes: Axes, shares: dict[str, float], colour: str) -> None:
    step = 2 * math.pi / len(WHEEL)
    angles = [math.pi / 2 - step * (place + 0.5) for place in range(len(WHEEL))]  # clockwise from the top
    axes.bar(angles, [shares[name] for name in WHEEL], step * 0.92, color=colour)
    axes.set_xticks([angle % (2 * math.pi) for angle in angles], WHEEL, fontsize=7.5)
    top = max(0.25, *shares.values())
    axes.set_ylim(0, top)
    axes.set_yticks((top / 2, top), (f"{top / 2:.2f}", f"{top:.2f}"), fontsize=6, color=QUIET)
    axes.tick_params(axis="y", pad=0)
    axes.grid(color=FAINT, linewidth=0.5)
    axes.spines["polar"].set_color(FAINT)


def thumbnail(image: Image, side: int = THUMBNAIL) -> Pillow.Image:
    """The middle square of an image, which is what the network sees of it, but sharper."""
    from PIL import Image as Pillow

    whole = upright(image, at_least=side) if isinstance(image, File) else Pillow.fromarray(image)
    if max(whole.size) < side:  # few pixels stay pixels
        return Pillow.fromarray(square(whole, min(whole.size)))
    return Pillow.fromarray(square(whole, side))
