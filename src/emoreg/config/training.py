"""Settings of training duration, batches and devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from emoreg.config.rules import check_at_least, check_not_negative, check_rule
from emoreg.config.setting_types import settle
from emoreg.errors import SettingError

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["32-true", "bf16-mixed"]
TrackerName = Literal["tensorboard", "mlflow", "wandb"]


@dataclass(frozen=True)
class TrainingSettings:
    """Duration, batch size, device and precision."""

    epochs: int = 100
    """Passes over the training images, at least 1."""
    batch_size: int = 128
    """Images per step, at least 1."""
    accumulate: int = 1
    """Number of parts into which each batch is split, at most batch_size / devices. Their gradients are accumulated for
    one step of the optimiser, so memory is needed for one part only. Steps, schedule, order and learning rate stay
    those of batch_size, and so do the gradients, up to rounding. But batch norm takes its statistics from each part, as
    on several devices (ghost batch norm, Hoffer et al. 2017), and dropout and a random λ are drawn for each part."""
    device: Device = "auto"
    """auto: the first accelerator, or else the CPU."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """auto: bf16-mixed on GPUs and on CPUs with AVX512-BF16 or AMX, which compute in bf16 and train convolutional
    networks 1.4 to 2.8 times as fast; else 32-true. A run resumes, and is scored, in the precision it started in."""
    compile: bool = False
    """torch.compile the model together with its loss, on GPUs with CUDA graphs. Pays off there over many epochs, and
    over the many runs of a study: later runs reuse what the first compiled."""
    cuda_graphs: bool = False
    """On one NVIDIA GPU: capture the whole training step, optimiser included, once, and replay it (docs/speed.md). Same
    results up to rounding; saves small networks the time that Python takes to launch kernels. Not yet measured on a
    GPU, therefore off by default. If steps cannot be captured, a printed line says why."""
    initial_scale: float = 1.0
    """Progressive resizing: side of the first images as a share of image_size, 0.25 to 1. The side grows in steps of
    4 pixels over the first 80 % of the steps. Below 1 training is faster and gives different results; networks with a
    fixed input size (ViTs) refuse it."""
    deterministic: bool = False
    """On GPUs: use only deterministic kernels, which are slower. CPUs are always deterministic."""
    memory_limit_gib: float = 4.0
    """Image sets up to this size in GiB, and up to half of the memory available to this process, are decoded once and
    kept in memory. Larger ones are decoded every epoch by worker processes, or read from their pack (emoreg data pack).
    """
    devices: int = 1
    """Devices of this machine that share each batch, one process each, at most batch_size (docs/scale.md). Ignored
    under torchrun and srun, which start the processes themselves, on one machine or several."""
    trackers: tuple[TrackerName, ...] = ("tensorboard",)
    """Where to log each epoch's metrics in addition to the run folder's own files: a list of tensorboard (event files
    in the run folder), mlflow and wandb; [] for nowhere."""

    def __post_init__(self) -> None:
        settle(self)
        check_at_least(1, self, "epochs", "batch_size", "accumulate")
        check_rule(self, ("initial_scale",), lambda scale: 0.25 <= scale <= 1, "lie in [0.25, 1]")
        check_not_negative(self, "memory_limit_gib")
        rule = f"be at least 1 and at most training.batch_size ({self.batch_size})"
        check_rule(self, ("devices",), lambda devices: 1 <= devices <= self.batch_size, rule)
        if self.accumulate * self.devices > self.batch_size:
            parts = self.batch_size // self.devices
            reason = f"must be at most batch_size / devices ({parts}), not {self.accumulate}: a part needs an image"
            raise SettingError("accumulate", reason)
