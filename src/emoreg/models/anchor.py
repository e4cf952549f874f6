"""An anchor that holds an encoder near the weights with which it begins, so that stage 2 does not wash out stage 1.

L2-SP: Li, Grandvalet & Davoine 2018, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks". Every
twin is held by its own beginning, so arm and twin still differ in nothing but what the encoder has experienced.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emoreg.errors import SettingError


class Anchor(nn.Module):
    """The penalty α / 2 · ‖θ - θ₀‖², over the trainable weights of an encoder without its biases and norms.

    Args:
        encoder: as it begins; θ₀ is copied from it.
        rate: α, above 0.

    Raises:
        SettingError: the encoder has no such weights.
    """

    start: Tensor

    def __init__(self, encoder: nn.Module, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("start", _weights(encoder).detach())  # a checkpoint has it, whatever the model is by then

    def forward(self, encoder: nn.Module) -> Tensor:
        """The penalty of the encoder as it is now, a scalar."""
        return self.rate / 2 * (_weights(encoder) - self.start).square().sum()


def _weights(encoder: nn.Module) -> Tensor:
    held = [parameter for parameter in encoder.parameters() if parameter.requires_grad and parameter.ndim >= 2]
    if not held:
        raise SettingError(
            "encoder.anchor", "has nothing to hold: this encoder trains no matrices or filters; set it to 0"
        )
    return torch.cat([parameter.reshape(-1) for parameter in held])
