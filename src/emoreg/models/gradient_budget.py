"""Gradient budget: each branch starts with the gradient that the plain backbone gets (ours).

Under the loss a · CE(z, y) + a_n · CE(z_n, y) + a_e · CE(z_e, y), as long as both responses are equal, the backbone
branch gets a · (1 - λ₀) + a_n times the gradient of a plain backbone, and the encoder a · λ₀ + a_e times. With λ₀ = 0.5
that is 0.5 for the loss of the mixture alone, and 1.5 if each response has a loss of weight 1 too. Comparing such runs
with a plain backbone would compare step sizes. A *matched* budget divides the gradients by these two numbers, in the
backward pass only.

Limits: nothing is matched after the start, when one branch may take over the residual of the other. Optimisers that
normalise gradients (AdamW, Muon) are not affected. D(z_n, z_e) is left out, as it is 0 while both responses are equal.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from emoreg.config.loss import LossWeights
from emoreg.config.optimizer import SCALE_FREE
from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import Mode
from emoreg.errors import SettingError


class GradientScale(NamedTuple):
    """Factors of the gradients in a backward pass; see `RegulatedClassifier.respond`."""

    non_emotional: float = 1.0  # at z_n; with mix "features" at f(x)
    emotional: float = 1.0  # at z_e; with mix "features" at P e(x)
    rho: float = 1.0  # at the log-odds of λ, so for ρ and the gate


UNSCALED = GradientScale()


def expected_start(mode: Mode, lam: float) -> float:
    """The expected starting value λ₀ of λ: `lam`, or 0.5, the mean of the draw, in the random modes."""
    return 0.5 if mode in ("random", "random_learned") else lam


def gradient_shares(weights: LossWeights, start: float) -> tuple[float, float]:
    """Gradients of backbone branch and encoder at the start, before scaling, in units of the plain backbone's.

    With mix "features" they apply to the trunks and the projection; the shared head gets a + a_n + a_e.

    Args:
        weights: a, a_n and a_e.
        start: λ₀; see `expected_start`.
    """
    a = weights.regulated
    return a * (1 - start) + weights.non_emotional, a * start + weights.emotional


def matched_scale(weights: LossWeights, start: float) -> GradientScale:
    """The factors that give both branches the gradient of a plain backbone, and λ that of CE(z, y) with weight 1.

    The factors do not depend on what is mixed; only the place where they apply does.

    Args:
        weights: of the loss. With a = 0 λ gets no gradient, and its factor is 1.
        start: λ₀; see `expected_start`.

    Raises:
        SettingError: a branch gets no gradient, so that no factor can match it.
    """
    shares = gradient_shares(weights, start)
    for name, share in zip(("non_emotional", "emotional"), shares, strict=True):
        if share == 0:
            reason = f"cannot be matched: with λ {start} and loss.{name} 0 its branch gets no gradient; set as_given"
            raise SettingError("loss.budget", reason)
    return GradientScale(1 / shares[0], 1 / shares[1], 1 / weights.regulated if weights.regulated else 1.0)


def describe_budget(recipe: TrainRecipe) -> str:
    """Describe the budget of a recipe in one line, for plan and report."""
    if not recipe.has_two_responses:
        return "one network: nothing to match"
    weights, regulation = recipe.loss_weights, recipe.regulation
    shares = gradient_shares(weights, expected_start(regulation.mode, regulation.lam))
    n, e = (f"{share:.2f}" for share in shares)
    if recipe.loss.budget == "matched":
        place = "f(x) and P e(x)" if regulation.mix == "features" else "z_n and z_e"
        line = f"matched: gradients at {place} divided by {n} and {e}"
    else:
        line = f"as given: Backbone branch {n}, encoder {e} of Backbone's gradient"
    if regulation.mix == "features":
        line += f"; the shared head gets {sum(weights[:3]):.2f}"
    if recipe.optimizer.name in SCALE_FREE:
        line += f"; {recipe.optimizer.name} is insensitive to the scale of the loss"
    return line


def scale_gradient(x: Tensor, factor: float | Tensor) -> Tensor:
    """Return x unchanged; in the backward pass its gradient is multiplied by `factor`, a number or scalar tensor."""
    if not isinstance(factor, Tensor) and factor == 1:
        return x
    return cast(Tensor, _ScaledGradient.apply(x, factor))


class _ScaledGradient(torch.autograd.Function):
    generate_vmap_rule = True  # for per-sample gradients, torch.func.vmap(torch.func.grad(...))

    @staticmethod
    def forward(x: Tensor, factor: float | Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float | Tensor], output: Tensor) -> None:
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None
