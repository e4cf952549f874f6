"""How many images a set has by its authors' account, and how what is found compares with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["as published", "expected", "a part", "more"]
IMAGES, UNTIED = "images", "images without ties"


@dataclass(frozen=True)
class Published:
    """Numbers of images.

    Args:
        images: of the whole set.
        source: where the numbers stand.
        splits: by split, where there are any.
        emotions: by category; of votes, by the most-voted one.
        expected: by what is counted, another number that the complete files give, and why.
    """

    images: int
    source: str
    splits: Mapping[str, int] = field(default_factory=dict)
    emotions: Mapping[str, int] = field(default_factory=dict)
    expected: Mapping[str, tuple[int, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """One number.

    Args:
        what: is counted: images, images without ties, a split or an emotion.
        found: in the files.
        published: by the authors' account.
        verdict: whether these agree; a part of a set is no error.
        why: they do not.
    """

    what: str
    found: int
    published: int
    verdict: Verdict
    why: str = ""


def compare(
    published: Published, images: int, splits: Mapping[str, int], emotions: Mapping[str, int]
) -> list[Comparison]:
    """What is found against what is published: all images, each split, and of a complete set each emotion.

    Args:
        published: numbers of the set.
        images: found.
        splits: images by split.
        emotions: images by emotion, without those that tie; empty for a set without categories.
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
        return Comparison(
            what, found, count, "a part", "a sample, or images that are not here or cannot be had any more"
        )
    return Comparison(what, found, count, "more", "other images may lie there too")
