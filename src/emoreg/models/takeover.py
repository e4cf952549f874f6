"""Takeover: how stage 2 takes over the encoder of stage 1 (ours).

A pre-trained encoder differs from a fresh one in more than what it knows. Its filters have other norms, hence another
effective learning rate under batch norm (van Laarhoven 2017), and warm starts generalise worse in themselves (Ash &
Adams 2020, "On Warm-Starting Neural Network Training"). Beside *as it is*, an encoder can be taken over

- *norm-matched* (`match_norms`): filters in front of a batch norm get the norms of a fresh draw; the function stays;
- *shrunk and perturbed* (`shrink_and_perturb`): moved towards a fresh draw.

`keep_moments` makes the twin `moments`: a fresh draw with only the scale of the weights of stage 1 (Raghu et al. 2019,
"Transfusion: Understanding Transfer Learning for Medical Imaging").

All of them take the encoder and the fresh draw θ₀ of the same architecture and seed; what they do not say they change
stays as it is, the draw above all: the twin `fresh` is the same to the bit whether or not another arm was taken over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeGuard

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from emoreg.errors import SettingError, shortened

FAR_ABOVE_EPSILON = 1000  # of a batch norm's ε: below, ε is no rounding error beside the variance


class NormMatch(NamedTuple):
    """What `match_norms` has done, in filters."""

    scaled: int
    quiet: int  # left: their variance is not far above the batch norm's ε
    elsewhere: int  # left: of layers in front of anything but a batch norm, such as the gates of squeeze-and-excitation


@torch.no_grad()
def match_norms(encoder: nn.Module, fresh: nn.Module) -> NormMatch:
    """Give filters that feed a batch norm alone the norms of a fresh draw; the function in evaluation stays the same.

    There may be max pooling in between, as the largest of values scaled by c > 0 is the largest one scaled.
    A filter and its bias are scaled by c = RMS norm of the layer's filters in the draw / norm of the filter, the
    running mean m by c, and the running variance v becomes c² · (v + ε) - ε, so that (c · u - c · m) / √(c² · (v + ε))
    is what it was. γ and β stay. Filters with v or c² · v below 1,000 ε are left: in training, where statistics are
    the batch's, ε would make a difference.

    Args:
        encoder: changed in place.
        fresh: θ₀, of the same architecture; it is not changed.

    Returns:
        How many filters were scaled, and how many left.

    Raises:
        SettingError: no filter feeds a batch norm alone, or torch.fx cannot trace the encoder to find out.
    """
    scaled = quiet = 0
    pairs = _before_batch_norm(encoder)
    for name, layer, norm in pairs:
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None and variance is not None
        of_draw = _filter_norms(fresh.get_parameter(f"{name}.weight")).to(layer.weight)
        target = of_draw.square().mean().sqrt()
        c = target / _filter_norms(layer.weight)  # (filters,)
        least = FAR_ABOVE_EPSILON * norm.eps
        is_quiet = ~((variance >= least) & (c.square() * variance >= least) & c.isfinite())
        c = c.where(~is_quiet, 1.0)
        layer.weight.mul_(c.view(-1, *[1] * (layer.weight.ndim - 1)))
        if layer.bias is not None:
            layer.bias.mul_(c)
        mean.mul_(c)
        variance.copy_((c.square() * (variance + norm.eps) - norm.eps).where(~is_quiet, variance))
        quiet += int(is_quiet.sum())
        scaled += int((~is_quiet).sum())
    layers = [module for module in encoder.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return NormMatch(scaled, quiet, sum(len(layer.weight) for layer in layers) - scaled - quiet)


@torch.no_grad()
def shrink_and_perturb(encoder: nn.Module, fresh: nn.Module, share: float) -> None:
    """θ ← (1 - s) · θ₀ + s · θ over all parameters.

    Ash & Adams 2020, in the convex form of Schwarzer et al. 2023, "Bigger, Better, Faster". Running statistics no
    longer fit afterwards; `estimate_statistics` makes new ones.

    Args:
        encoder: θ, changed in place.
        fresh: θ₀, of the same architecture; it is not changed.
        share: s, in [0, 1]: 1 keeps the encoder, 0 makes it the draw.
    """
    for own, drawn in zip(encoder.parameters(), fresh.parameters(), strict=True):
        own.copy_(torch.lerp(drawn.to(own), own, share))


def estimate_statistics(encoder: nn.Module, batches: Iterable[Tensor]) -> None:
    """Estimate the running statistics of batch norms anew, as the mean over batches.

    Args:
        encoder: changed in place; its state of training or evaluation is kept. Without batch norms nothing happens.
        batches: normalised images (B, 3, H, W) as they are trained on, on the encoder's device.
    """
    before = [(module, module.training) for module in encoder.modules()]
    update_bn(batches, encoder)
    for module, was_training in before:
        module.training = was_training


@torch.no_grad()
def keep_moments(encoder: nn.Module, fresh: nn.Module) -> None:
    """Replace an encoder by a fresh draw that keeps only the scale of its weights: the twin `moments`.

    Parameters of two or more dimensions become the draw's, with the mean and the variance that the encoder's had, each
    layer by itself (of a draw that is constant, only the mean). γ, β and biases stay. Buffers become the draw's.

    Args:
        encoder: after its takeover; changed in place.
        fresh: θ₀, of the same architecture; it is not changed.
    """
    for own, drawn in zip(encoder.parameters(), fresh.parameters(), strict=True):
        if own.ndim < 2:
            continue
        values = drawn.to(own) - drawn.to(own).mean()
        deviation = values.std(correction=0)
        factor = own.std(correction=0) / deviation if deviation > 0 else torch.zeros_like(deviation)
        own.copy_(values * factor + own.mean())
    for buffer, of_draw in zip(encoder.buffers(), fresh.buffers(), strict=True):
        buffer.copy_(of_draw)


def _filter_norms(weight: Tensor) -> Tensor:
    """‖w‖ of each filter (output channel): (C_out,) of a weight (C_out, C_in / groups, h, w)."""
    return weight.flatten(1).norm(dim=1)


class _Tracer(fx.Tracer):
    """Follows calls down to convolutions and batch norms; a library's own kinds of both are not looked into."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, _BatchNorm | nn.Conv2d):  # timm's BatchNormAct2d is a batch norm with what follows it
            return True
        return super().is_leaf_module(m, module_qualified_name)


