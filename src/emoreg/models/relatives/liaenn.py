"""LiAENN: a limbic network with anxious, confident and decayed learning (ACDBEL).

Lotfi & Akbarzadeh-T. 2014, "Practical emotional neural networks", Neural Networks 59, 61-72. Only its abstract was
accessible: the network "models emotional situations such as anxiety and confidence in the learning process, the short
paths, the forgetting processes, and inhibitory mechanisms of the emotional brain". The limbic rules with their decay
are equations (1) to (10) of a public report on Lotfi's visual recogniser of the same year; anxiety and confidence are
EmBP's (docs/relatives.md). For a pattern p and a target T in {0, 1}:

    A = Σ v_j · p_j + v_th · max p        A' = Σ v_j · p_j        O = Σ w_j · p_j        E = A - O
    R₀ = max(A' - T, 0) - O  if T > 0,  else max(A' - O, 0)
    v ← (1 - γ) · v + Δv        Δv = μ · max(T - A, 0) · p + k · Δv_old
    w ← (1 - γ) · w + Δw        Δw = μ · R₀ · p + k · Δw_old

with γ the rate of forgetting. Ours: μ replaces both learning rates and k is a momentum, which is how EmBP uses them;
linear neurons, where the report has steps of 0 or 1; γ = 0.00001, which that report found to forget little enough. And
the head on a trunk: the rules' terms are averaged over a batch, and the trunk is trained by the cross-entropy of the
logits, as in `bel`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emoreg.models.relatives.limbic import SHARPNESS, limbic_output, normalised_stimuli
from emoreg.models.relatives.mood import Mood, silent

FORGETTING = 1e-5  # γ, per step


class LiAENNHead(nn.Module):
    """Amygdala and cortex for each class, on the features of a trunk; their weights start at 0."""

    last_v: Tensor  # (K, D + 1), Δv of the last step
    last_w: Tensor  # (K, D), Δw of the last step

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.zeros(num_classes, width + 1))
        self.w = nn.Parameter(torch.zeros(num_classes, width))
        self.mood = Mood()
        self.register_buffer("last_v", torch.zeros_like(self.v))
        self.register_buffer("last_w", torch.zeros_like(self.w))

    def own_rule(self) -> set[str]:
        """Parameters that `learn` trains instead of the optimiser."""
        return {"v", "w", "mood.sensed"}

    def forward(self, features: Tensor, images: Tensor) -> Tensor:
        """Return logits (B, K) of features (B, D); v and w get no gradient from them."""
        return SHARPNESS * limbic_output(normalised_stimuli(features), self.v.detach(), self.w.detach()).emotion

    def local_loss(self, features: Tensor, images: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        """Return 0 with the gradients -p · max(T - A, 0) of v, -p · R₀ of w, averaged over the batch, and the mood's.

        Targets T are (B, K); those between 0 and 1, of mixed images, count as above 0.
        """
        pattern = normalised_stimuli(features.detach())
        output = limbic_output(pattern, self.v, self.w)
        short = nn.functional.linear(pattern, self.v[:, :-1].detach())  # A'
        missing = (targets - output.amygdala).clamp(min=0)
        kept = (short - targets).clamp(min=0) - output.cortex
        reward = torch.where(targets > 0, kept, (short - output.cortex).clamp(min=0))  # R₀
        rules = 0.5 * (missing.square() + reward.square()).sum(dim=1).mean()
        errors = (targets - output.emotion.detach()).square().mean(dim=1)
        return silent(rules) + self.mood.sense(images, errors)

    @torch.no_grad()
    def learn(self, share: float = 1.0) -> None:
        """Apply both rules, after a backward pass.

        Args:
            share: current learning rate of the schedule, divided by its peak: a factor of μ and γ.
        """
        self.mood.update()
        for weights, last in ((self.v, self.last_v), (self.w, self.last_w)):
            if weights.grad is not None:
                last.copy_(-share * self.mood.anxiety * weights.grad + self.mood.confidence * last)
                weights.mul_(1 - share * FORGETTING).add_(last)
                weights.grad = None
