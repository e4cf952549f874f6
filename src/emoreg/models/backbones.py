"""Backbones: modules that map images (B, 3, H, W) to pooled features (B, num_features).

timm's models by name, its ResNets with a stem for small images, and the classic ResNets for 32x32
(He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2), which timm does not have.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emoreg.config.schema import BackboneSettings
from emoreg.errors import SettingError, nearest

CLASSIC_DEPTHS = (8, 14, 20, 32, 44, 56, 110)  # 6n + 2


def build_backbone(settings: BackboneSettings | str, image_size: int = 32, section: str = "backbone") -> nn.Module:
    """A backbone with `num_features` and without a classification head.

    Args:
        settings: the architecture, or its name alone ("resnet20", "resnet18", "vit_tiny_patch16_224", ...).
        image_size: side of the square input in pixels; a ViT's position embeddings depend on it.
        section: of a recipe that the settings are in, for errors: "backbone" or "encoder.backbone".

    Raises:
        SettingError: unknown name (the nearest one is suggested); a setting that the architecture does not have;
            weights that cannot be loaded.
    """
    if isinstance(settings, str):
        settings = BackboneSettings(settings)
    classic = re.fullmatch(r"resnet(\d+)", settings.name)
    try:
        if classic and int(classic[1]) in CLASSIC_DEPTHS:
            _refuse(settings, "patch_size", "drop_path", "pretrained")
            return ClassicResNet(int(classic[1]))
        return _timm_backbone(settings, image_size)
    except SettingError as error:
        raise error.within(section) from None


def num_features(module: nn.Module) -> int:
    """Width D of a backbone's pooled features. ValueError for a module that does not declare it."""
    # Some of timm's architectures widen the pooled features once more, to head_hidden_size.
    width = getattr(module, "head_hidden_size", None) or getattr(module, "num_features", None)
    if not isinstance(width, int):
        raise ValueError(
            f"{type(module).__name__} has no num_features: give the widths of both features as feature_dims=(D, De)"
        )
    return width


def timm_arguments(settings: BackboneSettings, image_size: int) -> dict[str, Any]:
    """What `timm.create_model` needs beside the name to build this architecture."""
    from timm.models import get_pretrained_cfg

    arguments: dict[str, Any] = {}
    if settings.drop_path:
        arguments["drop_path_rate"] = settings.drop_path
    if settings.patch_size:
        arguments["patch_size"] = settings.patch_size
    config = get_pretrained_cfg(settings.name, allow_unregistered=True)
    if config is not None and config.fixed_input_size:  # ViTs and others; the rest take any size
        arguments["img_size"] = image_size
    return arguments


def _timm_backbone(settings: BackboneSettings, image_size: int) -> nn.Module:
    import timm
    from timm.models import get_arch_pretrained_cfgs, split_model_name_tag

    name = settings.name
    if not timm.is_model(name):
        known = [*timm.list_models(), *(f"resnet{depth}" for depth in CLASSIC_DEPTHS)]
        raise SettingError("name", f"there is no architecture '{name}'{nearest(name, known)}")
    architecture, tag = split_model_name_tag(name)
    tagged = get_arch_pretrained_cfgs(architecture)
    if tag and name not in tagged:
        raise SettingError("name", f"{architecture} has no weights '{name}'{nearest(name, tagged)}")
    if settings.patch_size and image_size % settings.patch_size:
        raise SettingError(
            "patch_size",
            f"{image_size} pixels do not divide into patches of {settings.patch_size}; {name} would not see the rest",
        )
    arguments = timm_arguments(settings, image_size)
    try:
        model = timm.create_model(name, pretrained=settings.pretrained, num_classes=0, **arguments)
    except (TypeError, AssertionError, ValueError) as error:
        raise SettingError("name", f"{name} cannot be built with {arguments}: {error}") from None
    except (OSError, RuntimeError) as error:
        if not settings.pretrained:
            raise
        reason = str(error).splitlines()[0]
        raise SettingError(
            "pretrained",
            f"timm's weights for {name} cannot be loaded ({reason}); they are downloaded once, which needs a network "
            "or a filled Hugging Face cache",
        ) from None
    if settings.stem == "cifar" and isinstance(model, timm.models.resnet.ResNet):
        _use_cifar_stem(model, name)
    return model


def _use_cifar_stem(model: nn.Module, name: str) -> None:
    """A 3x3 convolution with stride 1 and no max-pool: the ImageNet stem leaves 32x32 images with 1x1 maps."""
    stem = model.conv1
    if not isinstance(stem, nn.Conv2d):
        raise SettingError("stem", f"{name} has a stem of several layers; set stem: imagenet")
    model.conv1 = nn.Conv2d(stem.in_channels, stem.out_channels, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()


def _refuse(settings: BackboneSettings, *keys: str) -> None:
    for key in keys:
        if getattr(settings, key):
            raise SettingError(key, f"{settings.name} does not have it; leave it out")


class _Block(nn.Module):
    """Two 3x3 convolutions and a parameter-free shortcut (option A: subsample, pad channels with zeros)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.new_channels = stride, channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        if self.stride != 1 or self.new_channels:
            half = self.new_channels // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.new_channels - half))
        return F.relu(out + x, inplace=True)


class ClassicResNet(nn.Module):
    """ResNet-(6n+2) for 32x32 images: stages of 16, 32 and 64 channels, n blocks each, global average.

    Maps (B, 3, H, W) to (B, 64).
    """

    num_features = 64

    def __init__(self, depth: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        layers: list[nn.Module] = []
        channels_in = 16
        for channels, first_stride in ((16, 1), (32, 2), (64, 2)):
            for index in range(blocks):
                layers.append(_Block(channels_in, channels, first_stride if index == 0 else 1))
                channels_in = channels
        self.blocks = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al. 2015, as the paper's section 3.4 says
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 64) of images (B, 3, H, W)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return torch.flatten(F.adaptive_avg_pool2d(self.blocks(x), 1), 1)
