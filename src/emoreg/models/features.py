"""What a module must be to serve as backbone or encoder, and what to do about one that is not."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from emoreg.config.schema import RELATIVES, Mode
from emoreg.config.setting_types import shown, typed_value
from emoreg.errors import SettingError, shortened

COLOURS = 3  # channels of an image, by which a network's first layer is known too


def num_features(module: nn.Module) -> int:
    """Width D of a backbone's pooled features. SettingError for a module that does not declare it."""
    # Some of timm's architectures widen the pooled features once more, to head_hidden_size.
    width = getattr(module, "head_hidden_size", None) or getattr(module, "num_features", None)
    if not isinstance(width, int):
        reason = f"{type(module).__name__} has no num_features: give the widths of both features as (D, De)"
        raise SettingError("feature_dims", reason)
    return width


def require_network(module: Any, name: str) -> None:
    """SettingError for what is given as a network, under this name, and is no module."""
    if isinstance(module, nn.Module):
        return
    if isinstance(module, type):
        mend = f"the class {module.__name__}; give one of it, {module.__name__}(...)"
    elif isinstance(module, str):
        made = f"emoreg.build_backbone({module!r}) makes one of a name"
        mend = f"{shortened(repr(module))}; {made}, emoreg.load_encoder of a stage-1 run's folder"
    else:
        mend = f"a {type(module).__name__}"
    raise SettingError(name, f"must be a network (torch.nn.Module), not {mend}")


def require_kept(network: nn.Module, name: str) -> None:
    """SettingError for what a run cannot keep: an entry of the state dict that is no tensor; as `require_single`."""
    for entry, value in network.state_dict().items():
        if not isinstance(value, Tensor):
            reason = f"has {entry} in its state dict, a {type(value).__name__}, and a run keeps tensors alone"
            raise SettingError(name, f"{reason}: let get_extra_state return a tensor, or register a buffer")
    require_single(network, name)


def require_single(network: nn.Module, name: str) -> None:
    """SettingError for weights in double precision, in which no image comes."""
    for entry, weight in network.named_parameters():
        if weight.dtype == torch.float64:
            raise SettingError(name, f"must be in single precision, and {entry} is in double; give {name}.float()")


def sees_images(network: nn.Module) -> bool:
    """Whether a network takes images, as every one with a two-dimensional convolution does."""
    return any(isinstance(module, nn.Conv2d) for module in network.modules())


def require_images(images: Any) -> None:
    """SettingError for images that a network would fail at, or take for others: pixels of 8 bits, a single image."""
    if not isinstance(images, Tensor):
        reason = f"must be a float tensor (B, 3, H, W), not a {type(images).__name__}"
        raise SettingError("images", reason + "; emoreg.predict takes files, Pillow's images and pixels")
    shape = tuple(images.shape)
    if images.dtype == torch.uint8:
        raise SettingError("images", "are pixels of 8 bits; emoreg.normalise(images) makes them what networks take")
    if images.ndim == 3 and COLOURS in (shape[0], shape[-1]):
        raise SettingError("images", f"must be (B, 3, H, W), not a single image {shape}; give images[None]")
    if images.ndim == 4 and shape[-1] == COLOURS != shape[1]:
        reason = f"must be (B, 3, H, W), not {shape} with the colours last; give images.permute(0, 3, 1, 2)"
        raise SettingError("images", reason)


def network_widths(backbone: Any, encoder: Any, mode: Mode, given: Any) -> tuple[int, int]:
    """D and De of a classifier's networks; De is 0 without an encoder.

    Args:
        backbone: f.
        encoder: e, or None.
        mode: which takes both, or in "none" and the relatives' the backbone alone.
        given: `feature_dims`, (D, De), or None for what the networks say.

    Raises:
        SettingError: what is no network; one that the mode does not take; unknown widths.
    """
    if mode == "transfer":
        raise SettingError("mode", "transfer is one network: give the encoder as backbone, in mode none")
    takes_one = mode not in ("none", *RELATIVES)
    if not takes_one and encoder is not None:
        others = "every other mode needs one" if mode == "none" else "it is a head on the backbone"
        raise SettingError("encoder", f"must be None in mode {mode}, which takes no encoder; {others}")
    if takes_one and encoder is None:
        raise SettingError("encoder", f"must be a network in mode {mode}, not None; mode none takes no encoder")
    require_network(backbone, "backbone")
    if encoder is not None:
        require_network(encoder, "encoder")
    if given is None:
        return num_features(backbone), 0 if encoder is None else num_features(encoder)
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise SettingError("feature_dims", f"must be the widths (D, De) of both features, not {shown(given)}")
    widths = typed_value(tuple[int, ...], given, "feature_dims")
    return widths[0], 0 if encoder is None else widths[1]


