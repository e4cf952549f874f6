"""Draw predictions: the image, the responses side by side, and the felt emotion."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emoreg.config.schema import Fit
from emoreg.data.images.decode import square, upright
from emoreg.data.stimuli.emotion import MIKELS_8
from emoreg.inference.predict import FeltEmotion, Image, Prediction
from emoreg.report.drawing import short
from emoreg.runtime.fonts import set_fonts
from emoreg.runtime.safe_io import write_atomically, writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from PIL import Image as Pillow

THUMBNAIL = 320  # pixels; about twice the size on screen, for high-density displays
TOP = 5  # classes shown
MAX_BARS = 12  # emotions shown
INK, QUIET, FAINT = "#1b1d1f", "#5b6167", "#d5d8db"
# The report's colours for the backbone and for a regulated arm, and a third one for the emotional response.
NON_EMOTIONAL, EMOTIONAL, REGULATED = "#4d4d4d", "#c44e00", "#0072b2"
# Order around the wheel (ours): pleasant categories on the right, unpleasant ones on the left, high arousal at the top,
# low arousal at the bottom. Mikels et al. 2005 give no order.
WHEEL = ("excitement", "amusement", "awe", "contentment", "sadness", "disgust", "fear", "anger")
STYLE = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "text.parse_math"), False),
    **{"axes.edgecolor": QUIET, "axes.linewidth": 0.6, "font.size": 9, "axes.titlesize": 9.5},
    **{"axes.titlelocation": "left", "xtick.major.width": 0.6, "ytick.major.width": 0.6},
}


def write_picture(folder: Path, prediction: Prediction) -> Path:
    """Write one prediction as a PNG, named after its image, with a number appended if the name is taken.

    Args:
        folder: an existing folder.
        prediction: the prediction to draw.

    Returns:
        The path of the PNG.

    Raises:
        UserError: the file cannot be written.
    """
    stem = re.sub(r"[^\w.-]+", "_", Path(prediction.image).with_suffix("").as_posix()).strip("._")[-100:] or "image"
    path, number = folder / f"{stem}.png", 2
    while path.exists():
        path, number = folder / f"{stem}-{number}.png", number + 1
    with writing(path):
        write_atomically(path, draw_prediction(prediction))
    return path


def draw_prediction(prediction: Prediction) -> bytes:
    """Draw a PNG of the image, the probabilities of the top classes for each response, and the felt emotion."""
    from matplotlib import style
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    panels = 2 + len(prediction.felt)
    with style.context(["default", STYLE]):
        figure = Figure((2.9 * panels, 3.0), dpi=130, facecolor="white", layout="constrained")
        parts = figure.subfigures(1, panels, squeeze=False, width_ratios=[2.4, 3.3, *[3.0] * len(prediction.felt)])[0]
        axes = parts[0].add_subplot()
        axes.imshow(thumbnail(prediction.source, prediction.fit))
        axes.set_axis_off()
        name = Path(prediction.image).name
        axes.set_title(name if len(name) <= 28 else f"…{name[-27:]}", color=QUIET)
        draw_answers(parts[1].add_subplot(), prediction)
        for part, emotion in zip(parts[2:], prediction.felt, strict=True):
            draw_emotion(part, emotion)
        set_fonts(figure)
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def draw_answers(axes: Axes, prediction: Prediction) -> None:
    """Draw a bar per response for each of the top classes (the predicted one first), top labels, or for all values."""
    answers = [("plain", prediction.regulated, NON_EMOTIONAL)]
    if prediction.emotional is not None:
        answers = [
            ("non-emotional", prediction.non_emotional, NON_EMOTIONAL),
            ("emotional", prediction.emotional, EMOTIONAL),
            ("regulated", prediction.regulated, REGULATED),
        ]
    task = prediction.regulated.task
    highest = np.max([answer.values for _, answer, _ in answers], axis=0)
    if task == "classification":
        highest[prediction.regulated.index] = 2  # above any probability, so that the predicted class comes first
    shown = np.arange(len(highest)) if task == "regression" else np.argsort(-highest, kind="stable")[:TOP]
    height = 0.8 / len(answers)
    for number, (label, answer, colour) in enumerate(answers):
        positions = np.arange(len(shown)) + (number - (len(answers) - 1) / 2) * height
        axes.barh(positions, answer.values[shown], height * 0.9, color=colour, label=label)
    names = [prediction.regulated.classes[index] for index in shown]
    axes.set_yticks(range(len(shown)), [short(name, 18) for name in names])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    if task == "regression":
        largest = max(1.0, *(float(np.abs(answer.values).max()) for _, answer, _ in answers))
        axes.set_xlim(-largest, largest)
        axes.axvline(0, color=FAINT, linewidth=0.6)
    else:
        axes.set_xlim(0, 1)
        axes.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
    axes.tick_params(axis="y", length=0)
    title = prediction.regulated.summary
    if task == "classification":
        title = f"{prediction.regulated.name} ({prediction.regulated.probability:.2f})"
    if prediction.lam is not None:
        title += f", λ = {prediction.lam:.2f}"
    if prediction.temperature is not None:
        title += f", T = {prediction.temperature:.3g}"
    axes.set_title(title, weight="bold")
    axes.set_xlabel("value" if task == "regression" else "probability")
    if len(answers) > 1:
        axes.legend(frameon=False, fontsize=7.5, loc="lower right", handlelength=1, borderpad=0)


def draw_emotion(figure: Figure | SubFigure, emotion: FeltEmotion) -> None:
    """Draw valence and arousal as a point on a plane, Mikels' categories as a wheel, anything else as bars."""
    names, values = emotion.head.space.names, emotion.values
    dimensions = emotion.head.space.kind == "dimensions"
    if dimensions and {"valence", "arousal"} <= set(names):
        axes = figure.add_subplot()
        draw_plane(axes)
        valence, arousal = np.clip([values[names.index("valence")], values[names.index("arousal")]], -1, 1)
        axes.plot(valence, arousal, "o", color=EMOTIONAL, markersize=9)
    elif set(names) == set(MIKELS_8) and not dimensions:
        axes = figure.add_subplot(projection="polar", rlabel_position=90)
        _draw_wheel(axes, dict(zip(names, values.tolist(), strict=True)))
    else:
        axes = figure.add_subplot()
        order = range(len(names)) if dimensions else np.argsort(-values, kind="stable")[:MAX_BARS]
        axes.barh(range(len(order)), values[list(order)], 0.7, color=EMOTIONAL)
        axes.set_yticks(range(len(order)), [names[index] for index in order])
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.set_xlim((-1, 1) if dimensions else (0, 1))
        axes.axvline(0, color=FAINT, linewidth=0.6)
        axes.tick_params(axis="y", length=0)
    summary = emotion.summary if len(emotion.summary) <= 34 else emotion.summary.replace(", ", ",\n", 1)
    axes.set_title(f"felt: {summary}", color=QUIET, pad=16 if axes.name == "polar" else None)


