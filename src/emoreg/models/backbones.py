"""Backbones: modules that map images (B, 3, H, W) to pooled features (B, num_features).

timm's models by name, its ResNets with a stem for small images, and our own networks (`models.our_networks`).
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from emoreg.config.schema import SMALL_IMAGES, BackboneSettings
from emoreg.config.setting_types import typed_value
from emoreg.errors import SettingError, nearest, shortened
from emoreg.models.features import num_features
from emoreg.models.our_networks import OURS, build_our_network, refuse_zero_gamma
from emoreg.models.weight_file import load_weight_file
from emoreg.models.weight_source import resolve_source
from emoreg.models.widths import own_width, width_arguments, without_memory
from emoreg.runtime.quiet_libraries import errors_only

M = TypeVar("M", bound=nn.Module)
SIZES = (16, 32, 48, 64, 96, 128, 160, 192, 224, 256, 288, 320, 384, 448, 512)  # of images, tried for a message
SMALL = 64  # pixels up to which two images pass sooner through a network than through PyTorch's Python code for shapes
TRIED = 8  # of them at most: each takes a moment
SAME_FLOPS = 0.05  # relative tolerance of `matching_width`


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
    settings = _settings(settings)
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


def _settings(given: Any) -> BackboneSettings:
    if isinstance(given, str):
        return BackboneSettings(given)
    if not isinstance(given, BackboneSettings):
        told = f"a {type(given).__name__}"
        hint = "; a network of your own needs no building" if isinstance(given, nn.Module) else ""
        raise SettingError("settings", f"must be the name of an architecture, such as 'resnet20', not {told}{hint}")
    return given


@cache
def matching_width(
    settings: BackboneSettings, image_size: int, num_classes: int, factor: float = 2.0
) -> BackboneSettings | None:
    """The same architecture, so wide that its forward pass takes `factor` times as many FLOPs, head included.

    For the reference `wide`: one network of the cost of two backbones.

    Args:
        settings: of the architecture; it is built without memory and without drawing random numbers.
        image_size: side of the square input in pixels.
        num_classes: K, outputs of the linear head.
        factor: above 0.

    Returns:
        The width whose FLOPs come nearest; None if they are off by more than 5 %, if the architecture has no width that
        can be set, or if it starts from weights, which have a width of their own.

    Raises:
        SettingError: an architecture that cannot be built.
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
    """Of the forward pass of an image, as `stages.metrics.count_flops` counts them, on tensors without memory."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        backbone = build_backbone(settings, image_size).eval()
        backbone.requires_grad_(False)  # the counter hooks gradients, and fails at a view of a parameter
        images = torch.zeros(2, 3, image_size, image_size)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            backbone(images)
    return int(counter.get_total_flops()) // len(images) + 2 * num_features(backbone) * num_classes


def stem_note(settings: BackboneSettings, image_size: int) -> str | None:
    """What the stem of a ResNet means for photographs, in a line; None for small images and other architectures."""
    from timm.models import is_model
    from timm.models.resnet import ResNet

    if image_size <= SMALL_IMAGES or settings.name in OURS or not is_model(settings.name):
        return None
    if not isinstance(without_memory(settings.name.partition(".")[0]), ResNet):  # whatever its weights are called
        return None
    images = f"for images of {image_size} pixels"
    if settings.stem == "cifar":
        return (
            f"{settings.name} has the stem for small images (stem: cifar) {images}: a step costs about fifteen times "
            "that of stem: imagenet"
        )
    return f"{settings.name} has timm's own stem (stem: imagenet) {images}"


def channels_last(module: M) -> M:
    """The module, in place with its weights in channels-last order, in which CPUs and GPUs convolve faster.

    `nn.Module.to` does the same, but fails at weights of five dimensions, as some architectures have.
    """
    for tensor in itertools.chain(module.parameters(), module.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return module


def timm_arguments(settings: BackboneSettings, image_size: int) -> dict[str, Any]:
    """What `timm.create_model` needs beside the name to build this architecture.

    Raises:
        SettingError: a width that the architecture cannot have.
    """
    return _own_arguments(settings) | _sizing(_kind(settings.for_images(image_size)), image_size)


def _own_arguments(settings: BackboneSettings) -> dict[str, Any]:
    """Those of `timm_arguments` that do not depend on the images."""
    arguments: dict[str, Any] = {}
    if settings.drop_path:
        arguments["drop_path_rate"] = settings.drop_path
    if settings.patch_size:
        arguments["patch_size"] = settings.patch_size
    if settings.width is not None:
        arguments |= width_arguments(settings.name, settings.width)
    if settings.pool is not None:
        # The norm stands before the average (Beyer et al. 2022): pretrained weights have one there.
        arguments |= (
            {"global_pool": "avg", "fc_norm": False} if settings.pool == "average" else {"global_pool": "token"}
        )
    if settings.class_token is not None:
        arguments["class_token"] = settings.class_token
    return arguments


def _sizings(name: str, image_size: int) -> tuple[dict[str, int], dict[str, int]]:
    """The ways to build an architecture for images of a size, the likelier one first."""
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name, allow_unregistered=True)
    given: tuple[dict[str, int], dict[str, int]] = {"img_size": image_size}, {}
    return given if config is not None and config.fixed_input_size else given[::-1]


@cache
def _sizing(settings: BackboneSettings, image_size: int) -> dict[str, int]:
    """The way that leads to one vector of features per image. Tried on tensors without memory, which draws no numbers.

    Raises:
        SettingError: there is none; names sizes of images that would do.
    """
    faults = []
    for sizing in _sizings(settings.name, image_size):
        if (fault := _fault_without_memory(settings, image_size, sizing)) is None:
            return sizing
        faults.append(fault)
    raise SettingError("name", _refusal(settings, image_size, faults[0]))


def _kind(settings: BackboneSettings) -> BackboneSettings:
    """The settings without those that make no difference to shapes."""
    return replace(settings.untrained, zero_gamma=None)


def _fault_without_memory(settings: BackboneSettings, image_size: int, sizing: dict[str, int]) -> str | None:
    """`_fault` of an architecture that is built for it; also what keeps it from being built."""
    try:
        with torch.device("meta"):
            model = _create(settings, sizing)
    except SettingError:  # of another setting
        raise
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        return shortened(str(error), 200)
    return _fault(model, image_size)


def _fault(model: nn.Module, image_size: int) -> str | None:
    """What keeps a network from giving images of a size one vector of features each; None if nothing does.

    Two images are tried, in evaluation; the network and the random generators are left as they were.
    """
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    device = next(iter(tensors.values())).device
    if image_size > SMALL:
        device = torch.device("meta")
        tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            images = torch.zeros(2, 3, image_size, image_size, device=device)
            features = torch.func.functional_call(model.eval(), tensors, (images,))
        width = num_features(model)
    except Exception as error:  # an architecture may raise anything for a size that it was not made for
        return shortened(str(error), 200)
    finally:
        model.train()
    if not isinstance(features, Tensor) or not features.is_floating_point():
        return f"it gives a {type(features).__name__} in place of a vector of features"
    if features.shape != (2, width):
        return f"it gives features of shape {tuple(features.shape[1:])} in place of a vector of {width}"
    return None


def _refusal(settings: BackboneSettings, image_size: int, fault: str) -> str:
    """Why an architecture cannot be used, and the nearest sizes of images, in pixels, that it takes."""
    from timm.models import get_pretrained_cfg

    name, config = settings.name, get_pretrained_cfg(settings.name, allow_unregistered=True)
    own = 224 if config is None else config.input_size[-1]

    def takes(size: int) -> bool:
        return any(_fault_without_memory(settings, size, sizing) is None for sizing in _sizings(name, size))

    if not takes(own):
        asked = f" with {arguments}" if (arguments := _own_arguments(settings)) else ""
        return f"{name} cannot be built{asked} as a backbone: {fault}"
    others = sorted({*SIZES, *range(28, 113, 14)} - {own, image_size}, key=lambda size: abs(size - image_size))
    sizes = [*sorted(itertools.islice(filter(takes, others[:TRIED]), 2)), own]
    return (
        f"{name} does not take images of {image_size} pixels{f' ({fault})' if fault else ''}; set image_size to "
        f"{' or '.join(map(str, dict.fromkeys(sizes)))}, or choose another"
    )


def _timm_backbone(settings: BackboneSettings, image_size: int) -> nn.Module:
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
    _refuse_what_it_lacks(settings, image_size)
    state = torch.get_rng_state()
    try:
        with contextlib.suppress(TypeError, AssertionError, ValueError):
            model = _create(settings, _sizings(name, image_size)[0])
            if _fault(model, image_size) is None:
                return model
        sizing = _sizing(_kind(settings), image_size)  # the likelier way was none
        torch.set_rng_state(state)
        return _create(settings, sizing)
    except SettingError:
        raise
    except (OSError, RuntimeError) as error:
        if not settings.pretrained:
            raise
        reason = str(error).splitlines()[0]
        raise SettingError(
            "pretrained",
            f"timm's weights for {name} cannot be loaded ({reason}); they are downloaded once, which needs a network "
            "or a filled Hugging Face cache",
        ) from None


def _refuse_what_it_lacks(settings: BackboneSettings, image_size: int) -> None:
    """SettingError for a setting that an architecture of timm, or its published weights, cannot have."""
    from timm.models.resnet import ResNet
    from timm.models.vision_transformer import VisionTransformer

    name = settings.name
    if settings.patch_size and image_size % settings.patch_size:
        raise SettingError(
            "patch_size",
            f"{image_size} pixels do not divide into patches of {settings.patch_size}; {name} would not see the rest",
        )
    if settings.pretrained:
        for key in ("width", "zero_gamma", "class_token"):
            if getattr(settings, key) is not None:
                raise SettingError(key, "must be null with pretrained true: timm's weights have their own")
    for key in ("pool", "class_token"):
        if getattr(settings, key) is not None and not isinstance(without_memory(name), VisionTransformer):
            raise SettingError(key, f"{name} has none that can be set, only ViTs do; leave it out")
    if not isinstance(without_memory(name), ResNet):
        refuse_zero_gamma(settings)


def _create(settings: BackboneSettings, sizing: dict[str, int]) -> nn.Module:
    """timm's model without a head, with its parameters drawn or loaded."""
    import timm

    arguments = _own_arguments(settings) | sizing
    if settings.zero_gamma is not None:
        arguments["zero_init_last"] = settings.zero_gamma
    with errors_only("huggingface_hub", "timm"):  # they tell of six attempts to reach the Hub
        model: nn.Module = timm.create_model(settings.name, pretrained=settings.pretrained, num_classes=0, **arguments)
    if settings.stem == "cifar" and isinstance(model, timm.models.resnet.ResNet):
        _use_cifar_stem(model, settings.name)
    return model


def _use_cifar_stem(model: nn.Module, name: str) -> None:
    """A 3x3 convolution with stride 1 and no max-pool: the ImageNet stem leaves 32x32 images with 1x1 maps."""
    stem = model.conv1
    if not isinstance(stem, nn.Conv2d):
        raise SettingError("stem", f"{name} has a stem of several layers; set stem: imagenet")
    model.conv1 = nn.Conv2d(stem.in_channels, stem.out_channels, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
