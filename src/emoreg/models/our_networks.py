"""Architectures that timm does not have, by name: the classic ResNets and speednet."""

from __future__ import annotations

from torch import nn

from emoreg.config.schema import BackboneSettings
from emoreg.errors import SettingError
from emoreg.models.classic_resnet import CLASSIC_DEPTHS, CLASSIC_WIDTH, ClassicResNet
from emoreg.models.speednet import SMALLEST, SPEEDNET, SPEEDNET_WIDTH, SpeedNet

OURS = (*(f"resnet{depth}" for depth in CLASSIC_DEPTHS), SPEEDNET)


def our_width(name: str) -> int:
    """The default width of one of `OURS`."""
    return SPEEDNET_WIDTH if name == SPEEDNET else CLASSIC_WIDTH


def build_our_network(settings: BackboneSettings, image_size: int) -> nn.Module:
    """Build one of `OURS`, with random weights.

    Args:
        settings: the architecture.
        image_size: side of the square input in pixels.

    Raises:
        SettingError: a setting that the architecture does not have; images that are too small for it.
    """
    for key in ("patch_size", "drop_path", "pretrained", "pool", "class_token"):
        if getattr(settings, key):
            raise SettingError(key, f"{settings.name} does not have it; leave it out")
    width = settings.width or our_width(settings.name)
    if settings.name != SPEEDNET:
        return ClassicResNet(int(settings.name.removeprefix("resnet")), width, bool(settings.zero_gamma))
    refuse_zero_gamma(settings)
    if image_size < SMALLEST:
        reason = f"{SPEEDNET} does not take images of {image_size} pixels"
        raise SettingError("name", f"{reason}; set image_size to {SMALLEST} or more, or choose another")
    return SpeedNet(width)


def refuse_zero_gamma(settings: BackboneSettings) -> None:
    """Raise SettingError if zero_gamma is set, for an architecture that is not a ResNet."""
    if settings.zero_gamma is not None:
        raise SettingError("zero_gamma", f"{settings.name} does not have it, only ResNets do; leave it out")
