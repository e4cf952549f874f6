"""Lay out an explanation: an HTML page, a PNG of each image's saliency maps, an SVG of each chart."""

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

from emoreg.config.schema import RELATIVES
from emoreg.inference.explain.charts import Colouring, effect_chart, lambda_charts, projection_chart
from emoreg.inference.explain.effect import ClassEffect
from emoreg.inference.explain.explanation import ExplainedImage, ExplainedSplit
from emoreg.inference.explain.saliency import STEPS, agreement, overlay
from emoreg.inference.export.model_card import describe
from emoreg.inference.load import LoadedRun
from emoreg.inference.predict import Prediction
from emoreg.report.charts import MAX_CLASSES, extremes
from emoreg.report.drawing import Chart
from emoreg.report.formatting import NOTHING, percent
from emoreg.report.page import Part, template
from emoreg.report.page_tables import Entry, Grid
from emoreg.runtime.places import portable, without_places
from emoreg.runtime.safe_io import write_atomically
from emoreg.stages.given_model import describes_given_model
from emoreg.study.arms import LABELS

PAGE = "explain.html"
SIDE = 256  # of a picture, in pixels
NEGLIGIBLE = 0.001  # smaller mean changes of probability count as none
EXTREMES = 6  # number of images shown with the lowest λ, and with the highest
# Values of the page's CSS variables on a light background, for charts that are files of their own.
LIGHT = {"currentColor": "#1b1d1f", "var(--paper)": "#ffffff", "var(--arm-1)": "#0072b2", "var(--arm-2)": "#c44e00"}


@dataclass(frozen=True)
class Picture:
    """A picture on the page."""

    label: str
    caption: str
    alt: str
    data: str  # a data URI


@dataclass(frozen=True)
class ImageSection:
    """An image with its saliency maps."""

    letter: str
    name: str
    pictures: tuple[Picture, ...]
    grid: Grid


def write_page(
    folder: Path,
    loaded: LoadedRun,
    explained: Sequence[ExplainedImage],
    split: ExplainedSplit | None,
    missing: str,
    is_chosen: bool = False,
) -> Path:
    """Write the page and the files beside it.

    Args:
        folder: an existing folder.
        loaded: the classifier.
        explained: the images.
        split: analysis of labelled images; None if they could not be read.
        missing: why they could not be read.
        is_chosen: whether the images are of the split, selected because none were given.

    Returns:
        The path of the page.
    """
    letters = [letter(number) for number in range(len(explained))]
    images = [_image_section(image, folder, name) for image, name in zip(explained, letters, strict=True)]
    parts = _parts(loaded, split, letters) if split else []
    for part in parts:
        for number, chart in enumerate(part.charts, 1):
            name = f"{part.key}-{number}" if len(part.charts) > 1 else part.key
            write_atomically(folder / f"{name}.svg", standalone(chart))
    is_regulated = loaded.model.encoder is not None
    selection = "The given images."
    if split is not None and is_chosen and is_regulated:
        selection = f"The {split.kind}s whose true class gains or loses most probability from the emotional response."
    elif split is not None and is_chosen:
        selection = f"The first {split.kind}s."
    page = template("explain.html.jinja", "emoreg.inference.explain").render(
        title=f"Inside {_name(loaded.folder)}",
        sentences=_sentences(loaded, explained, split, missing),
        split=f"{len(split.images):,} {split.kind}s of {split.images.table.name}" if split else "",
        parts=parts,
        lowest_and_highest=_lambda_extremes(loaded, split) if split and _is_gated(loaded) else [],
        images=images,
        selection=selection,
        steps=STEPS,
        is_regulated=is_regulated,
        felt=_felt_note(loaded),
        facts=_facts(loaded),
    )
    path = folder / PAGE
    write_atomically(path, page.encode("utf-8", "backslashreplace"))  # a folder name may be invalid Unicode
    return path


