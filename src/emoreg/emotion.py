"""Emotion spaces: what the labels of affective images are, and what an encoder is asked to predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class EmotionSpace:
    """How emotions are labelled.

    Args:
        kind: "category" (labels: int64 (N,), indices into names), "votes" (float32 (N, E), counts or
            probabilities) or "dimensions" (float32 (N, E), in [-1, 1]).
        names: of the E categories or dimensions.
    """

    kind: Literal["category", "votes", "dimensions"]
    names: tuple[str, ...]


# Russell 1980, "A circumplex model of affect"; scales are mapped linearly to [-1, 1].
VALENCE_AROUSAL = EmotionSpace("dimensions", ("valence", "arousal"))
