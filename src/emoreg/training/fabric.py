"""Lightning Fabric for a recipe: device, precision, and the process-wide switches that go with them."""

from __future__ import annotations

import logging
import os
import warnings
from typing import TYPE_CHECKING, Any, Literal

import torch

from emoreg.config.training import TrainingSettings
from emoreg.errors import UserError
from emoreg.runtime.cores import usable_cores
from emoreg.runtime.malloc import keep_freed_memory
from emoreg.runtime.optional import import_fabric

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def make_fabric(training: TrainingSettings, devices: int = 1, **options: Any) -> Fabric:
    """Fabric for one device, or for several of this machine.

    Args:
        training: device, precision and determinism are used.
        devices: how many; training.devices is ignored.
        options: passed on to Fabric.

    Raises:
        UserError: the device is not available, or there are fewer than `devices`.
    """
    import_fabric()
    from lightning_fabric import Fabric

    device = first_device() if training.device == "auto" else training.device
    if not is_available(device):
        raise UserError(f"training.device is {device}, but PyTorch finds none here; use auto or cpu")
    count = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device, devices)
    if devices > count:
        raise UserError(f"training.devices is {devices}, but PyTorch finds {count} here of the kind {device}")
    prepare_process(training, device)
    precision = resolve_precision(training, device)
    return Fabric(accelerator=device, devices=devices, precision=precision, **options)


def is_available(device: str) -> bool:
    """Whether PyTorch finds a device of this kind (cpu, cuda or mps)."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return available.get(device, False)


def first_device() -> Literal["cpu", "cuda", "mps"]:
    """The kind of device that training.device auto stands for: the first accelerator, or else the CPU."""
    return "cuda" if is_available("cuda") else "mps" if is_available("mps") else "cpu"


def resolve_precision(training: TrainingSettings, device: str) -> Literal["32-true", "bf16-mixed"]:
    """The precision that training.precision asks for; "auto" depends on the device (cpu, cuda or mps)."""
    if training.precision != "auto":
        return training.precision
    return "bf16-mixed" if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"


def prepare_process(training: TrainingSettings, device: str) -> None:
    """Set PyTorch's process-wide switches for training on a device (cpu, cuda or mps)."""
    if torch.get_num_threads() > usable_cores():  # PyTorch heeds affinity and OMP_NUM_THREADS, but no cgroup's quota
        torch.set_num_threads(usable_cores())
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning_fabric")
    if device == "cpu":
        keep_freed_memory()
    torch.backends.cudnn.benchmark = not training.deterministic  # a run's images have one size, or a few
    if training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by PyTorch for deterministic cuBLAS
        torch.use_deterministic_algorithms(True)
