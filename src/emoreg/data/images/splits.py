"""Cutting a table in two, by seed and with the classes in proportion."""

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
Thin = Callable[[Rows], Rows]  # the rows to train on that are kept, of these


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
        limit: keep at most this many training images (and, in proportion, validation images).
        seed: seed of all cuts.
        thin: leaves out training images before `limit` does; the validation part does not depend on it.
        classes: class names, for messages.
        published: the set's own validation split; `share` is then not used.
        edition: of the run, see `split_rows`.
        progress: says which classes are in one part only; None for silence.

    Returns:
        Rows of `table`, and of `published` if given, else of `table`; the latter may be none.

    Raises:
        UserError: nothing is left to train on.
    """
    notes: list[str] = []
    source = table if published is None else published
    train, held_out = np.arange(len(table)), np.arange(len(source))
    if published is None:
        train, held_out = split_rows(table.labels, share, derive_seed(seed, "validation"), edition)
        if share:
            what = f"a validation share of {share:g}"
            notes += classes_without(
                table.name, table.labels, table.labels[held_out], classes, what, "validation images"
            )
        if len(held_out) > round(share * len(table)):
            notes.append(
                f"{table.name}: {len(held_out):,} of {len(table):,} images are for validation, more than the share of "
                f"{share:g}, so that each class has one"
            )
    if len(train) == 0:
        raise UserError(f"{table.name}: a validation share of {share} leaves none of {len(table)} images to train on")
    part = 1.0 if limit is None else limit / len(train)
    if thin is not None:
        train = thin(train)
    if part < 1:
        held_out = held_out[keep_rows(source.labels[held_out], part, derive_seed(seed, "limit"), edition)]
    if limit is not None and limit < len(train):
        train = train[keep_rows(table.labels[train], limit / len(train), derive_seed(seed, "limit"), edition)]
        what = f"a limit of {limit:,}"
        notes += classes_without(table.name, table.labels, table.labels[train], classes, what, "training images")
    if progress is not None:
        progress.tell(notes)
    return train, held_out


def classes_without(
    name: str, labels: Labels, part: Labels, classes: Sequence[str], what: str, kind: str
) -> tuple[str, ...]:
    """A line that names the classes of which a part has no image; nothing if there are none such.

    Args:
        name: of the set.
        labels: of all images.
        part: labels of those in the part.
        classes: names; without them labels are named.
        what: leaves these classes without one.
        kind: of image, in the plural.
    """
    missing = np.setdiff1d(labels, part).tolist() if labels.ndim == 1 else []
    if not missing:
        return ()
    names = shortened(", ".join(classes[label] if classes else str(label) for label in missing))
    return (f"{name}: {what} leaves {len(missing):,} of its classes without {kind}: {names}",)


def first_of_each(labels: Labels, rows: Rows, kept: Rows, seed: int) -> Rows:
    """So many of the rows of each class, in order; those of a smaller number are among those of a larger one.

    Args:
        labels: classes of all images (N,).
        rows: numbers of images.
        kept: number to keep by class (K,), at most as many as there are.
        seed: of the draw.
    """
    shuffled = np.random.default_rng(seed).permutation(rows)
    of_class = labels[shuffled]
    return np.sort(np.concatenate([shuffled[of_class == label][:count] for label, count in enumerate(kept)]))


def split_rows(labels: Labels, share: float, seed: int, edition: int = EDITION) -> tuple[Rows, Rows]:
    """Rows of the part to keep and of the part to hold out, `share` in the latter; classes in proportion.

    Each class of two images or more is in both parts, for which more than the share is held out if need be (but
    nothing where the share is less than half an image); the image of a class that has one only is kept.

    Args:
        labels: classes (N,); others, (N, E), are split without regard to them.
        share: in [0, 1].
        seed: of the draw.
        edition: the first one drew without regard to the classes where one has a single image, or there are more
            classes than images in a part.
    """
    rows = np.arange(len(labels))
    count = round(share * len(labels))
    if count == 0:
        return rows, rows[:0]
    if count >= len(labels):
        return rows[:0], rows
    if labels.ndim != 1 or edition == 1:
        return _stratified_split(labels, count, seed)
    classes, index, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    drawn = _stratified_split(labels, count, seed)
    if sizes.min() >= 2 and all(len(np.unique(index[part])) == len(classes) for part in drawn):
        return drawn
    held_out = first_of_each(index, rows, _quotas(sizes, count, np.minimum(sizes - 1, 1), sizes - 1), seed)
    return np.setdiff1d(rows, held_out), held_out


def at_most(rows: Rows, labels: Labels, limit: int, seed: int) -> Rows:
    """At most `limit` of the rows of a test split, drawn by seed; see `keep_rows`.

    Args:
        rows: numbers of images.
        labels: of all images, by these numbers.
        limit: at least 1.
        seed: of the run.
    """
    if limit >= len(rows):
        return rows
    return rows[keep_rows(labels[rows], limit / len(rows), derive_seed(seed, "test limit"))]


def keep_rows(labels: Labels, share: float, seed: int, edition: int = EDITION) -> Rows:
    """Rows of a part that is kept, `share` of all; classes in proportion, and each in it if there is room.

    Args:
        labels: classes (N,); others, (N, E), are drawn without regard to them.
        share: in [0, 1].
        seed: of the draw.
        edition: as for `split_rows`.
    """
    rows, count = np.arange(len(labels)), round(share * len(labels))
    if count == 0 or count >= len(labels):
        return rows if count else rows[:0]
    drawn = _stratified_split(labels, count, seed)[1]
    if labels.ndim != 1 or edition == 1:
        return drawn
    classes, index, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if count < len(classes) or len(np.unique(index[drawn])) == len(classes):
        return drawn
    return first_of_each(index, rows, _quotas(sizes, count, np.ones_like(sizes), sizes), seed)


def _stratified_split(labels: Labels, count: int, seed: int) -> tuple[Rows, Rows]:
    """Rows of two parts, `count` in the second; stratified where scikit-learn can."""
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(labels))
    classes, sizes = np.unique(labels, return_counts=True) if labels.ndim == 1 else (rows, rows[:0])
    can_stratify = labels.ndim == 1 and sizes.min() >= 2 and min(count, len(labels) - count) >= len(classes)
    larger, smaller = train_test_split(
        rows, test_size=count, random_state=seed % 2**32, stratify=labels if can_stratify else None
    )
    return np.sort(larger), np.sort(smaller)


def _quotas(sizes: Rows, count: int, low: Rows, high: Rows) -> Rows:
    """How many of each class (C,), as near to proportion as `low` and `high` allow; `count` in all if they do."""
    exact = sizes * (count / sizes.sum())
    quotas = np.clip(np.floor(exact).astype(np.int64), low, high)
    while quotas.sum() < count and np.any(quotas < high):
        quotas[np.argmax(np.where(quotas < high, exact - quotas, -np.inf))] += 1
    while quotas.sum() > count and np.any(quotas > low):
        quotas[np.argmax(np.where(quotas > low, quotas - exact, -np.inf))] -= 1
    return quotas
