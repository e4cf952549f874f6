"""Faster evaluation: batch norms folded into the convolutions before them (ours; the arithmetic is common)."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from emoreg.models.backbones import channels_last

M = TypeVar("M", bound=nn.Module)

TOLERANCE = 1e-3  # difference of features relative to the largest: far above rounding, far below a wrong trace


@torch.no_grad()
def folded(network: nn.Module, images: Tensor) -> nn.Module:
    """Return a copy with batch norms folded into the convolutions, which gives the same features up to rounding.

    In lower precision it rounds differently from the network, but no worse.

    Args:
        network: in evaluation mode; it is not changed.
        images: (B, 3, H, W). Both are compared on the first two, on the CPU and in float32 even under autocast, since
            rounding to bfloat16, or to the TF32 of GPUs, would look like a wrong trace.

    Returns:
        The network itself if it has no batch norm; if it has hooks, which a copy would not call; or if torch.fx cannot
        trace it or traces it wrongly.
    """
    from torch.fx.experimental.optimization import fuse

    modules = list(network.modules())
    if not any(isinstance(module, nn.BatchNorm2d) for module in modules):
        return network
    if any(module._forward_hooks or module._forward_pre_hooks for module in modules):
        return network
    try:
        fast = channels_last(fuse(network))  # fuse copies it
        with torch.autocast("cpu", enabled=False):
            features, expected = (copy.deepcopy(each).cpu()(images[:2].cpu()) for each in (fast, network))
        is_same = (features - expected).abs().max() <= TOLERANCE * expected.abs().max()
    except Exception:  # tracing a user's module may raise anything
        logging.getLogger(__name__).debug("a network cannot be traced and is used unfolded", exc_info=True)
        return network
    return fast if is_same else network


def with_folded(model: M, networks: Iterable[nn.Module], images: Tensor) -> M:
    """Return a copy of a model with these submodules `folded`; the model itself if none of them can be."""
    copies = {id(network): folded(network, images) for network in networks}
    if all(id(network) == key for key, network in copies.items()):
        return model
    return copy.deepcopy(model, dict(copies))  # deepcopy uses the copies in its memo
