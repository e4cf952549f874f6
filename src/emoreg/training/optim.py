"""Optimiser, learning-rate schedule and weight average of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from emoreg.config.schema import OptimizerSettings


def make_optimizer(model: nn.Module, settings: OptimizerSettings, lr_factors: Mapping[str, float]) -> Optimizer:
    """SGD with Nesterov momentum or AdamW over the trainable parameters, grouped by weight decay and learning rate.

    Args:
        model: frozen parameters (requires_grad false) are left out. Biases, norms and the parameters that a module
            lists in `no_weight_decay()` (timm's convention) are not decayed.
        settings: name, lr, weight_decay and momentum are used.
        lr_factors: factors of the learning rate, by prefix of the parameters' names.
    """
    exempt = {
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in model.named_modules()
        if hasattr(module, "no_weight_decay")
        for name in module.no_weight_decay()
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = next((factor for prefix, factor in lr_factors.items() if name.startswith(prefix)), 1.0)
            decays = parameter.ndim >= 2 and name not in exempt
            groups.setdefault((factor, settings.weight_decay if decays else 0.0), []).append(parameter)
    parameters: list[dict[str, Any]] = [
        {"params": group, "lr": settings.lr * factor, "weight_decay": decay}
        for (factor, decay), group in groups.items()
    ]
    if settings.name == "adamw":
        return AdamW(parameters, lr=settings.lr)
    return SGD(parameters, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)


def make_schedule(optimizer: Optimizer, settings: OptimizerSettings, steps: int) -> LRScheduler:
    """The learning rate over `steps` batches: a linear warm-up, then settings.schedule."""
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
    """An exponential moving average of weights and batch statistics; None if `decay` is None."""
    if decay is None:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
