"""Backbones: modules that map images (B, 3, H, W) to pooled features (B, num_features).

Any timm model by name, timm's ResNets with a stem for small images, and our own networks (`models.our_networks`).
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from emoreg.config.schema import SMALL_IMAGES, BackboneSettings
from emoreg.config.setting_types import typed_value
from emoreg.errors import SettingError, nearest, shortened
from emoreg.models.features import evaluation_mode, forward_flops, num_features
from emoreg.models.our_networks import OURS, build_our_network, refuse_zero_gamma
from emoreg.models.weight_file import load_weight_file
from emoreg.models.weight_source import resolve_source
from emoreg.models.widths import meta_model, own_width, width_arguments
from emoreg.runtime.quiet_libraries import errors_only

M = TypeVar("M", bound=nn.Module)
SIZES = (16, 32, 48, 64, 96, 128, 160, 192, 224, 256, 288, 320, 384, 448, 512)  # image sizes to suggest in an error
MAX_TRIED = 8  # of these sizes, since each try takes a moment
SAME_FLOPS = 0.05  # relative tolerance of `matching_width`


def build_backbone(settings: BackboneSettings | str, image_size: int = 32, section: str = "backbone") -> nn.Module:
    """Build a backbone with `num_features` and without a classification head.

    Args:
        settings: the architecture, or just its name ("resnet20", "resnet18", "vit_tiny_patch16_224", ...).
        image_size: side of the square input in pixels; a ViT's position embeddings depend on it.
        section: the recipe section of the settings, for errors: "backbone" or "encoder.backbone".

    Raises:
        SettingError: an unknown name (the closest match is suggested); a setting that the architecture does not have;
            weights that cannot be loaded.
    """
    settings = _checked_settings(settings)
    image_size = typed_value(int, image_size, "image_size")
    settings = resolve_source(settings, section).for_images(image_size)
    try:
        if settings.name in OURS:
            model = build_our_network(settings, image_size)
        else:
            model = _timm_backbone(settings, image_size)
        if settings.weights is not None:
            load_weight_file(model, settings.weights)
        return model
    except SettingError as error:
        raise error.within(section) from None


def _checked_settings(settings: Any) -> BackboneSettings:
    if isinstance(settings, str):
        return BackboneSettings(settings)
    if not isinstance(settings, BackboneSettings):
        hint = "; a network of your own needs no building" if isinstance(settings, nn.Module) else ""
        reason = f"must be the name of an architecture, such as 'resnet20', not a {type(settings).__name__}{hint}"
        raise SettingError("settings", reason)
    return settings


@cache
def matching_width(
    settings: BackboneSettings, image_size: int, num_classes: int, factor: float = 2.0
) -> BackboneSettings | None:
    """Widen an architecture until its forward pass, head included, takes `factor` times as many FLOPs.

    Used for the reference `wide`: one network that costs as much as two backbones.

    Args:
        settings: the architecture. It is built on the meta device, which draws no random numbers.
        image_size: side of the square input in pixels.
        num_classes: K, outputs of the linear head.
        factor: above 0.

    Returns:
        The settings with the closest match; None if its FLOPs are off by more than 5 %, if the architecture has no
        width that can be set, or if it starts from weights, whose width is fixed.

    Raises:
        SettingError: the architecture cannot be built.
    """
    own = own_width(settings.name)
    if own is None or settings.pretrained or settings.weights is not None:
        return None
    target = factor * _flops(settings, image_size, num_classes)
    ratios: dict[int, float] = {}  # FLOPs / target, by width
    width = settings.width or own.value
    guess = width * factor**0.5
    for _ in range(5):  # FLOPs grow nearly with the square of the width
        width = max(round(guess / own.step), 1) * own.step
        if width in ratios:
            break
        ratios[width] = _flops(replace(settings, width=width), image_size, num_classes) / target
        guess = width / ratios[width] ** 0.5
    best = min(ratios, key=lambda tried: abs(ratios[tried] - 1))
    return replace(settings, width=best) if abs(ratios[best] - 1) <= SAME_FLOPS else None


def _flops(settings: BackboneSettings, image_size: int, num_classes: int) -> int:
    """FLOPs of the forward pass of one image through a backbone and a linear head, counted on the meta device."""
    with torch.device("meta"):
        backbone = build_backbone(settings, image_size)
        flops = forward_flops(backbone, torch.zeros(2, 3, image_size, image_size))
    return flops // 2 + 2 * num_features(backbone) * num_classes


def stem_note(settings: BackboneSettings, image_size: int) -> str | None:
    """A line about the stem of a ResNet for large images; None for small images and other architectures."""
    from timm.models import is_model
    from timm.models.resnet import ResNet

    if image_size <= SMALL_IMAGES or settings.name in OURS or not is_model(settings.name):
        return None
    if not isinstance(meta_model(settings.name.partition(".")[0]), ResNet):  # the name without timm's weight tag
        return None
    images = f"for images of {image_size} pixels"
    if settings.stem == "cifar":
        return (
            f"{settings.name} has the stem for small images (stem: cifar) {images}: a step costs about fifteen times "
            "that of stem: imagenet"
        )
    return f"{settings.name} has timm's own stem (stem: imagenet) {images}"


def channels_last(module: M) -> M:
    """Change a module's weights in place to channels-last order, in which convolutions are faster; return the module.

    `nn.Module.to` does the same, but fails at five-dimensional weights, which some architectures have.
    """
    for tensor in itertools.chain(module.parameters(), module.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return module


def timm_arguments(settings: BackboneSettings, image_size: int) -> dict[str, Any]:
    """Arguments of `timm.create_model`, besides the name, that build this architecture.

    Raises:
        SettingError: a width that the architecture cannot have.
    """
    return _setting_arguments(settings) | _size_argument(settings.for_images(image_size).untrained, image_size)


def _setting_arguments(settings: BackboneSettings) -> dict[str, Any]:
    """The `timm_arguments` that do not depend on the image size."""
    arguments: dict[str, Any] = {}
    if settings.drop_path:
        arguments["drop_path_rate"] = settings.drop_path
    if settings.patch_size:
        arguments["patch_size"] = settings.patch_size
    if settings.width is not None:
        arguments |= width_arguments(settings.name, settings.width)
    if settings.pool is not None:
        # Keep the norm before the average (Beyer et al. 2022), where pretrained weights have it.
        arguments |= (
            {"global_pool": "avg", "fc_norm": False} if settings.pool == "average" else {"global_pool": "token"}
        )
    if settings.class_token is not None:
        arguments["class_token"] = settings.class_token
    return arguments


def _size_arguments(name: str, image_size: int) -> tuple[dict[str, int], dict[str, int]]:
    """The two ways to build an architecture, with and without `img_size`; the likelier one first."""
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name, allow_unregistered=True)
    if config is not None and config.fixed_input_size:
        return {"img_size": image_size}, {}
    return {}, {"img_size": image_size}


@cache
def _size_argument(settings: BackboneSettings, image_size: int) -> dict[str, int]:
    """The one of `_size_arguments` that gives one feature vector per image.

    Raises:
        SettingError: neither does; the message suggests image sizes that work.
    """
    faults = []
    for sizing in _size_arguments(settings.name, image_size):
        if (fault := _fault(settings, image_size, sizing)) is None:
            return sizing
        faults.append(fault)
    raise SettingError("name", _refusal(settings, image_size, faults[0]))


def _fault(settings: BackboneSettings, image_size: int, sizing: dict[str, int]) -> str | None:
    """Why an architecture does not map images of this size to one feature vector each; None if it does.

    Tries two images on the meta device, which computes shapes alone and draws no random numbers.
    """
    try:
        with torch.device("meta"):
            model = _create(settings, sizing)
            with evaluation_mode(model):
                features = model(torch.zeros(2, 3, image_size, image_size))
    except SettingError:  # concerns another setting than the image size
        raise
    except Exception as error:  # an architecture may raise anything for a size that it was not made for
        return shortened(str(error), 200)
    if not isinstance(features, Tensor):
        return f"it gives a {type(features).__name__} instead of a vector of features"
    width = num_features(model)
    if features.shape != (2, width):
        return f"it gives features of shape {tuple(features.shape[1:])} instead of a vector of {width}"
    return None


def _refusal(settings: BackboneSettings, image_size: int, fault: str) -> str:
    """A message that says why an architecture cannot be used, and the closest image sizes that it takes."""
    from timm.models import get_pretrained_cfg

    name, config = settings.name, get_pretrained_cfg(settings.name, allow_unregistered=True)
    own = 224 if config is None else config.input_size[-1]

    def takes(size: int) -> bool:
        return any(_fault(settings, size, sizing) is None for sizing in _size_arguments(name, size))

    if not takes(own):
        arguments = _setting_arguments(settings)
        return f"{name} cannot be built{f' with {arguments}' if arguments else ''} as a backbone: {fault}"
    others = sorted({*SIZES, *range(28, 113, 14)} - {own, image_size}, key=lambda size: abs(size - image_size))
    sizes = [*sorted(itertools.islice(filter(takes, others[:MAX_TRIED]), 2)), own]
    return (
        f"{name} does not take images of {image_size} pixels{f' ({fault})' if fault else ''}; set image_size to "
        f"{' or '.join(map(str, sizes))}, or choose another"
    )


def _timm_backbone(settings: BackboneSettings, image_size: int) -> nn.Module:
    _require_known(settings)
    _refuse_unsupported(settings, image_size)
    try:
        return _create(settings, _size_argument(settings.untrained, image_size))
    except (OSError, RuntimeError) as error:
        if not settings.pretrained:
            raise
        reason = str(error).splitlines()[0]
        raise SettingError(
            "pretrained",
            f"timm's weights for {settings.name} cannot be loaded ({reason}); they are downloaded once, which needs a "
            "network or a filled Hugging Face cache",
        ) from None


def _require_known(settings: BackboneSettings) -> None:
    """Raise SettingError unless timm has the architecture, and weights of the tag if its name has one."""
    import timm
    from timm.models import get_arch_pretrained_cfgs, split_model_name_tag

    name = settings.name
    if settings.is_own:
        raise SettingError("name", f"'{name}' records a module of your own, which no recipe can build: pass model=")
    if not timm.is_model(name):
        known = [*timm.list_models(), *OURS]
        raise SettingError("name", f"there is no architecture '{name}'{nearest(name, known)}")
    architecture, tag = split_model_name_tag(name)
    tagged = get_arch_pretrained_cfgs(architecture)
    if tag and name not in tagged:
        raise SettingError("name", f"{architecture} has no weights '{name}'{nearest(name, tagged)}")


def _refuse_unsupported(settings: BackboneSettings, image_size: int) -> None:
    """Raise SettingError for a setting that a timm architecture, or its published weights, cannot have."""
    from timm.models.resnet import ResNet
    from timm.models.vision_transformer import VisionTransformer

    name, model = settings.name, meta_model(settings.name)
    given = [key for key in ("width", "zero_gamma", "pool", "class_token") if getattr(settings, key) is not None]
    if settings.patch_size and image_size % settings.patch_size:
        raise SettingError(
            "patch_size",
            f"{image_size} pixels do not divide into patches of {settings.patch_size}; {name} would not see the rest",
        )
    for key in given:
        if settings.pretrained and key != "pool":
            raise SettingError(key, "must be null with pretrained true: timm's weights have their own")
        if key in ("pool", "class_token") and not isinstance(model, VisionTransformer):
            raise SettingError(key, f"{name} has none that can be set, only ViTs do; leave it out")
    if not isinstance(model, ResNet):
        refuse_zero_gamma(settings)


def _create(settings: BackboneSettings, sizing: dict[str, int]) -> nn.Module:
    """Create a timm model without a head, with its parameters drawn or loaded."""
    import timm

    arguments = _setting_arguments(settings) | sizing
    if settings.zero_gamma is not None:
        arguments["zero_init_last"] = settings.zero_gamma
    with errors_only("huggingface_hub", "timm"):  # they log six attempts to reach the Hub
        model: nn.Module = timm.create_model(settings.name, pretrained=settings.pretrained, num_classes=0, **arguments)
    if settings.stem == "cifar" and isinstance(model, timm.models.resnet.ResNet):
        _use_cifar_stem(model, settings.name)
    return model


def _use_cifar_stem(model: nn.Module, name: str) -> None:
    """Replace the stem by a 3x3 convolution with stride 1, as the ImageNet stem leaves 1x1 maps of 32x32 images."""
    stem = model.conv1
    if not isinstance(stem, nn.Conv2d):
        raise SettingError("stem", f"{name} has a stem of several layers; set stem: imagenet")
    model.conv1 = nn.Conv2d(stem.in_channels, stem.out_channels, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
