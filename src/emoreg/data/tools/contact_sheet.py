"""Draw a contact sheet of an image set: images with their labels, and the distribution of all labels."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emoreg.data.images.decode import upright
from emoreg.data.images.packed import PackedLabels
from emoreg.data.images.threads import in_threads
from emoreg.data.stimuli.emotion import majority
from emoreg.data.tools.catalogue import Collection
from emoreg.errors import UserError
from emoreg.runtime.fonts import set_fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

    Place = Callable[[float, float, float, float], Axes]

COLUMNS = 8
THUMBNAIL = 240  # pixels, about twice the displayed size, for high-resolution screens
# Inches. CELL is an image with the gap after it, HEADING the text above all images. The chart is on the right.
CELL, GAP, CAPTION, HEADING, MARGIN, CHART_WIDTH, CHART_HEIGHT = 1.25, 0.08, 0.3, 0.95, 0.25, 4.9, 4.3
BAR = 0.34  # inches, a bar with the gap after it
TICKS = (-1, -0.5, 0, 0.5, 1)
BINS = [number / 16 for number in range(-16, 17)]
MAX_NAMED = 40  # largest number of classes whose names fit beside the bars
INK, QUIET, ACCENT, FAINT = "#222222", "#6b7280", "#2563a8", "#c8d3e0"
SPLIT_COLOURS = {"train": "#2563a8", "validation": "#7fb0dc", "test": "#e08a3c"}


def draw_sheet(collection: Collection, count: int = 32, seed: int = 0) -> bytes:
    """Draw images spread over the labels, and the distribution of all labels; return a PNG.

    Images with valence and arousal are arranged as on the plane: valence increases to the right, arousal upwards.
    Otherwise images are chosen from each class in turn.

    Args:
        collection: the set.
        count: largest number of images; rounded up to whole rows for valence and arousal.
        seed: seed of the choice of images.
    """
    import matplotlib
    from matplotlib.figure import Figure

    labels = collection.labels[0]
    rows = choose(labels, count, seed)
    work = in_threads(lambda part: _thumbnail(collection.images[rows[part.start]]), range(len(rows)), 1)
    thumbnails = [thumbnail for _, thumbnail in work]
    columns = min(COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    tallest = max((image.height / image.width for image in thumbnails if image), default=1.0)
    down = (CELL - GAP) * min(max(tallest, 0.5), 1)  # height of an image; its width is CELL - GAP
    is_short = labels.kind != "dimensions" and len(labels.names) <= MAX_NAMED
    chart_height = min(CHART_HEIGHT, BAR * len(labels.names) + 0.6) if is_short else CHART_HEIGHT
    grid_width, grid_height = columns * CELL, max(lines * (down + GAP + CAPTION), chart_height)
    with matplotlib.rc_context({"text.color": INK, "axes.edgecolor": QUIET}):
        page = Figure((MARGIN + grid_width + CHART_WIDTH, HEADING + grid_height + MARGIN), dpi=110, facecolor="white")
        width, height = page.get_size_inches()

        def place(left: float, top: float, across: float, down: float) -> Axes:
            """Add axes at a position in inches from the upper left corner."""
            return page.add_axes((left / width, 1 - (top + down) / height, across / width, down / height))

        top = 1 - MARGIN / height
        page.text(MARGIN / width, top, collection.name, size=15, weight="bold", va="top", parse_math=False)
        text = f"{len(collection.images):,} images · {_describe(labels)}"
        page.text(MARGIN / width, top - 0.3 / height, text, size=9.5, color=QUIET, va="top", parse_math=False)
        for number, (row, thumbnail) in enumerate(zip(rows, thumbnails, strict=True)):
            line, column = divmod(number, columns)
            axes = place(MARGIN + column * CELL, HEADING + line * (down + GAP + CAPTION), CELL - GAP, down)
            _draw_image(axes, thumbnail, caption(labels, int(row)))
        left, chart_height = MARGIN + grid_width, min(grid_height, 2 * CHART_HEIGHT)
        if labels.kind != "dimensions":
            _draw_bars(place, left, chart_height, collection)
        elif {"valence", "arousal"} <= set(labels.names):
            _draw_plane(place, left, labels, rows)
        else:
            _draw_histograms(place, left, chart_height, labels)
        buffer = io.BytesIO()
        set_fonts(page)
        page.savefig(buffer, format="png")
    return buffer.getvalue()


def choose(labels: PackedLabels, count: int, seed: int) -> NDArray[np.int64]:
    """Choose the images to show; return their row numbers in the order in which they are shown."""
    draw = np.random.default_rng(seed)
    total = len(labels.values)
    shuffled = draw.permutation(total)
    if labels.kind == "dimensions" and {"valence", "arousal"} <= set(labels.names) and total > COLUMNS:
        valence, arousal = (labels.values[:, labels.names.index(name)] for name in ("valence", "arousal"))
        lines = max(1, min(-(-count // COLUMNS), total // COLUMNS))
        cells = []
        # Split into columns of equal numbers of images, and these into cells; show one image of each cell.
        for column in np.array_split(shuffled[np.argsort(valence[shuffled], kind="stable")], COLUMNS):
            upwards = column[np.argsort(-arousal[column], kind="stable")]
            cells.append([draw.choice(cell) for cell in np.array_split(upwards, lines)])
        return np.array(cells).T.ravel()
    if labels.kind == "dimensions":
        chosen = shuffled[:count]
        return chosen[np.argsort(labels.values[chosen, 0], kind="stable")]
    classes = majority(labels.values.astype(np.float32)) if labels.values.ndim == 2 else labels.values
    index_in_class = pd.Series(shuffled).groupby(classes[shuffled]).cumcount().to_numpy()
    in_turn = shuffled[np.argsort(index_in_class, kind="stable")][:count]
    return in_turn[np.argsort(classes[in_turn], kind="stable")]


def caption(labels: PackedLabels, row: int) -> str:
    """An image's label in one or two lines."""
    value = labels.values[row]
    if labels.kind == "dimensions":
        return "  ".join(f"{name[0].upper()} {number:+z.2f}" for name, number in zip(labels.names, value, strict=True))
    if labels.kind == "votes":
        shares = value / value.sum()
        top = np.argsort(-shares, kind="stable")[:2]
        return "\n".join(f"{labels.names[number]} {shares[number]:.0%}" for number in top if shares[number] > 0)
    if labels.kind == "multilabel":
        return textwrap.shorten(
            ", ".join(labels.names[number] for number in np.flatnonzero(value)), 40, placeholder="…"
        )
    return textwrap.shorten(labels.names[int(value)], 40, placeholder="…")