def _before_batch_norm(encoder: nn.Module) -> list[tuple[str, nn.Conv2d, _BatchNorm]]:
    """Convolutions whose output feeds one batch norm with running statistics and nothing else, with their names.

    It may be max-pooled first.
    """
    key = "encoder.takeover"
    impossible = "norm_matched is impossible"
    if not any(isinstance(module, _BatchNorm) for module in encoder.modules()):
        reason = (
            f"{impossible} for a {type(encoder).__name__}, which has no batch norms: elsewhere only products of "
            "weights are free (in a pre-norm ViT q·k, v·proj, norm·next weight), not the norm of one; set as_is or "
            "shrunk"
        )
        raise SettingError(key, reason)
    try:
        graph = _Tracer().trace(encoder)
    except Exception as error:  # whatever control flow on values raises
        reason = f"{impossible} for a {type(encoder).__name__}: torch.fx cannot trace it ({shortened(str(error))})"
        raise SettingError(key, f"{reason}; set as_is or shrunk") from None
    found = list(_pairs(encoder, graph))
    if not found:
        reason = f"{impossible} for a {type(encoder).__name__}: none of its filters feeds a batch norm alone"
        raise SettingError(key, f"{reason}; set as_is or shrunk")
    return found


def _pairs(encoder: nn.Module, graph: fx.Graph) -> Iterator[tuple[str, nn.Conv2d, _BatchNorm]]:
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    read = [str(node.target) for node in graph.nodes if node.op == "get_attr"]  # weights that are used elsewhere too
    modules = dict(encoder.named_modules())
    for node in graph.nodes:
        if node.op != "call_module" or len(node.users) != 1:
            continue
        name = str(node.target)
        before, after = node, next(iter(node.users))
        if after.op == "call_module" and isinstance(modules[str(after.target)], nn.MaxPool2d) and len(after.users) == 1:
            before, after = after, next(iter(after.users))
        if after.op != "call_module" or after.args[:1] != (before,):
            continue
        layer, norm = modules[name], modules[str(after.target)]
        if (
            _is_plain_convolution(layer)
            and isinstance(norm, _BatchNorm)
            and norm.running_var is not None
            and calls[name] == calls[str(after.target)] == 1
            and not any(path.startswith((f"{name}.", f"{after.target}.")) for path in read)
        ):
            yield name, layer, norm


def _is_plain_convolution(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether the output is linear in the weight, which it is not where a subclass standardises it."""
    from timm.layers.conv2d_same import Conv2dSame

    return type(module) in (nn.Conv2d, Conv2dSame)
