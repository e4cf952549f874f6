"""Anxiety and confidence of a network that learns (Khashman 2008), as EmBP and LiAENN use them.

Stated by the sources that were accessible (docs/relatives.md):

    μ = Y + E        anxiety: mean value of the patterns of an iteration, plus its error
    k = μ₀ - μ       confidence: by how much anxiety has fallen since the first iteration

Ours: on a modern trunk an iteration is a step, and a pattern's mean value is the mean of its pixels in [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emoreg.config.normalisation import MEAN, STD
from emoreg.errors import SettingError

UNKNOWN = -1.0  # placeholder; anxiety is never negative


def mean_pixel(images: Tensor) -> Tensor:
    """Return the mean of each image's pixels in [0, 1], (B,), from normalised images (B, 3, H, W).

    Raises:
        SettingError: the inputs are not images.
    """
    if images.ndim != 4 or images.shape[1] != len(MEAN):
        reason = f"must be images (B, 3, H, W), not {tuple(images.shape)}: anxiety is computed from their mean pixel"
        raise SettingError("images", reason)
    # Colour by colour with Python numbers: a tensor of constants would be copied to a GPU in every step.
    colours = images.float().mean(dim=(2, 3)).unbind(dim=1)
    pixels = [colour * std + mean for colour, std, mean in zip(colours, STD, MEAN, strict=True)]
    return torch.stack(pixels).mean(dim=0)


def silent(loss: Tensor) -> Tensor:
    """Return 0 with the gradient of `loss`, so that the reported loss does not change."""
    return loss - loss.detach()


class Mood(nn.Module):
    """Anxiety μ and confidence k of the current step.

    The mean pixel and the error of a batch pass through the backward pass as the gradient of a parameter. So they are
    means over the whole batch, even if it is divided into parts or among processes.
    """

    first: Tensor  # μ₀, anxiety of the first step
    anxiety: Tensor  # μ
    confidence: Tensor  # k

    def __init__(self) -> None:
        super().__init__()
        self.sensed = nn.Parameter(torch.zeros(2))  # carries its gradient alone, and stays 0
        self.register_buffer("first", torch.tensor(UNKNOWN))
        self.register_buffer("anxiety", torch.tensor(0.0))
        self.register_buffer("confidence", torch.tensor(0.0))

    def sense(self, images: Tensor, errors: Tensor) -> Tensor:
        """Return 0 with the gradient that `update` reads; add it to the mean loss of the batch.

        Args:
            images: normalised, (B, 3, H, W).
            errors: mean squared error of each image's outputs, (B,).
        """
        seen = torch.stack([mean_pixel(images).mean(), errors.float().mean()]).detach()
        return silent((self.sensed * seen).sum())

    @torch.no_grad()
    def update(self) -> None:
        """Compute anxiety and confidence from the batch of the last backward pass; do nothing without one."""
        if self.sensed.grad is None:
            return
        self.anxiety.copy_(self.sensed.grad.sum())  # Y + E
        self.first.copy_(torch.where(self.first == UNKNOWN, self.anxiety, self.first))
        self.confidence.copy_(self.first - self.anxiety)
        self.sensed.grad = None