def letter(number: int) -> str:
    """Name images A, B, ..., Z, AA, AB, ..."""
    return chr(ord("A") + number) if number < 26 else letter(number // 26 - 1) + letter(number % 26)


def _sentences(
    loaded: LoadedRun, explained: Sequence[ExplainedImage], split: ExplainedSplit | None, missing: str
) -> list[str]:
    sentences = []
    if split is not None:
        sentences += _split_sentences(loaded, split)
    elif missing:
        sentences.append(f"There are no results on the test split, which could not be read: {without_places(missing)}")
    correlations = [agreement(image.maps[0], image.maps[1]) for image in explained if len(image.maps) > 1]
    correlations = [value for value in correlations if not math.isnan(value)]
    if correlations:
        sentences.append(
            f"The maps of the two branches have a correlation of {signed(fmean(correlations))}, the mean over the "
            f"{_images(len(correlations))} below (1: both branches rely on the same places; 0: on unrelated places)."
        )
    if loaded.model.encoder is None:
        sentences.append("This classifier has no emotional branch.")
    return sentences


def _split_sentences(loaded: LoadedRun, split: ExplainedSplit) -> list[str]:
    responses = split.responses
    where = "test images" if split.is_own else f"images of {split.images.table.name}"
    accuracy = f"Accuracy on {len(split.images):,} {where}: {percent(responses.correct.mean())} %"
    known = _trained_on_sentences(split)
    if responses.lam is None:
        return [f"{accuracy}.", *known]
    without = percent(responses.correct_without.mean())
    lam = f"λ is {fraction(responses.lam.mean())}"
    if responses.lam.max() - responses.lam.min() > 1e-6:
        each = "image" if _is_gated(loaded) else "class"
        bounds = f"from {fraction(responses.lam.min())} to {fraction(responses.lam.max())}"
        lam += f" on average; each {each} has its own, {bounds}"
    return [
        f"{accuracy} as trained, {without} % without the emotional response (λ = 0).",
        *known,
        _effect_sentence(split.effects),
        f"{lam}.",
    ]


def _trained_on_sentences(split: ExplainedSplit) -> list[str]:
    """Warn of images that the classifier was trained on; nothing about test images without a record of these."""
    if split.trained_on:
        return [
            f"{split.trained_on:,} of these {len(split.images):,} images are among those that the classifier was "
            "trained on: results on them say nothing about unseen images."
        ]
    if split.trained_on is None and not split.is_own:
        return ["Whether the classifier was trained on some of these images is not known: its run has no record of it."]
    return []


def _effect_sentence(effects: Sequence[ClassEffect]) -> str:
    first, last = effects[0], effects[-1]
    largest = max(abs(first.change.mean), abs(last.change.mean))
    if largest < NEGLIGIBLE:
        return (
            "The emotional response is practically unused: its mean effect on the true class's probability is at most "
            f"{fraction(largest)} in every class."
        )
    if len(effects) == 1:
        return f"The emotional response changes the true class's probability in {_change(first)}."
    verb, most = ("raises", "most") if first.change.mean > 0 else ("lowers", "least")
    other = "lowers it most in" if last.change.mean < 0 else "raises it least in"
    start = f"The emotional response {verb} the true class's probability {most} in {_change(first)}"
    return f"{start}, and {other} {_change(last)}."


def _change(effect: ClassEffect) -> str:
    change = effect.change
    bounds = "" if math.isnan(change.low) else f", 95 % interval {signed(change.low)} to {signed(change.high)}"
    return f"{effect.name} ({signed(change.mean)} on average{bounds}, {_images(change.n)})"


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def signed(value: float) -> str:
    """Format a change of probability: "+0.012", "−0.120", or "−1.2e-05" if three digits would show 0."""
    size = abs(value)
    digits = f"{size:.3f}" if size >= 0.0005 or size == 0 else f"{size:.1e}"
    return f"−{digits}" if value < 0 else f"+{digits}"


def fraction(value: float) -> str:
    """Format a share between 0 and 1: "0.31", or "3.1e-05" if two digits would show 0."""
    return f"{value:.2f}" if value >= 0.005 or value == 0 else f"{value:.1e}"


def _image_section(image: ExplainedImage, folder: Path, name: str) -> ImageSection:
    from PIL import Image

    original = np.asarray(Image.fromarray(image.picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    overlays = [overlay(original, each.values) for each in image.maps]
    stem = re.sub(r"[^\w.-]+", "_", Path(image.name).stem).strip("._")[-60:] or "image"
    write_atomically(folder / f"saliency-{name}-{stem}.png", _png(np.concatenate([original, *overlays], axis=1)))
    pictures = [Picture("the image", "as the network sees it", f"The image {image.name}", _uri(original))]
    predicted = image.prediction.regulated.name
    for saliency, pixels in zip(image.maps, overlays, strict=True):
        label = saliency.branch.replace("_", "-")
        caption = f"sums to {saliency.logit_gain:+.1f}, error {saliency.residual:+.2f}".replace("-", "−")
        alt = f"Evidence for and against {predicted} in the {label} response"
        pictures.append(Picture(f"{label}, for {predicted}", caption, alt, _uri(pixels)))
    return ImageSection(name, image.name, tuple(pictures), _responses_grid(image.name, image.prediction, image.note))


def _responses_grid(name: str, prediction: Prediction, note: str) -> Grid:
    responses = {"regulated": prediction.regulated}
    if prediction.emotional is not None:
        responses = {"non-emotional": prediction.non_emotional, "emotional": prediction.emotional, **responses}
    predicted = prediction.regulated.index
    rows = tuple(
        (
            Entry(label),
            Entry(response.name),
            Entry(f"{response.probability:.3f}"),
            Entry(f"{response.probabilities[predicted]:.3f}"),
        )
        for label, response in responses.items()
    )
    notes = [note] if note else []
    if prediction.lam is not None:
        notes.append(f"λ = {fraction(prediction.lam)}")
    notes += [f"felt: {emotion.summary}" for emotion in prediction.felt]
    headers = ("response", "class", "probability", f"of {prediction.regulated.name}")
    return Grid(f"Responses to {name}", "; ".join(notes), headers, (("", rows),))


def _parts(loaded: LoadedRun, split: ExplainedSplit, letters: Sequence[str]) -> list[Part]:
    parts = []
    if split.effects:
        shown = ""
        if len(split.effects) > MAX_CLASSES:
            half = MAX_CLASSES // 2
            shown = f" The {half} highest and the {half} lowest of {len(split.effects)} classes; leaning.csv has all."
        parts.append(
            Part(
                "leaning",
                "Effect of the emotional response on each class",
                _effects_grid(split.effects),
                charts=(effect_chart(split.effects),),
                caption="Change of the true class's probability from λ = 0 to λ as trained: mean over the class's "
                f"{split.kind}s and 95 % interval.{shown}",
            )
        )
    if _is_gated(loaded) and split.responses.lam is not None:
        charts = tuple(lambda_charts(split.responses, loaded.classes))
        caption = "λ is computed from the features of both branches (a gate)."
        parts.append(Part("lambda", "λ of each image", charts=charts, caption=caption))
    charts = tuple(
        projection_chart(projection, by, letters, f"plane-{number}-{place}")
        for place, by in enumerate(_colourings(loaded, split))
        for number, projection in enumerate(split.projections)
    )
    if charts:
        how = "; ".join(dict.fromkeys(projection.description for projection in split.projections))
        caption = f"{len(split.rows):,} {split.kind}s, one point each ({how}). Letters mark the images below."
        if any(projection.method == "tsne" for projection in split.projections):
            caption += " t-SNE shows which images are neighbours; distances between groups mean little."
        if split.felt is not None:
            caption += " Felt emotion is read by the head of stage 1 from the encoder as stage 1 left it."
        parts.append(Part("features", "Features of the branches", charts=charts, caption=caption))
    return parts


def _colourings(loaded: LoadedRun, split: ExplainedSplit) -> list[Colouring]:
    colourings = [Colouring("class", split.responses.labels[split.rows], loaded.classes)]
    if split.felt is None or loaded.readout is None:
        return colourings
    for head in loaded.readout.heads:
        values = split.felt[:, head.outputs]
        suffix = f" ({head.name})" if len(loaded.readout.heads) > 1 else ""
        if head.space.kind == "dimensions":
            colourings += [
                Colouring(f"felt {name}{suffix}", np.clip(values[:, column], -1, 1))
                for column, name in enumerate(head.space.names)
            ]
        else:
            colourings.append(Colouring(f"felt emotion{suffix}", values.argmax(axis=1), head.space.names))
    return colourings


def _effects_grid(effects: Sequence[ClassEffect]) -> Grid:
    rows = tuple(
        (
            Entry(row.name, _images(row.change.n)),
            Entry(signed(row.change.mean), _bounds(row)),
            Entry(percent(row.accuracy_without)),
            Entry(percent(row.accuracy)),
            Entry(fraction(row.lam)),
        )
        for row in extremes(effects)
    )
    headers = (
        "class",
        "change of the true\nclass's probability",
        "accuracy, %\nat λ = 0",
        "accuracy, %\nas trained",
        "λ",
    )
    return Grid("Effect on each class", "Classes by change, the largest increase first.", headers, (("", rows),))


def _bounds(row: ClassEffect) -> str:
    low, high = row.change.low, row.change.high
    return NOTHING if math.isnan(low) else f"{signed(low)}, {signed(high)}"


def _is_gated(loaded: LoadedRun) -> bool:
    return loaded.model.encoder is not None and loaded.recipe.regulation.granularity == "per_sample"


def _lambda_extremes(loaded: LoadedRun, split: ExplainedSplit) -> list[tuple[str, list[Picture]]]:
    """Pictures of the images with the lowest and the highest λ, under a heading each."""
    assert split.responses.lam is not None
    lam, labels = split.responses.lam, split.responses.labels
    order = np.argsort(lam, kind="stable")
    groups = []
    for heading, rows in (("Lowest λ:", order[:EXTREMES]), ("Highest λ:", order[::-1][:EXTREMES].copy())):
        names = [loaded.classes[label] for label in labels[rows]]
        pictures = [
            Picture(name, f"λ = {fraction(value)}", f"{split.kind.capitalize()}: {name}", _uri(pixels))
            for name, value, pixels in zip(names, lam[rows], split.pixels(rows), strict=True)
        ]
        groups.append((heading, pictures))
    return groups


def _felt_note(loaded: LoadedRun) -> str:
    if loaded.model.encoder is None:
        return ""
    if loaded.readout is None:
        return f"No emotion is read from these images: {loaded.no_readout_reason}."
    return (
        "Felt emotion is what the head of stage 1 reads from the encoder as stage 1 left it: the encoder learned to "
        "predict emotion on affective images, and here predicts it on other ones. It does not mean that a person would "
        "feel this emotion, nor that stage 2 makes use of it."
    )


def _name(folder: Path) -> str:
    """Name of a run, without the path: the page reveals no folders of this machine."""
    return folder.resolve().name


def _facts(loaded: LoadedRun) -> list[tuple[str, str]]:
    recipe = loaded.recipe
    regulation, experience = recipe.regulation, recipe.encoder.experience
    if experience is not None:
        learned = portable(experience, loaded.folder)
    elif loaded.readout is not None:  # an encoder that was given in Python
        learned = _name(loaded.readout.folder)
    else:
        learned = "not known" if describes_given_model(recipe) else "none"
    facts = [("Run", _name(loaded.folder)), ("Target", loaded.target)]
    if regulation.mode == "transfer":
        facts.append(("Encoder, trained further in stage 2", describe(recipe.encoder_backbone)))
        facts.append(("Experience", learned))
    else:
        facts.append(("Backbone", describe(recipe.backbone)))
    if regulation.mode in RELATIVES:
        facts.append(("Head", LABELS[regulation.mode]))
    if loaded.model.encoder is not None:
        training = "frozen" if recipe.encoder.frozen else "trained further in stage 2"
        facts.append(("Emotional encoder", f"{describe(recipe.encoder_backbone)}, {training}"))
        facts.append(("Experience", learned))
        facts.append(("λ", f"{regulation.mode}, {regulation.granularity.replace('_', ' ')}, mixes {regulation.mix}"))
    if loaded.readout is not None:
        spaces = "; ".join(", ".join(head.space.names) for head in loaded.readout.heads)
        facts.append(("Felt", f"{spaces} ({_name(loaded.readout.folder)})"))
    return facts


def standalone(chart: Chart) -> bytes:
    """Return a chart of the page as an SVG file of its own, on white."""
    source = str(chart.svg)
    for inherited, value in LIGHT.items():
        source = source.replace(inherited, value)
    return re.sub(r"(<svg[^>]*)>", r'\1 style="background:#ffffff">', source, count=1).encode()


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _uri(pixels: NDArray[np.uint8]) -> str:
    return "data:image/png;base64," + base64.b64encode(_png(pixels)).decode()
