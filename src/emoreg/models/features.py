"""Requirements on a module that serves as backbone or encoder, and errors that say how to meet them."""

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
from emoreg.models.evaluation import in_evaluation

COLOURS = 3  # channels of an image


def num_features(module: nn.Module) -> int:
    """Return the width D of a backbone's pooled features. Raise SettingError if the module does not declare it."""
    # Some timm architectures widen the pooled features once more, to head_hidden_size.
    width = getattr(module, "head_hidden_size", None) or getattr(module, "num_features", None)
    if not isinstance(width, int):
        reason = f"{type(module).__name__} has no num_features: give the widths of both features as (D, De)"
        raise SettingError("feature_dims", reason)
    return width


def require_network(module: Any, name: str) -> None:
    """Raise SettingError, with `name` as its key, unless the argument is a module."""
    if isinstance(module, nn.Module):
        return
    if isinstance(module, type):
        given = f"the class {module.__name__}; give an instance of it, {module.__name__}(...)"
    elif isinstance(module, str):
        hint = f"emoreg.build_backbone({module!r}) builds one by name, emoreg.load_encoder loads a stage-1 run's"
        given = f"{shortened(repr(module))}; {hint}"
    else:
        given = f"a {type(module).__name__}"
    raise SettingError(name, f"must be a network (torch.nn.Module), not {given}")


def require_kept(network: nn.Module, name: str) -> None:
    """Raise SettingError if a run could not store the network: non-tensor state, or double precision."""
    for entry, value in network.state_dict().items():
        if not isinstance(value, Tensor):
            reason = f"has {entry} in its state dict, a {type(value).__name__}, and a run keeps tensors alone"
            raise SettingError(name, f"{reason}: let get_extra_state return a tensor, or register a buffer")
    require_single(network, name)


def require_single(network: nn.Module, name: str) -> None:
    """Raise SettingError for weights in double precision, since images are single precision."""
    for entry, weight in network.named_parameters():
        if weight.dtype == torch.float64:
            raise SettingError(name, f"must be in single precision, and {entry} is in double; give {name}.float()")


def require_images(images: Any) -> None:
    """Raise SettingError for images that a network would fail on or misinterpret: 8-bit pixels, a single image."""
    if not isinstance(images, Tensor):
        reason = f"must be a float tensor (B, 3, H, W), not a {type(images).__name__}"
        raise SettingError("images", reason + "; emoreg.predict takes files, Pillow images and pixels")
    shape = tuple(images.shape)
    if images.dtype == torch.uint8:
        raise SettingError("images", "are pixels of 8 bits; emoreg.normalise(images) converts them for networks")
    if images.ndim == 3 and COLOURS in (shape[0], shape[-1]):
        raise SettingError("images", f"must be (B, 3, H, W), not a single image {shape}; give images[None]")
    if images.ndim == 4 and shape[-1] == COLOURS != shape[1]:
        reason = f"must be (B, 3, H, W), not {shape} with the colours last; give images.permute(0, 3, 1, 2)"
        raise SettingError("images", reason)


def network_widths(backbone: Any, encoder: Any, mode: Mode, given: Any) -> tuple[int, int]:
    """Check the networks of a classifier and return their feature widths D and De; De is 0 without an encoder.

    Args:
        backbone: f.
        encoder: e, or None.
        mode: of the regulation. "none" and the relatives take the backbone alone, the others both networks.
        given: `feature_dims`, (D, De), or None to use the networks' `num_features`.

    Raises:
        SettingError: an argument is not a network; the mode takes no encoder, or needs one; unknown widths.
    """
    if mode == "transfer":
        raise SettingError("mode", "transfer is one network: give the encoder as backbone, in mode none")
    takes_encoder = mode not in ("none", *RELATIVES)
    if not takes_encoder and encoder is not None:
        others = "every other mode needs one" if mode == "none" else "it is a head on the backbone"
        raise SettingError("encoder", f"must be None in mode {mode}, which takes no encoder; {others}")
    if takes_encoder and encoder is None:
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
    """Return a network's features (B, width) of its inputs, checked.

    Args:
        module: the network.
        images: normalised images (B, 3, H, W), or whatever else the network takes.
        width: the width that num_features or feature_dims declares.
        name: role of the network, for errors: "backbone" or "encoder".

    Raises:
        SettingError: the output is anything else; the message says how to fix it.
    """
    features = module(images) if torch.compiler.is_compiling() else _call_network(module, images, name)
    if isinstance(features, Tensor) and features.ndim == 2 and features.shape[1] == width:
        return features
    kind = type(module).__name__
    if not isinstance(features, Tensor):
        fault = f"gives a {type(features).__name__} instead of features (B, {width})"
        remedy = "wrap it in a module that returns only them"
    elif features.ndim != 2:
        shape = ", ".join(map(str, features.shape[1:]))
        fault = f"gives (B, {shape}) instead of pooled features (B, {width})"
        remedy = "pool them, as features.mean(dim=(2, 3)) does with maps (B, D, H, W)"
    elif features.shape[1] == getattr(module, "num_classes", None):
        fault = f"gives the logits of {features.shape[1]} classes instead of features (B, {width})"
        remedy = "remove its head: num_classes=0 in timm.create_model, or module.reset_classifier(0)"
    elif (head := _head_of(module, width, features.shape[1])) is not None:
        fault = f"gives the {features.shape[1]} outputs of its head, {head}, instead of features (B, {width})"
        remedy = f"remove it: module.{head} = torch.nn.Identity()"
    else:
        fault = f"gives features of width {features.shape[1]}, where num_features or feature_dims says {width}"
        remedy = "set that to the width that it gives"
    raise SettingError(name, f"{kind} {fault}; {remedy}")


