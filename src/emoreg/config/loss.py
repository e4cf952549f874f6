"""Settings of the stage-2 loss."""

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
    """Weights a, a_n, a_e and m of the loss terms, each at least 0; see `LossSettings` and `regulation_loss`."""

    regulated: float  # a
    non_emotional: float  # a_n
    emotional: float  # a_e
    mutual: float = 0.0  # m


APART = LossWeights(regulated=0.0, non_emotional=1.0, emotional=1.0)
"""Two networks trained on the same batches, each by its own loss alone: the references ensemble and unregulated."""


def _check_class_weights(given: ClassWeights) -> None:
    if isinstance(given, str):
        return
    if not given:
        raise SettingError("class_weights", "must not be empty; write none, balanced, or weights")
    for weight in given.values() if isinstance(given, Mapping) else given:
        if not 0 < weight < inf:
            raise SettingError("class_weights", f"must be above 0 and finite, not {weight}")


@dataclass(frozen=True)
class LossSettings:
    """loss = a · CE(z, y) + a_n · CE(z_n, y) + a_e · CE(z_e, y) + m · D(z_n, z_e)

    Ours; the plainest reading of the paper is a = 1, all others 0, and regulation.mix logits. Weights are >= 0.
    """

    label_smoothing: float = 0.0
    """Label smoothing of all three cross-entropies, in [0, 1)."""
    regulated: float | None = None
    """Weight a of the regulated response's loss; 0 trains the two responses separately, as an ensemble. null: 0.5, or 1
    without a second response."""
    non_emotional: float | None = None
    """Weight a_n of the non-emotional response's own loss. null: 0.75, or 0 without a second response."""
    emotional: float | None = None
    """Weight a_e of the emotional response's own loss. null: 0.75, or 0 without a second response."""
    mutual: float = 0.0
    """Weight m of the divergence between the two responses: deep mutual learning (Zhang et al. 2018)."""
    budget: Budget = "matched"
    """matched: each branch starts with the gradient that the plain backbone gets, whatever the weights and λ; gradients
    are scaled in the backward pass only. as_given: gradients as the loss gives them."""
    class_weights: ClassWeights = "none"
    """Weight of an image in the three cross-entropies, by its class. none: all equal. balanced: all classes count
    equally, by N / (K · images of the class) (King & Zeng 2001). Or weights above 0: a list in the order of the
    classes, or by name ({cat: 2, dog: 0.5}; others 1). They are scaled to a mean of 1 over the training images, so that
    the learning rate keeps its meaning. A mixed or smoothed label has the weights of its parts. D, which has no labels,
    and metrics are not weighted."""

    def __post_init__(self) -> None:
        settle(self)
        check_share(self, "label_smoothing")
        _check_class_weights(self.class_weights)
        check_not_negative(self, "regulated", "non_emotional", "emotional", "mutual")

    def weights(self, has_two: bool) -> LossWeights:
        """Return the weights with defaults filled in, which depend on whether there is a second response."""
        defaults = LossWeights(0.5, 0.75, 0.75) if has_two else LossWeights(1.0, 0.0, 0.0)
        given = {name: getattr(self, name) for name in LossWeights._fields}
        return defaults._replace(**{name: value for name, value in given.items() if value is not None})
