"""Settings of the loss of stage 2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Literal, NamedTuple

from emoreg.config.rules import check_not_negative, check_share
from emoreg.config.setting_types import settle
from emoreg.errors import SettingError

Budget = Literal["matched", "as_given"]
ClassWeights = Literal["none", "balanced"] | tuple[float, ...] | Mapping[str, float]


class LossWeights(NamedTuple):
    """Weights a, a_n, a_e and m of the terms of the loss, each at least 0; see `LossSettings` and `regulation_loss`."""

    regulated: float  # a
    non_emotional: float  # a_n
    emotional: float  # a_e
    mutual: float = 0.0  # m


APART = LossWeights(regulated=0.0, non_emotional=1.0, emotional=1.0)
"""Two networks that are trained each by its own loss alone, on the same batches: ensemble and `unregulated`."""


def _check_class_weights(given: ClassWeights) -> None:
    if isinstance(given, str):
        return
    weights = list(given.values() if isinstance(given, Mapping) else given)
    if not weights:
        raise SettingError("class_weights", "must not be empty; write none, balanced, or weights")
    if wrong := [weight for weight in weights if not 0 < weight < inf]:
        raise SettingError("class_weights", f"must be above 0 and finite, not {wrong[0]}")


@dataclass(frozen=True)
class LossSettings:
    """loss = a · CE(z, y) + a_n · CE(z_n, y) + a_e · CE(z_e, y) + m · D(z_n, z_e)

    Ours; the plainest reading of the paper is a = 1 with the others 0 and regulation.mix logits. Weights are >= 0.
    """

    label_smoothing: float = 0.0
    """Label smoothing of all three cross-entropies, in [0, 1)."""
    regulated: float | None = None
    """Weight a of the regulated response's loss; 0 trains the two responses apart, as an ensemble. null: 0.5, or 1
    without a second response."""
    non_emotional: float | None = None
    """Weight a_n of the non-emotional response's own loss. null: 0.75, or 0 without a second response."""
    emotional: float | None = None
    """Weight a_e of the emotional response's own loss. null: 0.75, or 0 without a second response."""
    mutual: float = 0.0
    """Weight m of the divergence between both responses: deep mutual learning (Zhang et al. 2018)."""
    budget: Budget = "matched"
    """matched: each branch starts with the gradient that the plain backbone gets, whatever the weights and λ; in the
    backward pass only. as_given: as the loss gives it."""
    class_weights: ClassWeights = "none"
    """How much an image counts in the three cross-entropies, by its class. none: all alike. balanced: each class as
    much as any other, N / (K · images of the class) (King & Zeng 2001). Or weights above 0: a list in the order of the
    classes, or by name ({cat: 2, dog: 0.5}; others 1). They are scaled to a mean of 1 over the training images, so that
    the learning rate keeps its meaning; a label that is mixed, or smoothed, counts as its parts do. D, which has no
    labels, is not weighted, and no metric is."""

    def __post_init__(self) -> None:
        settle(self)
        check_share(self, "label_smoothing")
        _check_class_weights(self.class_weights)
        check_not_negative(self, "regulated", "non_emotional", "emotional", "mutual")

    def weights(self, has_two: bool) -> LossWeights:
        """The weights, with defaults for a network with a second response or without one."""
        defaults = (0.5, 0.75, 0.75) if has_two else (1.0, 0.0, 0.0)
        given = (self.regulated, self.non_emotional, self.emotional)
        a, a_n, a_e = (own if value is None else value for value, own in zip(given, defaults, strict=True))
        return LossWeights(a, a_n, a_e, self.mutual)
