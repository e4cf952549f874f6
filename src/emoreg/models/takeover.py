"""Takeover: how stage 2 takes over the encoder of stage 1 (ours).

A pre-trained encoder differs from a fresh one in more than what it has learned. Its filters have other norms, hence
another effective learning rate under batch norm (van Laarhoven 2017), and warm starts can generalise worse in
themselves (Ash & Adams 2020, "On Warm-Starting Neural Network Training"). Instead of *as it is*, an encoder can be
taken over

- *norm-matched* (`match_norms`): filters in front of a batch norm get the norms of a fresh draw; the function stays;
- *shrunk and perturbed* (`shrink_and_perturb`): moved towards a fresh draw.

`keep_moments` makes the twin `moments`: a fresh draw with only the scale of the weights of stage 1, and its biases and
gains (Raghu et al. 2019, "Transfusion: Understanding Transfer Learning for Medical Imaging").

All three take the encoder and a fresh network θ₀ of the same architecture: a draw with the run's seed, or the
pretrained weights that stage 1 started from. They never change it, so that the twin `fresh` is bit-identical whatever
other arms do.
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

FAR_ABOVE_EPSILON = 1000  # times ε of a batch norm, the least variance beside which ε is negligible


class NormMatch(NamedTuple):
    """Numbers of filters that `match_norms` scaled and left unchanged."""

    scaled: int
    quiet: int  # unchanged: their variance is not far above the batch norm's ε
    elsewhere: int  # unchanged: their layer does not feed a batch norm alone, such as a squeeze-and-excitation gate


@torch.no_grad()
def match_norms(encoder: nn.Module, fresh: nn.Module) -> NormMatch:
    """Give filters that feed a batch norm alone the norms of a fresh draw; the function in evaluation stays the same.

    Max pooling in between is allowed, since it commutes with a scale c > 0. A filter and its bias are scaled by
    c = RMS norm of the layer's filters in the draw / norm of the filter, the running mean m by c, and the running
    variance v becomes c² · (v + ε) - ε, so that (c · u - c · m) / √(c² · (v + ε)) is unchanged. γ and β stay. Filters
    with v or c² · v below 1,000 ε are left unchanged, because in training, with batch statistics, ε would matter.

    Args:
        encoder: changed in place.
        fresh: θ₀, of the same architecture; it is not changed.

    Raises:
        SettingError: no filter feeds a batch norm alone, or torch.fx cannot trace the encoder to find out.
    """
    scaled = quiet = 0
    pairs = _before_batch_norm(encoder)
    for name, layer, norm in pairs:
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None and variance is not None
        fresh_norms = _filter_norms(fresh.get_parameter(f"{name}.weight")).to(layer.weight)
        target = fresh_norms.square().mean().sqrt()
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
    """Replace all parameters: θ ← (1 - s) · θ₀ + s · θ.

    Ash & Adams 2020, in the convex form of Schwarzer et al. 2023, "Bigger, Better, Faster". Running statistics no
    longer fit afterwards; call `estimate_statistics`.

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
        encoder: changed in place, except for its training or evaluation mode.
        batches: normalised and augmented images (B, 3, H, W), on the encoder's device.
    """
    before = [(module, module.training) for module in encoder.modules()]
    update_bn(batches, encoder)
    for module, was_training in before:
        module.training = was_training


@torch.no_grad()
def keep_moments(encoder: nn.Module, fresh: nn.Module) -> None:
    """Replace an encoder by a fresh draw with the scale of its weights, and its vectors: the twin `moments`.

    Parameters with at least two dimensions become the draw's, shifted and scaled to the mean and variance that the
    encoder's had (only to the mean if the draw is constant). Vectors stay: biases, γ and β of norms, LayerScale.
    Buffers become the draw's.

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
    for buffer, drawn_buffer in zip(encoder.buffers(), fresh.buffers(), strict=True):
        buffer.copy_(drawn_buffer)


def _filter_norms(weight: Tensor) -> Tensor:
    """Return ‖w‖ of each filter (output channel), (C_out,), of a weight (C_out, C_in / groups, h, w)."""
    return weight.flatten(1).norm(dim=1)


class _Tracer(fx.Tracer):
    """Traces calls down to convolutions and batch norms; subclasses of both are not traced into."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, _BatchNorm | nn.Conv2d):  # also timm's BatchNormAct2d, a batch norm and an activation
            return True
        return super().is_leaf_module(m, module_qualified_name)


def _before_batch_norm(encoder: nn.Module) -> list[tuple[str, nn.Conv2d, _BatchNorm]]:
    """Names and modules of convolutions that feed only one batch norm, which has running statistics.

    Max pooling in between is allowed.
    """
    impossible, remedy = f"norm_matched is impossible for a {type(encoder).__name__}", "set as_is or shrunk"
    if not any(isinstance(module, _BatchNorm) for module in encoder.modules()):
        reason = (
            f"{impossible}, which has no batch norms: elsewhere only products of weights are free (in a pre-norm ViT "
            f"q·k, v·proj, norm·next weight), not the norm of one; {remedy}"
        )
        raise SettingError("encoder.takeover", reason)
    try:
        graph = _Tracer().trace(encoder)
    except Exception as error:  # whatever control flow on values raises
        reason = f"{impossible}: torch.fx cannot trace it ({shortened(str(error))}); {remedy}"
        raise SettingError("encoder.takeover", reason) from None
    pairs = list(_pairs(encoder, graph))
    if not pairs:
        raise SettingError("encoder.takeover", f"{impossible}: none of its filters feeds a batch norm alone; {remedy}")
    return pairs


def _pairs(encoder: nn.Module, graph: fx.Graph) -> Iterator[tuple[str, nn.Conv2d, _BatchNorm]]:
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    read = [str(node.target) for node in graph.nodes if node.op == "get_attr"]  # parameters used outside their module
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
    """Whether the output is linear in the weight. Other subclasses may not be, such as weight standardisation."""
    from timm.layers.conv2d_same import Conv2dSame

    return type(module) in (nn.Conv2d, Conv2dSame)