def pooled_features(module: nn.Module, images: Any, width: int, name: str) -> Tensor:
    """The features (B, width) that a network gives for images (B, 3, H, W), or for inputs of another kind.

    Args:
        module: the network.
        images: normalised.
        width: as its num_features, or feature_dims, says.
        name: what the network serves as, for errors: "backbone" or "encoder".

    Raises:
        SettingError: it gives anything else; says how to mend it.
    """
    features = module(images) if torch.compiler.is_compiling() else _call_network(module, images, name)
    if isinstance(features, Tensor) and features.ndim == 2 and features.shape[1] == width:
        return features
    kind = type(module).__name__
    if not isinstance(features, Tensor):
        told = f"gives a {type(features).__name__} in place of features (B, {width})"
        mend = "wrap it in a module that returns them alone"
    elif features.ndim != 2:
        shape = ", ".join(map(str, features.shape[1:]))
        told = f"gives (B, {shape}) in place of pooled features (B, {width})"
        mend = "pool them, as features.mean(dim=(2, 3)) does with maps (B, D, H, W)"
    elif features.shape[1] == getattr(module, "num_classes", None):
        told = f"gives the logits of {features.shape[1]} classes in place of features (B, {width})"
        mend = "take its head off: num_classes=0 in timm.create_model, or module.reset_classifier(0)"
    elif (head := _head_of(module, width, features.shape[1])) is not None:
        told = f"gives the {features.shape[1]} outputs of its head, {head}, in place of features (B, {width})"
        mend = f"take it off: module.{head} = torch.nn.Identity()"
    else:
        told = f"gives features of width {features.shape[1]}, where num_features or feature_dims says {width}"
        mend = "set that to the width that it gives"
    raise SettingError(name, f"{kind} {told}; {mend}")


def _call_network(module: nn.Module, images: Any, name: str) -> Any:
    """What a network gives. SettingError where one of its convolutions fails at the images as they were given.

    Images are not looked at before: a network may convert them, or take other channels. Its other errors are its own.
    """
    try:
        return module(images)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if (layer := _failed_at(images, error)) is None:
            raise
        if images.ndim != 4 or images.shape[1] != layer.in_channels:
            mend = "; grey images get equal colours: images.expand(-1, 3, -1, -1)" if images.shape[1:2] == (1,) else ""
            reason = f"must be (B, {layer.in_channels}, H, W) for the {name}, not {tuple(images.shape)}{mend}"
        elif images.dtype != layer.weight.dtype and not torch.is_autocast_enabled(images.device.type):
            given, own = (str(tensor.dtype).removeprefix("torch.") for tensor in (images, layer.weight))
            reason = f"are {given}, and the weights of the {name} {own}; give images.to(torch.{own})"
        else:
            raise
        raise SettingError("images", reason) from error


def _failed_at(images: Any, error: RuntimeError) -> nn.Conv2d | None:
    """The convolution that was given this very tensor and failed at it; None if another layer failed."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        layer = frame.f_locals.get("self")
        if isinstance(layer, nn.Conv2d) and any(given is images for given in frame.f_locals.values()):
            return layer
    return None


def require_features(module: nn.Module, image_size: int, name: str) -> None:
    """SettingError unless a network can be kept and gives features for images of this size.

    Tried in evaluation; it stays as it is.
    """
    require_kept(module, name)
    device = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
    images = torch.zeros(2, COLOURS, image_size, image_size, device=device)
    with tried_out(module):
        pooled_features(module, images, num_features(module), name)


@contextlib.contextmanager
def tried_out(module: nn.Module) -> Iterator[None]:
    """Within, a network is in evaluation and nothing needs a gradient; it and the random numbers stay as they were."""
    before = [(inner, inner.training) for inner in module.modules()]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            module.eval()
            yield
    finally:
        for inner, was_training in before:
            inner.training = was_training


def _head_of(module: nn.Module, width: int, outputs: int) -> str | None:
    """The name of a network's last layer, if it is linear and maps features of this width to so many outputs."""
    last = [(name, layer) for name, layer in module.named_modules() if not list(layer.children())]
    name, layer = last[-1] if last else ("", None)
    is_head = isinstance(layer, nn.Linear) and (layer.in_features, layer.out_features) == (width, outputs)
    return name if is_head and name else None


def undecayed(module: nn.Module) -> set[str]:
    """The parameters, by name, that the modules in it list in `no_weight_decay()`, which is timm's convention."""
    return {
        f"{prefix}.{name}"
        for prefix, inner in module.named_modules()
        if prefix and hasattr(inner, "no_weight_decay")
        for name in inner.no_weight_decay()
    }
