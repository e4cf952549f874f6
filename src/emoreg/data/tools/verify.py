"""Check an image set: read every image, label and row, and find duplicates by their pixels."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emoreg.data.images.decode import upright
from emoreg.data.images.files import File, is_image, list_files
from emoreg.data.images.threads import in_threads
from emoreg.data.stimuli import PUBLISHED, SETS
from emoreg.data.stimuli.emotion import majority
from emoreg.data.stimuli.published import Comparison, compare
from emoreg.data.tools.catalogue import Collection, Kind, kind_of, read_set
from emoreg.errors import UserError
from emoreg.runtime.progress import Progress

ALL = "all"  # the split of sets without splits
TIE = "(tie)"  # the label of images whose most-voted emotions tie


@dataclass(frozen=True)
class Findings:
    """Results of `verify`. All but the first five and the last three are problems.

    Args:
        name: name of the set.
        root: its location.
        images: number of images.
        counts: images by label and split, for categories, votes (by the most-voted; "(tie)") and classes.
        ranges: lowest, mean and highest value by dimension and split, for valence, arousal, ...
        error: the reader's first error; the images below the root were checked nevertheless.
        unreadable: names and reasons.
        missing: rows whose image is missing.
        unnamed: images below the root that no row names.
        leaks: images with the same pixels in different splits; each a list of (name, split).
        repeats: images with the same pixels in the same split.
        notes: lines that say what was taken for what.
        left_out: lines that say which images are not used, and why.
        published: numbers of images against those that the set's authors give; empty for a set of the user's own.
    """

    name: str
    root: str | None
    images: int
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    ranges: dict[str, dict[str, tuple[float, float, float]]] = field(default_factory=dict)
    error: str | None = None
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)
    leaks: list[list[tuple[str, str]]] = field(default_factory=list)
    repeats: list[list[tuple[str, str]]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    published: list[Comparison] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether there are no problems."""
        lists = (self.unreadable, self.missing, self.unnamed, self.leaks, self.repeats)
        return self.error is None and not any(lists)


def verify(name: str, root: str | None, progress: Progress, kind: Kind | None = None) -> Findings:
    """Read a whole set.

    Args:
        name: name of a stimulus set or target.
        root: see `catalogue.find`.
        progress: shows how many images are read.
        kind: of the set; None for that of its name.

    Raises:
        UserError: there is nothing to check: unknown set, missing folder, or a zip that is refused.
    """
    try:
        collection, error = read_set(name, root, kind=kind), None
    except UserError as reason:
        # An error in a table says nothing about the images, so these are checked nevertheless.
        files = [] if root is None else list_files(_folder(root))
        images = [file for file in files if is_image(file.name)]
        if not images:
            raise
        collection, error = Collection(name, kind or kind_of(name), name, root, images, (), None), str(reason)
    unreadable, alike = _read_all(collection, progress)
    splits = [ALL] * len(collection.images) if collection.splits is None else collection.splits.tolist()
    counts = _counts(collection)
    groups = [[(collection.name_of(row), splits[row]) for row in rows] for rows in alike]
    return Findings(
        name,
        root,
        len(collection.images),
        counts,
        _ranges(collection),
        error,
        [(collection.name_of(row), reason) for row, reason in unreadable.items()],
        list(collection.missing),
        _unnamed(collection),
        [group for group in groups if len({split for _, split in group}) > 1],
        [group for group in groups if len({split for _, split in group}) == 1],
        collection.notes,
        collection.left_out,
        _compared(collection, counts) if error is None else [],
    )


def _compared(collection: Collection, counts: dict[str, dict[str, int]]) -> list[Comparison]:
    """What is found against what is published, for a published set."""
    if collection.kind != "stimuli" or collection.name not in PUBLISHED:
        return []
    splits = {} if collection.splits is None else Counter(collection.splits.tolist())
    emotions = {label: sum(of_split.values()) for label, of_split in counts.items() if label != TIE}
    return compare(PUBLISHED[collection.name], len(collection.images), splits, emotions)


def _folder(root: str) -> str:
    """What a reader looks through: of a manifest that is given as a file, the folder."""
    is_manifest = Path(root).is_file() and Path(root).suffix.lower() != ".zip"
    return str(Path(root).parent) if is_manifest else root


def _read_all(collection: Collection, progress: Progress) -> tuple[dict[int, str], list[list[int]]]:
    """Unreadable rows with their reasons, and rows with the same pixels."""
    unreadable: dict[int, str] = {}
    by_pixels: dict[bytes, list[int]] = {}

    def look(rows: range) -> list[bytes | UserError]:
        return [_digest(collection.images[row]) for row in rows]

    count = len(collection.images)
    with progress.task(f"read {collection.name}", count, "images") as advance:
        for rows, results in in_threads(look, range(count), 16):
            for row, result in zip(rows, results, strict=True):
                if isinstance(result, UserError):
                    unreadable[row] = str(result)
                else:
                    by_pixels.setdefault(result, []).append(row)
            advance(len(rows))
    return unreadable, [rows for rows in by_pixels.values() if len(rows) > 1]


def _digest(image: Any) -> bytes | UserError:
    """Digest of the pixels after orientation, so that copies with another name, format or comment are found too."""
    if not isinstance(image, np.ndarray):
        try:
            image = np.asarray(upright(image))
        except UserError as error:
            return error
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def _counts(collection: Collection) -> dict[str, dict[str, int]]:
    if not collection.labels or collection.labels[0].kind == "dimensions":
        return {}
    names, values = collection.labels[0].names, collection.labels[0].values
    rows = majority(values.astype(np.float32)) if values.ndim == 2 else values
    labels = [*names, TIE] if np.any(rows == -1) else list(names)
    return {
        label: {split: int(np.sum(of_split & (rows == number))) for split, of_split in _by_split(collection).items()}
        for label, number in zip(labels, [*range(len(names)), -1], strict=False)
    }


def _ranges(collection: Collection) -> dict[str, dict[str, tuple[float, float, float]]]:
    if not collection.labels or collection.labels[0].kind != "dimensions":
        return {}
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for number, name in enumerate(collection.labels[0].names):
        column = collection.labels[0].values[:, number]
        found[name] = {
            split: (float(column[rows].min()), float(column[rows].mean()), float(column[rows].max()))
            for split, rows in _by_split(collection).items()
        }
    return found


def _by_split(collection: Collection) -> dict[str, Any]:
    """bool (N,) of each split's rows."""
    if collection.splits is None:
        return {ALL: np.ones(len(collection.images), bool)}
    order = [split for split in ("train", "validation", "test") if np.any(collection.splits == split)]
    return {split: collection.splits == split for split in order}


def _unnamed(collection: Collection) -> list[str]:
    """Images below the root that no row names; of stimulus sets that do not say themselves what they left out."""
    images = collection.images if isinstance(collection.images, list) else []
    named = {str(image) for image in images if isinstance(image, File)}
    if collection.root is None or not named or collection.name not in SETS or collection.left_out:
        return []
    files = list_files(_folder(collection.root))
    return [file.name for file in files if is_image(file.name) and str(file) not in named]