def _thumbnail(image: Any) -> Image.Image | None:
    from PIL import Image

    try:
        thumbnail = Image.fromarray(image) if isinstance(image, np.ndarray) else upright(image, at_least=THUMBNAIL)
    except UserError:
        return None
    if max(thumbnail.size) <= THUMBNAIL / 2:  # show the pixels of small images as squares
        times = THUMBNAIL // max(thumbnail.size)
        return thumbnail.resize((thumbnail.width * times, thumbnail.height * times), Image.Resampling.NEAREST)
    thumbnail.thumbnail((THUMBNAIL, THUMBNAIL))
    return thumbnail


def _draw_image(axes: Axes, image: Image.Image | None, text: str) -> None:
    if image is None:
        axes.set_facecolor("#eeeeee")
        axes.text(0.5, 0.5, "unreadable", size=7, color=QUIET, ha="center", va="center", transform=axes.transAxes)
    else:
        axes.imshow(np.asarray(image), interpolation="antialiased")
        axes.set_anchor("S")  # directly above its caption
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    lines = [line for part in text.split("\n") for line in textwrap.wrap(part, 20)[:2]][:2]
    axes.set_xlabel("\n".join(lines), size=7, color=INK, labelpad=2, linespacing=1.05, parse_math=False)


def _describe(labels: PackedLabels) -> str:
    if labels.kind == "dimensions":
        return ", ".join(labels.names)
    kinds = {"class": "classes", "multilabel": "labels", "votes": "emotions, by votes"}
    return f"{len(labels.names)} {kinds.get(labels.kind, 'emotions')}"


