"""A penalty that keeps an encoder near its starting weights, so that stage 2 does not wash out stage 1.

L2-SP: Li, Grandvalet & Davoine 2018, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks". Every
twin is anchored to its own starting weights, so arm and twin still differ only in what the encoder has experienced.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emoreg.errors import SettingError


class Anchor(nn.Module):
    """The penalty α / 2 · ‖θ - θ₀‖² over an encoder's trainable weights, except biases and normalisation layers.

    Args:
        encoder: at the start of stage 2; θ₀ is a copy of its weights.
        rate: α, above 0.

    Raises:
        SettingError: the encoder trains no such weights.
    """

    start: Tensor

    def __init__(self, encoder: nn.Module, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("start", _weights(encoder).detach())  # θ₀; a buffer, so that checkpoints keep it

    def forward(self, encoder: nn.Module) -> Tensor:
        """The penalty for the encoder's current weights, a scalar."""
        return self.rate / 2 * (_weights(encoder) - self.start).square().sum()


def _weights(encoder: nn.Module) -> Tensor:
    weights = [parameter for parameter in encoder.parameters() if parameter.requires_grad and parameter.ndim >= 2]
    if not weights:
        raise SettingError(
            "encoder.anchor", "has nothing to hold: this encoder trains no matrices or filters; set it to 0"
        )
    return torch.cat([parameter.reshape(-1) for parameter in weights])
