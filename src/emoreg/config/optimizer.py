"""Settings of the optimiser and its learning-rate schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from emoreg.config.rules import check_at_least, check_not_negative, check_positive, check_rule, check_share
from emoreg.config.setting_types import settle
from emoreg.errors import SettingError

OptimizerName = Literal["sgd", "adamw", "muon"]
SCALE_FREE: Mapping[str, str] = {"adamw": "AdamW", "muon": "Muon"}  # optimisers that do not feel a loss's scale


@dataclass(frozen=True)
class OptimizerSettings:
    """Optimizer and learning-rate schedule, stepped every batch."""

    name: OptimizerName = "sgd"
    """sgd (with Nesterov momentum), adamw, or muon (Jordan et al. 2024): orthogonalised momentum for the matrices and
    filters within a network, and AdamW for its first layer, heads, biases, norms and λ. Muon's steps have the size of
    AdamW's (Liu et al. 2025), so lr and weight_decay are those of adamw. timm's Muon, whose step of a matrix is that of
    torch.optim.Muon, which takes no filters."""
    lr: float = 0.1
    """Peak learning rate, above 0."""
    lr_per_batch: int | None = None
    """Images per step for which lr is meant, at least 1. With another training.batch_size the peak is lr times their
    ratio with sgd (Goyal et al. 2017), and times its square root with adamw and muon (Malladi et al. 2022, and timm's
    choice too); it is printed, and stored in environment.json. null: lr is used as it is, whatever the batch."""
    momentum: float = 0.9
    """Momentum of sgd (0.9 is usual), or of muon (0.95 is), in [0, 1)."""
    weight_decay: float = 5e-4
    """Decay of weights of two or more dimensions, at least 0; biases, norms, tokens and λ never decay."""
    layer_decay: float | None = None
    """Factor of the learning rate from each layer of backbone and encoder to the layer before it, in (0, 1]; heads and
    λ keep the full rate. For fine-tuning: early layers of pretrained weights are general (Clark et al. 2020; Bao et al.
    2021 use 0.65 to 0.75 for ViTs). Layers are timm's. null for none."""
    schedule: Literal["cosine", "one_cycle", "constant"] = "cosine"
    """After the warm-up: cosine to 0, the one-cycle policy (Smith & Topin 2018), or constant. The one-cycle policy is
    PyTorch's `OneCycleLR`: by cosines from 1/25 of the peak up to it, then down to 1/250,000 of it; momentum stays."""
    warmup: float = 0.05
    """Share of all steps over which the learning rate rises, in [0, 1); one_cycle needs more than 0."""
    clip_norm: float | None = None
    """Largest norm of the gradient, above 0, for each branch and λ by itself; null for no clipping."""
    ema: float | None = None
    """Decay per step of a moving average of the weights, in (0, 1). The average is evaluated and saved in place of
    the weights. null for none."""

    def __post_init__(self) -> None:
        settle(self)
        check_positive(self, "lr", "clip_norm")
        check_at_least(1, self, "lr_per_batch")
        check_share(self, "momentum", "warmup")
        check_not_negative(self, "weight_decay")
        check_rule(self, ("layer_decay",), lambda decay: 0 < decay <= 1, "lie in (0, 1]")
        if self.schedule == "one_cycle" and self.warmup == 0:
            raise SettingError("warmup", "must be positive with schedule one_cycle, not 0 (0.3 is usual)")
        check_rule(self, ("ema",), lambda decay: 0 < decay < 1, "lie in (0, 1)")

    def peak_lr(self, batch_size: int) -> float:
        """The peak learning rate with batches of `batch_size` images; see `lr_per_batch`."""
        if self.lr_per_batch is None:
            return self.lr
        ratio = batch_size / self.lr_per_batch
        return self.lr * (ratio if self.name == "sgd" else ratio**0.5)

    def describe_lr(self, batch_size: int) -> str:
        """The peak learning rate, and how it follows from `lr_per_batch`, in a line."""
        peak = f"learning rate {self.peak_lr(batch_size):.4g}"
        if self.lr_per_batch is None:
            return peak
        ratio = f"{batch_size} / {self.lr_per_batch}"
        return f"{peak} = {self.lr:g} · {ratio if self.name == 'sgd' else f'√({ratio})'} images per step"
