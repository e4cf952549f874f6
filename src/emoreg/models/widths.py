"""Widths of architectures, which `BackboneSettings.width` changes."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import nn

from emoreg.errors import SettingError
from emoreg.models.our_networks import OURS, our_width
from emoreg.models.speednet import SPEEDNET


class Width(NamedTuple):
    """The default width of an architecture, and the step between possible ones."""

    value: int
    step: int  # widths must be multiples of it


def own_width(name: str) -> Width | None:
    """The default width of an architecture; None if its width cannot be set."""
    from timm.models import is_model
    from timm.models.resnet import ResNet
    from timm.models.vision_transformer import VisionTransformer

    if name in OURS:
        return Width(our_width(name), 1)
    model = meta_model(name) if is_model(name) else None
    if isinstance(model, ResNet):
        return Width(_stage_channels(model)[0], 1)
    if isinstance(model, VisionTransformer):
        block: Any = model.blocks[0]
        return Width(model.embed_dim, block.attn.num_heads)
    return None


def width_arguments(name: str, width: int) -> dict[str, Any]:
    """Return arguments of `timm.create_model` for a width. Raise SettingError if the architecture cannot have it."""
    from timm.models.resnet import ResNet

    own = own_width(name)
    if own is None:
        has_one = f"only ResNets, ViTs and {SPEEDNET} do"
        raise SettingError("width", f"{name} has none that can be set, {has_one}; leave it out")
    if width % own.step:
        raise SettingError("width", f"must be a multiple of {own.step}, the number of {name}'s heads, not {width}")
    model = meta_model(name)
    if isinstance(model, ResNet):
        return {"channels": tuple(width * channels // own.value for channels in _stage_channels(model))}
    return {"embed_dim": width}


def _stage_channels(model: Any) -> list[int]:
    """The argument `channels` of timm's ResNets: for each stage, before a bottleneck's expansion."""
    stages = [info for info in model.feature_info if info["module"].startswith("layer")]
    return [info["num_chs"] // getattr(model, info["module"])[0].expansion for info in stages]


@cache
def meta_model(name: str) -> nn.Module:
    """Build the timm model of this name on the meta device, to look at its type and layers."""
    import timm

    with torch.device("meta"):
        model: nn.Module = timm.create_model(name, num_classes=0)
    return model
