"""Placeholders among photographs: the picture that a site serves in place of one that was deleted or banned.

FI was collected from Flickr and Instagram, and its copies in circulation hold such pictures (a public reader of it
notes "invalid samples"): one file, many times, with whatever emotion the lost photograph had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence

from emoreg.data.images.files import File
from emoreg.errors import UserError

# A photograph that was found by the words of several emotions stands once with each of Mikels' eight at most, so more
# copies than these are no photograph that people disagree on (ours).
MAX_COPIES = 8


def find_placeholders(images: Sequence[File], labels: Sequence[Hashable]) -> list[list[int]]:
    """Rows (each list: of one picture) of files that are the same, more than MAX_COPIES times, under several labels.

    Only files of a size that so many have are opened. Files that cannot be read are none: reading them says why.

    Args:
        images: N files.
        labels: their labels (N,).
    """
    found = []
    for rows in _groups(range(len(images)), [_size(image) for image in images]):
        found += _groups(rows, [_digest(images[row]) for row in rows])
    return [rows for rows in found if len({labels[row] for row in rows}) > 1]


def _groups(rows: Sequence[int], keys: Sequence[Hashable]) -> list[list[int]]:
    """The rows of each key that more than MAX_COPIES have; None is no key."""
    found: dict[Hashable, list[int]] = {}
    for row, key in zip(rows, keys, strict=True):
        if key is not None:
            found.setdefault(key, []).append(row)
    return [group for group in found.values() if len(group) > MAX_COPIES]


def _size(image: File) -> int | None:
    try:
        return image.size() or None
    except UserError:
        return None


def _digest(image: File) -> bytes | None:
    try:
        return hashlib.blake2b(image.read(), digest_size=16).digest()
    except UserError:
        return None
