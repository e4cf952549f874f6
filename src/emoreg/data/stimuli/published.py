"""The numbers of images that a set's authors published, compared with the numbers in the user's copy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["as published", "expected", "a part", "more"]
IMAGES, UNTIED = "images", "images without ties"


@dataclass(frozen=True)
class Published:
    """Published numbers of images.

    Args:
        images: number in the whole set.
        source: publication of the numbers.
        splits: number per split; empty for a set without splits.
        emotions: number per category; for votes, per most-voted category.
        expected: by count ("images", a split, an emotion, ...), a different number that complete copies have, and why.
    """

    images: int
    source: str
    splits: Mapping[str, int] = field(default_factory=dict)
    emotions: Mapping[str, int] = field(default_factory=dict)
    expected: Mapping[str, tuple[int, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """One count.

    Args:
        what: "images", "images without ties", a split or an emotion.
        found: number in the user's copy.
        published: number that the authors give.
        verdict: how the two compare. "a part" is not an error.
        why: reason for a difference.
    """

    what: str
    found: int
    published: int
    verdict: Verdict
    why: str = ""


def compare(
    published: Published, images: int, splits: Mapping[str, int], emotions: Mapping[str, int]
) -> list[Comparison]:
    """Compare a copy with the published numbers: all images, each split and, if the copy is complete, each emotion.

    Args:
        published: numbers of the set.
        images: number of images found.
        splits: images found per split.
        emotions: images found per emotion, ties left out; empty for a set without categories.
    """
    whole = _comparison(published, IMAGES, images, published.images)
    rows = [whole]
    rows += [_comparison(published, split, splits.get(split, 0), count) for split, count in published.splits.items()]
    if published.emotions and emotions and whole.verdict in ("as published", "expected"):
        untied, expected = sum(emotions.values()), sum(published.emotions.values())
        if expected != published.images:
            rows.append(_comparison(published, UNTIED, untied, expected))
        rows += [_comparison(published, each, emotions.get(each, 0), n) for each, n in published.emotions.items()]
    return rows


def _comparison(published: Published, what: str, found: int, count: int) -> Comparison:
    if found == count:
        return Comparison(what, found, count, "as published")
    known, why = published.expected.get(what, (None, ""))
    if found == known:
        return Comparison(what, found, count, "expected", why)
    if found < count:
        return Comparison(what, found, count, "a part", "a sample, or images that are missing or no longer available")
    return Comparison(what, found, count, "more", "other images may be among them")
