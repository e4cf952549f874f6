"""EmBP: back-propagation with emotional weights, which learn by anxiety and confidence.

Khashman 2008, "A modified backpropagation learning algorithm with added emotional coefficients", IEEE Transactions on
Neural Networks 19(11), 1896-1909. Only its abstract was accessible; the equations follow two public implementations
(docs/relatives.md) and are not numbered as in the paper.

Besides its conventional weights w and bias b, every layer has an emotional weight m for each neuron. Its input is the
mean value Y of the pattern:

    x = Σ w · y + b + m · Y
    δw = η · Δ · y + α · δw_old        δb = η · Δ + α · δb_old        conventional: learning rate η, momentum α
    δm = μ · Δ · Y + k · δm_old                                       emotional: anxiety μ, confidence k (`mood`)

with Δ the back-propagated error. In the first iteration μ = 1 and k = 0. One of the two implementations adds the
emotional terms to the changes of conventional weights too; the abstract speaks of "additional emotional weights that
are updated using two additional emotional parameters", so here they change the emotional weights only.

Ours: the head on a trunk. Only the output layer has emotional weights; its conventional weights and the trunk are
trained by the recipe's optimiser.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emoreg.models.relatives.mood import Mood, mean_pixel


class EmBPHead(nn.Module):
    """A linear head with an emotional weight for each class: logits = W f(x) + b + m · Y(x)."""

    last: Tensor  # (K,), δm of the last step

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear  # W and b
        self.emotional = nn.Parameter(torch.zeros(linear.out_features))  # m
        self.mood = Mood()
        self.register_buffer("last", torch.zeros(linear.out_features))

    def own_rule(self) -> set[str]:
        """Parameters that `learn` trains instead of the optimiser."""
        return {"emotional", "mood.sensed"}

    def forward(self, features: Tensor, images: Tensor) -> Tensor:
        """Return logits (B, K) of features (B, D) and normalised images (B, 3, H, W)."""
        logits: Tensor = self.linear(features)
        return logits + mean_pixel(images)[:, None] * self.emotional

    def local_loss(self, features: Tensor, images: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        """Return 0 with a gradient that carries the batch's mood to `learn`. Targets are (B, K)."""
        errors = (targets - logits.detach().softmax(dim=1)).square().mean(dim=1)
        return self.mood.sense(images, errors)

    @torch.no_grad()
    def learn(self, share: float = 1.0) -> None:
        """Apply δm = share · μ · Δ · Y + k · δm_old, after a backward pass: the gradient of m is the mean of -Δ · Y.

        Args:
            share: current learning rate of the schedule, divided by its peak.
        """
        self.mood.update()
        if self.emotional.grad is not None:
            change = -share * self.mood.anxiety * self.emotional.grad + self.mood.confidence * self.last
            self.last.copy_(change)
            self.emotional.add_(change)
            self.emotional.grad = None
