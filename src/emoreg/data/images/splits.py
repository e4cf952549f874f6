"""Split a table in two, by seed and stratified by class."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from emoreg.config.recipe import EDITION
from emoreg.data.images.table import Table
from emoreg.errors import UserError, shortened
from emoreg.runtime.progress import Progress
from emoreg.runtime.seeding import derive_seed

Labels = NDArray[np.int64] | NDArray[np.float32]
Rows = NDArray[np.int64]
Thin = Callable[[Rows], Rows]  # candidate training rows to the rows that are kept


def cut_validation(
    table: Table,
    share: float,
    limit: int | None,
    seed: int,
    thin: Thin | None = None,
    classes: Sequence[str] = (),
    published: Table | None = None,
    edition: int = EDITION,
    progress: Progress | None = None,
) -> tuple[Rows, Rows]:
    """Rows of the training and of the validation images, the same for every arm of a study with this seed.

    Args:
        table: the training images of a set, without its test images.
        share: share of the validation part, in [0, 1).
        limit: keep at most this many training images, and of the validation images the proportion that the limit is of
            all training images, whatever `thin` drops; None for all.
        seed: seed of all draws.
        thin: drops training images before `limit` applies; does not affect the validation part.
        classes: class names, for messages.
        published: the set's own validation split, used instead of `share`.
        edition: edition of the run, see `split_rows`.
        progress: prints which classes a part lacks; None prints nothing.

    Returns:
        Rows of `table` to train on, and rows of `published`, or else of `table`, for validation, possibly none.

    Raises:
        UserError: nothing is left to train on.
    """
    notes: tuple[str, ...] = ()
    if published is None:
        source = table
        train, held_out = split_rows(table.labels, share, derive_seed(seed, "validation"), edition)
        notes += _validation_notes(table, held_out, share, classes)
    else:
        source = published
        train, held_out = np.arange(len(table)), np.arange(len(published))
    if len(train) == 0:
        raise UserError(f"{table.name}: a validation share of {share} leaves none of {len(table)} images to train on")
    if limit is not None and limit < len(train):
        rows = keep_rows(source.labels[held_out], limit / len(train), derive_seed(seed, "limit"), edition)
        held_out = held_out[rows]
    if thin is not None:
        train = thin(train)
    if limit is not None and limit < len(train):
        train = train[keep_rows(table.labels[train], limit / len(train), derive_seed(seed, "limit"), edition)]
        cause = f"a limit of {limit:,}"
        notes += classes_without(table.name, table.labels, table.labels[train], classes, cause, "training images")
    if progress is not None:
        progress.report_notes(notes)
    return train, held_out


def _validation_notes(table: Table, held_out: Rows, share: float, classes: Sequence[str]) -> tuple[str, ...]:
    if not share:
        return ()
    cause = f"a validation share of {share:g}"
    notes = classes_without(table.name, table.labels, table.labels[held_out], classes, cause, "validation images")
    if len(held_out) > round(share * len(table)):
        notes += (
            f"{table.name}: {len(held_out):,} of {len(table):,} images are for validation, more than the share of "
            f"{share:g}, so that each class has one",
        )
    return notes


def classes_without(
    name: str, labels: Labels, part: Labels, classes: Sequence[str], cause: str, kind: str
) -> tuple[str, ...]:
    """A line that names the classes of which a part has no image; empty if it has images of all classes.

    Args:
        name: name of the set.
        labels: labels of all images.
        part: labels of the images in the part.
        classes: class names; if empty, the labels are printed instead.
        cause: subject of the line, such as "a limit of 100".
        kind: kind of images that are missing, in the plural.
    """
    missing = np.setdiff1d(labels, part).tolist() if labels.ndim == 1 else []
    if not missing:
        return ()
    names = shortened(", ".join(classes[label] if classes else str(label) for label in missing))
    return (f"{name}: {cause} leaves {len(missing):,} of its classes without {kind}: {names}",)


def first_of_each(labels: Labels, rows: Rows, counts: Rows, seed: int) -> Rows:
    """Draw a number of rows of each class, sorted. With the same seed, smaller draws are subsets of larger ones.

    Args:
        labels: classes of all images (N,).
        rows: row numbers to draw from.
        counts: number of rows to draw of each class (K,), at most as many as there are.
        seed: seed of the draw.
    """
    shuffled = np.random.default_rng(seed).permutation(rows)
    classes = labels[shuffled]
    return np.sort(np.concatenate([shuffled[classes == label][:count] for label, count in enumerate(counts)]))


def split_rows(labels: Labels, share: float, seed: int, edition: int = EDITION) -> tuple[Rows, Rows]:
    """Split rows into a part to keep and a part to hold out, stratified by class.

    Both parts contain each class with at least two images; if necessary, more than `share` is held out for this. If
    `share` is less than half an image, nothing is held out. The only image of a class is kept.

    Args:
        labels: classes (N,); labels (N, E) are split without stratification.
        share: share of the part to hold out, in [0, 1].
        seed: seed of the draw.
        edition: edition of the run. The first did not stratify if a class has a single image, or a part has fewer
            images than there are classes.
    """
    rows, count = np.arange(len(labels)), round(share * len(labels))
    if count == 0 or count >= len(labels):
        return rows[count:], rows[:count]
    drawn = _stratified_split(labels, count, seed)
    if labels.ndim != 1 or edition == 1:
        return drawn
    classes, index, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if all(len(np.unique(index[part])) == len(classes) for part in drawn):
        return drawn
    held_out = first_of_each(index, rows, _quotas(sizes, count, np.minimum(sizes - 1, 1), sizes - 1), seed)
    return np.setdiff1d(rows, held_out), held_out


def at_most(rows: Rows, labels: Labels, limit: int, seed: int) -> Rows:
    """At most `limit` rows of a test split, drawn by `keep_rows`.

    Args:
        rows: row numbers to draw from.
        labels: labels of all images.
        limit: at least 1.
        seed: seed of the run.
    """
    if limit >= len(rows):
        return rows
    return rows[keep_rows(labels[rows], limit / len(rows), derive_seed(seed, "test limit"))]


def keep_rows(labels: Labels, share: float, seed: int, edition: int = EDITION) -> Rows:
    """Draw a share of the rows, stratified by class, with each class among them if there is room.

    Args:
        labels: classes (N,); with labels (N, E), rows are drawn without stratification.
        share: share of the rows to keep, in [0, 1].
        seed: seed of the draw.
        edition: edition of the run, see `split_rows`.
    """
    rows, count = np.arange(len(labels)), round(share * len(labels))
    if count == 0 or count >= len(labels):
        return rows[:count]
    _, drawn = _stratified_split(labels, count, seed)
    if labels.ndim != 1 or edition == 1:
        return drawn
    classes, index, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if count < len(classes) or len(np.unique(index[drawn])) == len(classes):
        return drawn
    return first_of_each(index, rows, _quotas(sizes, count, np.ones_like(sizes), sizes), seed)


def _stratified_split(labels: Labels, count: int, seed: int) -> tuple[Rows, Rows]:
    """Split rows into two parts, `count` in the second; stratified if scikit-learn supports it for these labels."""
    from sklearn.model_selection import train_test_split

    stratify = None
    if labels.ndim == 1:
        sizes = np.unique(labels, return_counts=True)[1]
        if sizes.min() >= 2 and min(count, len(labels) - count) >= len(sizes):
            stratify = labels
    parts = train_test_split(np.arange(len(labels)), test_size=count, random_state=seed % 2**32, stratify=stratify)
    return np.sort(parts[0]), np.sort(parts[1])


def _quotas(sizes: Rows, count: int, low: Rows, high: Rows) -> Rows:
    """Distribute `count` over classes (C,) in proportion to their sizes, as far as `low` and `high` allow."""
    exact = sizes * (count / sizes.sum())
    quotas = np.clip(np.floor(exact).astype(np.int64), low, high)
    while quotas.sum() < count and np.any(quotas < high):
        quotas[np.argmax(np.where(quotas < high, exact - quotas, -np.inf))] += 1
    while quotas.sum() > count and np.any(quotas > low):
        quotas[np.argmax(np.where(quotas > low, quotas - exact, -np.inf))] -= 1
    return quotas