def _call_network(module: nn.Module, images: Any, name: str) -> Any:
    """Call a network. Raise SettingError if one of its convolutions was given `images` itself and does not accept it.

    Images are not checked beforehand, since a network may convert them or take other channels. All other errors of the
    network are passed on.
    """
    try:
        return module(images)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if (layer := _failed_convolution(images, error)) is None:
            raise
        if images.ndim != 4 or images.shape[1] != layer.in_channels:
            hint = "; grey images get equal colours: images.expand(-1, 3, -1, -1)" if images.shape[1:2] == (1,) else ""
            reason = f"must be (B, {layer.in_channels}, H, W) for the {name}, not {tuple(images.shape)}{hint}"
        elif images.dtype != layer.weight.dtype and not torch.is_autocast_enabled(images.device.type):
            given, own = (str(tensor.dtype).removeprefix("torch.") for tensor in (images, layer.weight))
            reason = f"are {given}, and the weights of the {name} are {own}; give images.to(torch.{own})"
        else:
            raise
        raise SettingError("images", reason) from error


def _failed_convolution(images: Any, error: RuntimeError) -> nn.Conv2d | None:
    """Return the convolution that was given this very tensor and failed; None if another layer failed.

    Only the traceback knows it after the fact. Forward hooks would cost time in every call, or need a second forward
    pass, which may change the network's state.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        layer = frame.f_locals.get("self")
        if isinstance(layer, nn.Conv2d) and any(given is images for given in frame.f_locals.values()):
            return layer
    return None


def require_features(module: nn.Module, image_size: int, name: str) -> None:
    """Raise SettingError unless a run can store the network and it gives features of images of this size.

    Tries two images in evaluation mode; the network is left unchanged.
    """
    require_kept(module, name)
    device = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
    images = torch.zeros(2, COLOURS, image_size, image_size, device=device)
    with evaluation_mode(module):
        pooled_features(module, images, num_features(module), name)


def forward_flops(network: nn.Module, images: Tensor) -> int:
    """Count the FLOPs of a forward pass in evaluation mode; a multiplication and an addition count as two."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.requires_grad_(False)  # the counter hooks gradients, and fails at a view of a parameter
    # Fused attention kernels differ between devices, and not all of them are counted.
    with evaluation_mode(network), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(images)
    for parameter in trained:
        parameter.requires_grad = True
    return int(counter.get_total_flops())


@contextlib.contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode without gradients; restore its mode and the CPU's random state afterwards."""
    with in_evaluation(module), torch.no_grad(), torch.random.fork_rng(devices=[]):
        yield


def _head_of(module: nn.Module, width: int, outputs: int) -> str | None:
    """The name of a network's last layer if it is a linear layer of this shape, else None."""
    name, layer = [*module.named_modules()][-1]
    is_head = isinstance(layer, nn.Linear) and (layer.in_features, layer.out_features) == (width, outputs)
    return name if is_head and name else None


def undecayed(module: nn.Module) -> set[str]:
    """Names of the parameters that submodules list in `no_weight_decay()`, which is timm's convention."""
    return {
        f"{prefix}.{name}"
        for prefix, inner in module.named_modules()
        if prefix and hasattr(inner, "no_weight_decay")
        for name in inner.no_weight_decay()
    }
