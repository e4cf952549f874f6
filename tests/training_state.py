"""Networks with the batch statistics of trained ones, without training."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def with_statistics(module: nn.Module) -> nn.Module:
    """Put a module in evaluation mode, its norms with weights and statistics that differ from the initial 0 and 1."""
    draw = torch.Generator().manual_seed(0)
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
            assert isinstance(tensor, Tensor)
            tensor.copy_(torch.rand(tensor.shape, generator=draw) + 0.5)
    return module.eval().requires_grad_(False)
