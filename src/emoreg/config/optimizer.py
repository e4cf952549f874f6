"""Settings of the optimiser and its learning-rate schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from emoreg.config.rules import check_at_least, check_not_negative, check_positive, check_rule, check_share
from emoreg.config.setting_types import settle
from emoreg.errors import SettingError

OptimizerName = Literal["sgd", "adamw", "muon"]
SCALE_FREE: Mapping[str, str] = {"adamw": "AdamW", "muon": "Muon"}  # optimisers insensitive to the scale of the loss


@dataclass(frozen=True)
class OptimizerSettings:
    """Optimiser and learning-rate schedule, which advances every batch."""

    name: OptimizerName = "sgd"
    """sgd (with Nesterov momentum), adamw, or muon (Jordan et al. 2024): orthogonalised momentum for the matrices and
    filters inside a network, and AdamW for its first layer, heads, biases, norms and λ. Muon's steps have the size of
    AdamW's (Liu et al. 2025), so use the lr and weight_decay of adamw. It is timm's Muon, which equals torch.optim.Muon
    on matrices and also takes filters."""
    lr: float = 0.1
    """Peak learning rate, above 0."""
    lr_per_batch: int | None = None
    """Images per step that lr was chosen for, at least 1. With another training.batch_size the peak is lr times their
    ratio for sgd (Goyal et al. 2017), or its square root for adamw and muon (Malladi et al. 2022; timm does the same);
    it is printed, and stored in environment.json. null: lr is used as it is, whatever the batch size."""
    momentum: float = 0.9
    """Momentum of sgd (0.9 is usual) or muon (0.95 is usual), in [0, 1)."""
    weight_decay: float = 5e-4
    """Weight decay, at least 0, of parameters with two or more dimensions; biases, norms, tokens and λ never decay."""
    layer_decay: float | None = None
    """Factor, in (0, 1], by which the learning rate shrinks from each layer of backbone and encoder to the layer before
    it; heads and λ keep the full rate. For fine-tuning: early layers of pretrained networks are general (Clark et al.
    2020; Bao et al. 2021 use 0.65 to 0.75 for ViTs). Layers are as timm groups them. null for none."""
    schedule: Literal["cosine", "one_cycle", "constant"] = "cosine"
    """cosine (to 0) or constant, after the warm-up; or the one-cycle policy (Smith & Topin 2018) by PyTorch's
    `OneCycleLR`: a cosine from 1/25 of the peak up to it, then one down to 1/250,000 of it, with constant momentum."""
    warmup: float = 0.05
    """Share of all steps over which the learning rate rises, in [0, 1); one_cycle needs more than 0."""
    clip_norm: float | None = None
    """Maximum gradient norm, above 0, applied to each branch and to λ separately; null for no clipping."""
    ema: float | None = None
    """Decay per step, in (0, 1), of an exponential moving average of the weights, which is evaluated and saved instead
    of the weights. null for none."""

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
        """Return the peak learning rate for batches of `batch_size` images; see `lr_per_batch`."""
        if self.lr_per_batch is None:
            return self.lr
        ratio = batch_size / self.lr_per_batch
        return self.lr * (ratio if self.name == "sgd" else ratio**0.5)

    def describe_lr(self, batch_size: int) -> str:
        """Describe the peak learning rate, and how it follows from `lr_per_batch`, in one line."""
        peak = f"learning rate {self.peak_lr(batch_size):.4g}"
        if self.lr_per_batch is None:
            return peak
        ratio = f"{batch_size} / {self.lr_per_batch}"
        if self.name != "sgd":
            ratio = f"√({ratio})"
        return f"{peak} = {self.lr:g} · {ratio} images per step"
