"""Find placeholders among photographs: the picture that a site serves instead of one that was deleted or banned.

FI was collected from Flickr and Instagram, and copies in circulation contain such pictures (a public reader of FI
mentions "invalid samples"): the same file many times, each with the emotion of the lost photograph.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from emoreg.data.images.files import File
from emoreg.errors import UserError

K = TypeVar("K", bound=Hashable)
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
    for size, rows in _groups(range(len(images)), lambda row: images[row].size()):
        if size > 0:
            copies += _groups(rows, lambda row: hashlib.blake2b(images[row].read(), digest_size=16).digest())
    return [rows for _, rows in copies if len({labels[row] for row in rows}) > 1]


def _groups(rows: Iterable[int], key: Callable[[int], K]) -> list[tuple[K, list[int]]]:
    """The keys that more than MAX_COPIES rows share, with these rows. Rows whose file cannot be read are left out."""
    groups: dict[K, list[int]] = {}
    for row in rows:
        with contextlib.suppress(UserError):
            groups.setdefault(key(row), []).append(row)
    return [(shared, group) for shared, group in groups.items() if len(group) > MAX_COPIES]