def draw_plane(axes: Axes) -> None:
    """Draw an empty plane of valence and arousal (Russell 1980)."""
    from matplotlib.patches import Circle

    axes.axhline(0, color=FAINT, linewidth=0.6)
    axes.axvline(0, color=FAINT, linewidth=0.6)
    axes.add_patch(Circle((0, 0), 1, fill=False, color=FAINT, linewidth=0.6))
    limits, ticks = (-1.08, 1.08), (-1, 0, 1)
    axes.set(xlim=limits, ylim=limits, xticks=ticks, yticks=ticks, aspect="equal")
    axes.set(xlabel="valence: unpleasant – pleasant", ylabel="arousal: calm – excited")


def _draw_wheel(axes: Axes, probabilities: dict[str, float]) -> None:
    step = 2 * math.pi / len(WHEEL)
    angles = [math.pi / 2 - step * (position + 0.5) for position in range(len(WHEEL))]  # clockwise from the top
    axes.bar(angles, [probabilities[name] for name in WHEEL], step * 0.92, color=EMOTIONAL)
    axes.set_xticks([angle % (2 * math.pi) for angle in angles], WHEEL, fontsize=7.5)
    top = max(0.25, *probabilities.values())
    axes.set_ylim(0, top)
    axes.set_yticks((top / 2, top), (f"{top / 2:.2f}", f"{top:.2f}"), fontsize=6, color=QUIET)
    axes.tick_params(axis="y", pad=0)
    axes.grid(color=FAINT, linewidth=0.5)
    axes.spines["polar"].set_color(FAINT)


def thumbnail(image: Image, fit: Fit) -> Pillow.Image:
    """Return the square that the network sees of an image, at a higher resolution."""
    from PIL import Image as Pillow

    whole = Pillow.fromarray(image) if isinstance(image, np.ndarray) else upright(image, at_least=THUMBNAIL)
    if max(whole.size) < THUMBNAIL:  # small images are not enlarged
        return Pillow.fromarray(square(whole, min(whole.size) if fit == "crop" else max(whole.size), fit))
    return Pillow.fromarray(square(whole, THUMBNAIL, fit))