def _draw_bars(place: Place, left: float, down: float, collection: Collection) -> None:
    """Draw the number of images of each class by split; for votes, each emotion's share and most-voted count."""
    labels = collection.labels[0]
    names = list(labels.names)
    bars: dict[str, NDArray[Any]]
    if labels.kind == "votes":
        shares = labels.values / labels.values.sum(axis=1, keepdims=True)
        most = majority(labels.values.astype(np.float32))
        bars = {"votes": shares.mean(axis=0)}
        notes = [f"{share:.1%}" for share in bars["votes"]]
        counts = np.bincount(most[most >= 0], minlength=len(names))
        names = [f"{name}\nmost-voted: {count:,}" for name, count in zip(names, counts, strict=True)]
        title = f"share of all votes ({np.sum(most == -1):,} images are ties)"
    else:
        bars = {split: _images_per_label(labels, mask) for split, mask in collection.split_masks().items()}
        notes = [f"{count:,}" for count in np.sum(list(bars.values()), axis=0)]
        title = "images"
    is_named = len(names) <= MAX_NAMED
    longest = max(len(line) for name in names for line in name.split("\n")) if is_named else 0
    indent = min(0.35 + 0.068 * longest, 2.4)
    down = min(down, BAR * len(names) + 0.3) if is_named else down
    axes = place(left + indent, HEADING + 0.25, CHART_WIDTH - indent - 0.65, down - 0.25)
    order = np.arange(len(names)) if is_named else np.argsort(-np.sum(list(bars.values()), axis=0), kind="stable")
    ends = np.zeros(len(names))
    for name, lengths in bars.items():
        colour = SPLIT_COLOURS.get(name, ACCENT)
        axes.barh(np.arange(len(names)), lengths[order], 0.72 if is_named else 1.0, ends, color=colour, label=name)
        ends += lengths[order]
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0)
    axes.set_title(title, size=9, color=QUIET, loc="left")
    if is_named:
        axes.set_yticks(range(len(names)))
        shortened = ["\n".join(textwrap.shorten(line, 30, placeholder="…") for line in n.split("\n")) for n in names]
        axes.set_yticklabels(shortened, size=8, parse_math=False)
        for number, (end, note) in enumerate(zip(ends, notes, strict=True)):
            axes.annotate(note, (end, number), (4, 0), textcoords="offset points", size=8, va="center", color=QUIET)
        axes.set_xticks([])
    else:
        axes.set_yticks([])
        axes.set_ylabel(f"{len(names):,} classes, the largest first", size=8, color=QUIET)
        axes.tick_params(labelsize=8, colors=QUIET)
    axes.tick_params(length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    if len(bars) > 1:
        axes.legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1.12, 1.0), ncols=3)


def _images_per_label(labels: PackedLabels, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    values = labels.values[mask]
    return np.count_nonzero(values, axis=0) if values.ndim == 2 else np.bincount(values, minlength=len(labels.names))


def _draw_plane(place: Place, left: float, labels: PackedLabels, shown: NDArray[np.int64]) -> None:
    """Draw a scatter plot of valence and arousal, with a histogram of each at the side."""
    valence, arousal = (labels.values[:, labels.names.index(name)] for name in ("valence", "arousal"))
    side, margin, indent = CHART_WIDTH - 1.35, 0.45, 0.7
    plane = place(left + indent, HEADING + margin + 0.05, side, side)
    above = place(left + indent, HEADING, side, margin)
    right = place(left + indent + side + 0.05, HEADING + margin + 0.05, margin, side)
    size = float(np.clip(6000 / len(valence), 2, 18))
    plane.scatter(valence, arousal, size, color=ACCENT, alpha=0.35, linewidths=0)
    plane.scatter(valence[shown], arousal[shown], 22, facecolors="none", edgecolors=INK, linewidths=0.9)
    for line in (plane.axhline, plane.axvline):
        line(0, color=FAINT, linewidth=0.8, zorder=0)
    plane.set(xlim=(-1.03, 1.03), ylim=(-1.03, 1.03), xticks=TICKS, yticks=TICKS)
    above.hist(valence, BINS, color=ACCENT, alpha=0.6)
    right.hist(arousal, BINS, color=ACCENT, alpha=0.6, orientation="horizontal")
    above.set(xlim=(-1.03, 1.03), xticks=[], yticks=[])
    right.set(ylim=(-1.03, 1.03), xticks=[], yticks=[])
    plane.set_xlabel(f"valence   (mean {valence.mean():+z.2f}, deviation {valence.std():.2f})", size=8.5)
    plane.set_ylabel(f"arousal   (mean {arousal.mean():+z.2f}, deviation {arousal.std():.2f})", size=8.5)
    plane.tick_params(labelsize=8, colors=QUIET, length=2)
    plane.spines[["top", "right"]].set_visible(False)
    for axes in (above, right):
        axes.spines[:].set_visible(False)
    note = "dots: all images; rings: the images shown, with valence increasing to the right, arousal upwards"
    plane.text(0, -0.2, "\n".join(textwrap.wrap(note, 58)), size=8, color=QUIET, va="top", transform=plane.transAxes)


def _draw_histograms(place: Place, left: float, down: float, labels: PackedLabels) -> None:
    share = (down - 0.2) / len(labels.names)
    for number, name in enumerate(labels.names):
        axes = place(left + 0.5, HEADING + 0.2 + number * share, CHART_WIDTH - 0.8, share - 0.5)
        column = labels.values[:, number]
        if np.abs(column).max() <= 1:
            axes.hist(column, BINS, color=ACCENT, alpha=0.6)
            axes.set(xlim=(-1.03, 1.03), xticks=TICKS, yticks=[])
        else:  # values of the user's own
            axes.hist(column, len(BINS) - 1, color=ACCENT, alpha=0.6)
            axes.set(yticks=[])
        axes.set_title(name, size=9, color=QUIET, loc="left")
        axes.tick_params(labelsize=8, colors=QUIET, length=2)
        axes.spines[["top", "left", "right"]].set_visible(False)
