from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from emoreg.errors import SettingError
from emoreg.models.anchor import Anchor
from narrow import present
from tiny_backbone import TinyBackbone


def test_the_gradient_pulls_weights_back_to_their_start_but_not_norms_and_biases() -> None:
    encoder = TinyBackbone()
    anchor = Anchor(encoder, 0.3)
    assert anchor(encoder).item() == 0
    begun = encoder.conv.weight.detach().clone()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(2.0)
    penalty = anchor(encoder)
    penalty.backward()
    assert_close(penalty.item(), 0.3 / 2 * 4.0 * begun.numel())
    assert_close(encoder.conv.weight.grad, 0.3 * (encoder.conv.weight - begun).detach())
    assert present(encoder.conv.bias).grad is None and encoder.norm.weight.grad is None


def test_the_memory_format_does_not_matter() -> None:
    encoder = nn.Conv2d(3, 4, 3)
    anchor = Anchor(encoder, 1.0)
    assert anchor(encoder.to(memory_format=torch.channels_last)).item() == 0


def test_an_encoder_without_weights_to_hold_is_refused() -> None:
    encoder = TinyBackbone().requires_grad_(False)
    with pytest.raises(SettingError, match=r"encoder.anchor: has nothing to hold: .*; set it to 0"):
        Anchor(encoder, 0.1)
