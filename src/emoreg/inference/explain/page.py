"""The page of `emoreg explain`, and the files beside it: a PNG of each image, an SVG of each chart."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from emoreg.inference.explain.charts import (
    MAX_CLASSES,
    Colouring,
    extremes,
    lambda_charts,
    leaning_chart,
    plane_chart,
)
from emoreg.inference.explain.explanation import Explained, Split, squares
from emoreg.inference.explain.leaning import Leaning
from emoreg.inference.explain.saliency import STEPS, Saliency, agreement, overlay
from emoreg.inference.load import LoadedRun
from emoreg.inference.predict import Prediction
from emoreg.report.drawing import Chart
from emoreg.report.formatting import NOTHING, percent
from emoreg.report.page import Part, template
from emoreg.report.page_tables import Entry, Grid
from emoreg.runtime.safe_io import write_atomically

PAGE = "explain.html"
LABELS = {"non_emotional": "non-emotional", "emotional": "emotional", "regulated": "regulated"}
SIDE = 256  # pixels of a map: sharp at the size at which it is seen
NEGLIGIBLE = 0.001  # a mean change of probability below it is told as none
EXTREMES = 6  # images with the lowest λ, and as many with the highest
# The colours of the page on light paper, for charts that stand alone.
LIGHT = {"currentColor": "#1b1d1f", "var(--paper)": "#ffffff", "var(--arm-1)": "#0072b2", "var(--arm-2)": "#c44e00"}


@dataclass(frozen=True)
class Shown:
    """A picture on the page."""

    label: str
    told: str
    spoken: str
    data: str  # a data URI


@dataclass(frozen=True)
class ShownImage:
    """An image with its maps."""

    letter: str
    name: str
    shown: tuple[Shown, ...]
    grid: Grid


@dataclass(frozen=True)
class Thumb:
    """A small picture of a test image."""

    name: str
    told: str
    data: str


def write_page(
    folder: Path,
    loaded: LoadedRun,
    explained: Sequence[Explained],
    split: Split | None,
    missing: str,
    is_chosen: bool = False,
) -> Path:
    """Write the page and the files beside it.

    Args:
        folder: there already.
        loaded: the classifier.
        explained: the images.
        split: what labelled images say; None where they could not be read.
        missing: why they could not.
        is_chosen: whether the images are test images that nobody asked for.

    Returns:
        The path of the page.
    """
    letters = [letter(number) for number in range(len(explained))]
    shown = [_shown(one, folder, name) for one, name in zip(explained, letters, strict=True)]
    parts = _parts(loaded, split, letters) if split else []
    for part in parts:
        for number, chart in enumerate(part.charts, 1):
            name = f"{part.key}-{number}" if len(part.charts) > 1 else part.key
            write_atomically(folder / f"{name}.svg", standalone(chart))
    is_regulated = loaded.model.encoder is not None
    given = "The images that were given."
    if is_chosen:
        most = "Those where the emotional response changes the true class's probability most, up and down."
        given = most if is_regulated else "The first of the test images."
    page = template("explain.html.jinja", "emoreg.inference.explain").render(
        title=f"Inside {loaded.folder}",
        sentences=_sentences(loaded, explained, split, missing),
        split=f"the {len(split.looked.labels):,} test images of {split.name}" if split else "",
        parts=parts,
        lowest_and_highest=_thumbs(loaded, split) if split and _is_gated(loaded) else [],
        images=shown,
        chosen=given,
        steps=STEPS,
        is_regulated=is_regulated,
        felt=_felt_note(loaded),
        facts=_facts(loaded),
    )
    path = folder / PAGE
    write_atomically(path, page.encode("utf-8", "backslashreplace"))  # of a folder whose name is no Unicode
    return path


def letter(number: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    return chr(ord("A") + number) if number < 26 else letter(number // 26 - 1) + letter(number % 26)


def _sentences(loaded: LoadedRun, explained: Sequence[Explained], split: Split | None, missing: str) -> list[str]:
    sentences = []
    if split is not None and split.leanings:
        looked = split.looked
        assert looked.lam is not None
        sentences.append(
            f"{percent(looked.is_right.mean())} % of {len(looked.labels):,} test images are recognised as trained, "
            f"{percent(looked.was_right.mean())} % with the emotional response left out (λ = 0)."
        )
        sentences.append(_leaning_sentence(split.leanings))
        told = f"λ is {fraction(looked.lam.mean())}"
        if looked.lam.max() - looked.lam.min() > 1e-6:
            each = "each image has its own" if _is_gated(loaded) else "each class has its own"
            told += f" on average; {each}, from {fraction(looked.lam.min())} to {fraction(looked.lam.max())}"
        sentences.append(f"{told}.")
    elif split is not None:
        right = percent(split.looked.is_right.mean())
        sentences.append(f"{right} % of {len(split.looked.labels):,} test images are recognised.")
    elif missing:
        sentences.append(f"This page goes without the test split: {missing}")
    pairs = [agreement(one.saliency[0], one.saliency[1]) for one in explained if len(one.saliency) > 1]
    pairs = [value for value in pairs if not math.isnan(value)]
    if pairs:
        sentences.append(
            f"The maps of the two branches correlate by {signed(fmean(pairs))} on average over the "
            f"{len(pairs)} image{'s' * (len(pairs) != 1)} below (1: they look at the same places alike, 0: at others)."
        )
    if loaded.model.encoder is None:
        sentences.append("This classifier has no emotional branch.")
    return sentences


def _leaning_sentence(found: Sequence[Leaning]) -> str:
    first, last = found[0], found[-1]
    largest = max(abs(first.change.mean), abs(last.change.mean))
    if largest < NEGLIGIBLE:
        return (
            "The emotional response is as good as unused: it changes the true class's probability by no more than "
            f"{fraction(largest)} on average in any class."
        )
    if len(found) == 1:
        return f"The emotional response changes the true class's probability in {_changed(first)}."
    verb = "raises the true class's probability most in" if first.change.mean > 0 else "lowers it least in"
    other = "lowers it most in" if last.change.mean < 0 else "raises it least in"
    return f"The emotional response {verb} {_changed(first)}, and {other} {_changed(last)}."


def _changed(leaning: Leaning) -> str:
    change = leaning.change
    bounds = "" if math.isnan(change.low) else f", 95 % interval {signed(change.low)} to {signed(change.high)}"
    return f"{leaning.name} ({signed(change.mean)} on average{bounds}, {change.n} image{'s' * (change.n != 1)})"


def signed(value: float) -> str:
    """A change of a probability: "+0.012", "−0.120", and "−1.2e-05" where that would be 0."""
    return (f"{value:+.3f}" if abs(value) >= 0.0005 or value == 0 else f"{value:+.1e}").replace("-", "−", value < 0)


def fraction(value: float) -> str:
    """A share between 0 and 1: "0.31", and "3.1e-05" where that would be 0."""
    return f"{value:.2f}" if value >= 0.005 or value == 0 else f"{value:.1e}"


def _shown(one: Explained, folder: Path, name: str) -> ShownImage:
    from PIL import Image

    picture = np.asarray(Image.fromarray(one.picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    answer = one.prediction.regulated.name
    pictures = [picture, *(overlay(picture, saliency.values) for saliency in one.saliency)]
    stem = re.sub(r"[^\w.-]+", "_", Path(one.name).stem).strip("._")[-60:] or "image"
    write_atomically(folder / f"saliency-{name}-{stem}.png", _png(np.concatenate(pictures, axis=1)))
    shown = [Shown("the image", "its middle square", f"The image {one.name}", _uri(picture))]
    for saliency, drawn in zip(one.saliency, pictures[1:], strict=True):
        label = LABELS[saliency.branch]
        spoken = f"What speaks for and against {answer} in the {label} response"
        shown.append(Shown(f"{label}, for {answer}", _sum(saliency), spoken, _uri(drawn)))
    return ShownImage(name, one.name, tuple(shown), _answers_grid(one.prediction, one.note))


def _sum(saliency: Saliency) -> str:
    return f"adds up to {saliency.gained:+.1f}, missed {saliency.missed:+.2f}".replace("-", "−")


def _answers_grid(prediction: Prediction, note: str) -> Grid:
    answers = {"regulated": prediction.regulated}
    if prediction.emotional is not None:
        answers = {"non-emotional": prediction.non_emotional, "emotional": prediction.emotional, **answers}
    rows = []
    named = int(prediction.regulated.probabilities.argmax())
    for label, answer in answers.items():
        rows.append(
            (
                Entry(label),
                Entry(answer.name),
                Entry(f"{answer.probability:.3f}"),
                Entry(f"{answer.probabilities[named]:.3f}"),
            )
        )
    told = [note] if note else []
    told += [] if prediction.lam is None else [f"λ = {fraction(prediction.lam)}"]
    told += [f"felt: {emotion.summary}" for emotion in prediction.felt]
    headers = ("response", "class", "probability", f"of {prediction.regulated.name}")
    return Grid(f"Answers to {prediction.image}", "; ".join(told), headers, (("", tuple(rows)),))


def _parts(loaded: LoadedRun, split: Split, letters: Sequence[str]) -> list[Part]:
    parts = []
    if split.leanings:
        which = ""
        if len(split.leanings) > MAX_CLASSES:
            half = MAX_CLASSES // 2
            which = f" Of {len(split.leanings)} classes the {half} highest and the {half} lowest; leaning.csv has all."
        parts.append(
            Part(
                "leaning",
                "Which classes lean on the emotional response",
                _leaning_grid(split.leanings),
                charts=(leaning_chart(split.leanings, "leaning"),),
                caption="Change of the true class's probability between λ = 0 and λ as trained, mean over the class's "
                f"test images and 95 % interval.{which}",
            )
        )
    if _is_gated(loaded) and split.looked.lam is not None:
        charts = tuple(lambda_charts(split.looked, loaded.classes, "lambda"))
        parts.append(Part("lambda", "λ of each image", charts=charts, caption="λ comes from a gate on both features."))
    planes = [
        plane_chart(plane.title, plane.points, by, letters, f"plane-{number}-{place}")
        for place, by in enumerate(_colourings(loaded, split))
        for number, plane in enumerate(split.planes)
    ]
    if planes:
        how = "; ".join(dict.fromkeys(plane.how for plane in split.planes))
        caption = f"{len(split.rows):,} test images, a point each ({how}). The letters are the images below."
        if any("t-SNE" in plane.how for plane in split.planes):
            caption += " t-SNE shows which images are neighbours; the distances between groups mean little."
        if split.felt is not None:
            caption += " Felt emotion is read out by the head of stage 1, from the encoder as stage 1 left it."
        parts.append(Part("features", "How the features lie", charts=tuple(planes), caption=caption))
    return parts


def _colourings(loaded: LoadedRun, split: Split) -> list[Colouring]:
    found = [Colouring("class", split.looked.labels[split.rows], loaded.classes)]
    if split.felt is None or loaded.readout is None:
        return found
    for head in loaded.readout.heads:
        values = split.felt[:, head.outputs]
        of = f" ({head.name})" if len(loaded.readout.heads) > 1 else ""
        if head.space.kind == "dimensions":
            found += [
                Colouring(f"felt {name}{of}", np.clip(values[:, column], -1, 1))
                for column, name in enumerate(head.space.names)
            ]
        else:
            found.append(Colouring(f"felt emotion{of}", values.argmax(axis=1), head.space.names))
    return found


def _leaning_grid(found: Sequence[Leaning]) -> Grid:
    rows = tuple(
        (
            Entry(row.name, f"{row.change.n} image{'s' * (row.change.n != 1)}"),
            Entry(signed(row.change.mean), _bounds(row)),
            Entry(percent(row.was_right)),
            Entry(percent(row.is_right)),
            Entry(fraction(row.lam)),
        )
        for row in extremes(found)
    )
    headers = ("class", "change of the true\nclass's probability", "right, %\nat λ = 0", "right, %\nas trained", "λ")
    return Grid("Classes by how they lean", "The classes by falling change.", headers, (("", rows),))


def _bounds(row: Leaning) -> str:
    low, high = row.change.low, row.change.high
    return NOTHING if math.isnan(low) else f"{signed(low)}, {signed(high)}"


def _is_gated(loaded: LoadedRun) -> bool:
    return loaded.model.encoder is not None and loaded.recipe.regulation.granularity == "per_sample"


def _thumbs(loaded: LoadedRun, split: Split) -> list[tuple[str, list[Thumb]]]:
    assert split.looked.lam is not None
    lam, labels = split.looked.lam, split.looked.labels
    order = np.argsort(lam, kind="stable")
    found = []
    for label, rows in (("The lowest λ:", order[:EXTREMES]), ("The highest λ:", order[::-1][:EXTREMES].copy())):
        pictures = squares(split.images, rows)
        thumbs = [
            Thumb(loaded.classes[labels[row]], fraction(lam[row]), _uri(pixels))
            for row, pixels in zip(rows, pictures, strict=True)
        ]
        found.append((label, thumbs))
    return found


def _felt_note(loaded: LoadedRun) -> str:
    if loaded.readout is None:
        return f"Nothing is felt here: {loaded.no_readout_reason}." if loaded.model.encoder is not None else ""
    return (
        "What is felt is what the head of stage 1 reads out of the encoder as stage 1 left it: what it was taught to "
        "say of affective images, said of these. That a network says it does not mean that a person would, nor that "
        "stage 2 makes use of it."
    )


def _facts(loaded: LoadedRun) -> list[tuple[str, str]]:
    recipe = loaded.recipe
    regulation = recipe.regulation
    facts = [("Run", str(loaded.folder)), ("Target", f"{recipe.target.name}, {recipe.target.image_size} pixels")]
    facts.append(("Backbone", recipe.backbone.name))
    if loaded.model.encoder is not None:
        encoder = recipe.encoder.backbone or recipe.backbone
        facts.append(("Emotional encoder", f"{encoder.name}, {'frozen' if recipe.encoder.frozen else 'trained on'}"))
        facts.append(("Experience", recipe.encoder.experience or "none"))
        facts.append(("λ", f"{regulation.mode}, {regulation.granularity.replace('_', ' ')}, mixes {regulation.mix}"))
    if loaded.readout is not None:
        spaces = (f"{', '.join(head.space.names)}" for head in loaded.readout.heads)
        facts.append(("Felt", f"{'; '.join(spaces)} ({loaded.readout.folder})"))
    return facts


def standalone(chart: Chart) -> bytes:
    """A chart of the page as an SVG file of its own, on white."""
    drawn = str(chart.svg)
    for inherited, value in LIGHT.items():
        drawn = drawn.replace(inherited, value)
    return re.sub(r"(<svg[^>]*)>", r'\1 style="background:#ffffff">', drawn, count=1).encode()


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _uri(pixels: NDArray[np.uint8]) -> str:
    return "data:image/png;base64," + base64.b64encode(_png(pixels)).decode()
