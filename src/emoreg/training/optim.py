"""Optimiser, learning-rate schedule and weight average of a recipe."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from emoreg.config.optimizer import OptimizerSettings
from emoreg.training.parameter_groups import parameter_groups


def make_optimizer(
    model: nn.Module,
    settings: OptimizerSettings,
    lr_factors: Mapping[str, float],
    batch_size: int,
    device: torch.device | None = None,
) -> Optimizer:
    """Make SGD with Nesterov momentum, AdamW or Muon over the trainable parameters; see `parameter_groups`.

    Muon is timm's, because torch's takes only matrices. timm's also takes convolutions, flattened, and trains the other
    parameters by AdamW, so that schedule, clipping and checkpoint have one optimiser. Its step of a matrix is torch's,
    scaled as in Liu et al. 2025, "Muon is Scalable for LLM Training", so that both parts share one learning rate.

    Args:
        model: frozen parameters (requires_grad false) are left out.
        settings: all except schedule, clipping and average are used.
        lr_factors: factors of the learning rate, by prefix of the parameters' names.
        batch_size: training.batch_size of the recipe, for `settings.peak_lr`.
        device: where the model is trained. On CUDA the kernels are fused, and Muon keeps all of its state there. Not on
            CPUs, where fused kernels would save about 1 % of a step of 128 images, and AdamW's round differently
            (docs/speed.md).

    Raises:
        SettingError: as `parameter_groups`.
    """
    lr = settings.peak_lr(batch_size)
    groups = parameter_groups(model, settings, lr, lr_factors)
    fused = True if device is not None and device.type == "cuda" else None  # None lets torch choose
    if settings.name == "muon":
        from timm.optim.muon import Muon

        hidden = [group | {"nesterov": True} if group["use_muon"] else group for group in groups]
        on_device = fused is not None
        return Muon(hidden, lr=lr, momentum=settings.momentum, ns_coefficients="original", capturable=on_device)
    if settings.name == "adamw":
        return AdamW(groups, lr=lr, fused=fused)
    return SGD(groups, lr=lr, momentum=settings.momentum, nesterov=settings.momentum > 0, fused=fused)


def make_schedule(optimizer: Optimizer, settings: OptimizerSettings, steps: int) -> LRScheduler:
    """Make the schedule of the learning rate over `steps` batches: a linear warm-up, then settings.schedule."""
    warmup_steps = round(settings.warmup * steps)
    if settings.schedule == "one_cycle":
        highest = [group["lr"] for group in optimizer.param_groups]
        share = max(settings.warmup, 2 / (steps + 1))  # OneCycleLR divides by the steps of its rise
        return OneCycleLR(optimizer, highest, total_steps=steps + 1, pct_start=share, cycle_momentum=False)
    after: LRScheduler
    if settings.schedule == "cosine":
        after = CosineAnnealingLR(optimizer, T_max=max(steps - warmup_steps, 1))
    else:
        after = LinearLR(optimizer, start_factor=1.0, total_iters=1)
    if warmup_steps == 0:
        return after
    warmup = LinearLR(optimizer, 1 / warmup_steps, total_iters=warmup_steps)
    return SequentialLR(optimizer, [warmup, after], milestones=[warmup_steps])


def make_average(model: nn.Module, decay: float | None) -> AveragedModel | None:
    """Make an exponential moving average of weights and batch statistics; None if `decay` is None."""
    return None if decay is None else _Average(model, decay)


class _Average(AveragedModel):
    """PyTorch's average, but without its copy of a counter to the device, for which each step would wait.

    What has no mean is copied from the model instead: integers and truth values (the indices of Swin's relative
    positions, counters), and tensors that start with infinities (attention masks of 0 and -∞).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.lerp = get_ema_multi_avg_fn(decay)
        self.has_mean = [_has_mean(tensor) for tensor in _tensors(self.module)]  # once, since a GPU waits for it

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Update the averages with the weights and buffers of the model; the first time, copy them."""
        own, other = _tensors(self.module), _tensors(model)
        if self.n_averaged == 0:
            torch._foreach_copy_(own, other)
        else:
            for kind in {(tensor.dtype, mean) for tensor, mean in zip(own, self.has_mean, strict=True)}:
                same = [number for number, tensor in enumerate(own) if kind == (tensor.dtype, self.has_mean[number])]
                pair = [own[number] for number in same], [other[number] for number in same]
                if kind[1]:
                    self.lerp(*pair, self.n_averaged)
                else:
                    torch._foreach_copy_(*pair)
        self.n_averaged += 1


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _has_mean(tensor: Tensor) -> bool:
    return (tensor.is_floating_point() or tensor.is_complex()) and bool(tensor.isfinite().all())
