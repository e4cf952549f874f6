"""Check an image set: read every image, label and row, and find duplicate images by their pixels."""

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
from emoreg.data.stimuli.manifest import is_manifest
from emoreg.data.stimuli.published import Comparison, compare
from emoreg.data.tools.catalogue import ALL, Collection, Kind, kind_of, read_set
from emoreg.errors import UserError
from emoreg.runtime.progress import Progress

TIE = "(tie)"  # label of images without a single most-voted emotion
WITH_RANGES = ("dimensions", "multilabel")  # the mean of a multilabel's column is the share of images that have it


@dataclass(frozen=True)
class Findings:
    """Results of `verify`. The fields from `error` to `repeats` are problems.

    Args:
        name: name of the set.
        root: its location.
        images: number of images.
        counts: images by label and split, for categories, classes and votes (by the most-voted label, or "(tie)").
        ranges: lowest, mean and highest value by dimension and split, for valence, arousal, ...; for several labels per
            image by label, so that the mean is the share of images that have it.
        error: the reader's first error; the images below the root are checked nevertheless.
        unreadable: (name, reason) of each unreadable image.
        missing: places of rows whose image is missing.
        unnamed: images below the root that no row names.
        leaks: groups of images with the same pixels in different splits, as lists of (name, split).
        repeats: groups of images with the same pixels in the same split, likewise.
        notes: lines that say how columns, splits and labels were interpreted.
        left_out: lines that say which images are not used, and why.
        published: numbers of images compared with those that the authors give; empty for sets of the user's own.
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
        return not any((self.error, self.unreadable, self.missing, self.unnamed, self.leaks, self.repeats))


def verify(name: str, root: str | None, progress: Progress, kind: Kind | None = None) -> Findings:
    """Read a whole set, and report its problems.

    Args:
        name: name of a stimulus set or target.
        root: see `catalogue.find`.
        progress: shows how many images have been read.
        kind: kind of the set; None for `kind_of(name)`.

    Raises:
        UserError: there is nothing to check: the set is unknown, its folder is missing, or its zip is refused.
    """
    try:
        collection, error = read_set(name, root, kind=kind), None
    except UserError as reason:
        # The images can be checked even if a table has an error.
        images = [] if root is None else _images_below(root)
        if not images:
            raise
        collection, error = Collection(name, kind or kind_of(name), name, root, images, (), None), str(reason)
    unreadable, duplicates = _read_all(collection, progress)
    splits = [ALL] * len(collection.images) if collection.splits is None else collection.splits.tolist()
    counts = _counts(collection)
    groups = [[(collection.name_of(row), splits[row]) for row in rows] for rows in duplicates]
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
    """Compare a published set with the numbers that its authors give; empty for any other set."""
    if collection.kind != "stimuli" or collection.name not in PUBLISHED:
        return []
    splits = {} if collection.splits is None else Counter(collection.splits.tolist())
    emotions = {label: sum(by_split.values()) for label, by_split in counts.items() if label != TIE}
    return compare(PUBLISHED[collection.name], len(collection.images), splits, emotions)


def _images_below(root: str) -> list[File]:
    """The images in a folder or zip, or in the folder of a manifest."""
    files = list_files(Path(root).parent if is_manifest(root) else root)
    return [file for file in files if is_image(file.name)]


def _read_all(collection: Collection, progress: Progress) -> tuple[dict[int, str], list[list[int]]]:
    """The reason for each unreadable row, and the groups of rows with the same pixels."""
    unreadable: dict[int, str] = {}
    by_pixels: dict[bytes, list[int]] = {}
    count = len(collection.images)
    with progress.task(f"read {collection.name}", count, "images") as advance:
        for rows, digests in in_threads(
            lambda part: [_digest(collection.images[row]) for row in part], range(count), 16
        ):
            for row, digest in zip(rows, digests, strict=True):
                if isinstance(digest, UserError):
                    unreadable[row] = str(digest)
                else:
                    by_pixels.setdefault(digest, []).append(row)
            advance(len(rows))
    return unreadable, [rows for rows in by_pixels.values() if len(rows) > 1]


def _digest(image: Any) -> bytes | UserError:
    """A digest of the upright pixels, equal for copies with another name or format; the error if unreadable."""
    if not isinstance(image, np.ndarray):
        try:
            image = np.asarray(upright(image))
        except UserError as error:
            return error
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def _counts(collection: Collection) -> dict[str, dict[str, int]]:
    if not collection.labels or collection.labels[0].kind in WITH_RANGES:
        return {}
    names, values = collection.labels[0].names, collection.labels[0].values
    rows = majority(values.astype(np.float32)) if values.ndim == 2 else values
    labels = [*names, TIE] if np.any(rows == -1) else list(names)
    masks = collection.split_masks()
    return {
        label: {split: int(np.sum(mask & (rows == number))) for split, mask in masks.items()}
        for label, number in zip(labels, [*range(len(names)), -1], strict=False)
    }


def _ranges(collection: Collection) -> dict[str, dict[str, tuple[float, float, float]]]:
    if not collection.labels or collection.labels[0].kind not in WITH_RANGES:
        return {}
    masks = collection.split_masks()
    ranges = {}
    for number, name in enumerate(collection.labels[0].names):
        column = collection.labels[0].values[:, number]
        ranges[name] = {
            split: (float(column[mask].min()), float(column[mask].mean()), float(column[mask].max()))
            for split, mask in masks.items()
        }
    return ranges


def _unnamed(collection: Collection) -> list[str]:
    """Images below the root that no row names. Empty for targets, and for sets whose readers report this themselves."""
    images = collection.images if isinstance(collection.images, list) else []
    named = {image.path for image in images if isinstance(image, File)}
    if collection.root is None or not named or collection.name not in SETS or collection.left_out:
        return []
    return [image.name for image in _images_below(collection.root) if image.path not in named]
