"""Find placeholders among photographs: the picture that a site serves instead of one that was deleted or banned.

FI was collected from Flickr and Instagram, and copies in circulation contain such pictures (a public reader of FI
mentions "invalid samples"): the same file many times, each with the emotion of the lost photograph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence

from emoreg.data.images.files import File
from emoreg.errors import UserError

# A photograph that was found under several emotions appears at most once with each of Mikels' eight. More copies than
# these are a placeholder, and not a photograph that people disagree on (ours).
MAX_COPIES = 8


def find_placeholders(images: Sequence[File], labels: Sequence[Hashable]) -> list[list[int]]:
    """The rows of each placeholder: a file with more than MAX_COPIES identical copies, under several labels.

    Only files whose size is shared by that many files are read. Unreadable files are ignored here; decoding them later
    reports the reason.

    Args:
        images: N files.
        labels: label of each file (N,).
    """
    copies = []
    for rows in _groups(range(len(images)), [_size(image) for image in images]):
        copies += _groups(rows, [_digest(images[row]) for row in rows])
    return [rows for rows in copies if len({labels[row] for row in rows}) > 1]


def _groups(rows: Sequence[int], keys: Sequence[Hashable]) -> list[list[int]]:
    """Group rows by key, and keep groups of more than MAX_COPIES. Rows whose key is None are in no group."""
    groups: dict[Hashable, list[int]] = {}
    for row, key in zip(rows, keys, strict=True):
        if key is not None:
            groups.setdefault(key, []).append(row)
    return [group for group in groups.values() if len(group) > MAX_COPIES]


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
