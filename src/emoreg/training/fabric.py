"""Lightning Fabric for a recipe: device, precision, and the process-wide switches that they need."""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import nn

from emoreg.config.recipe import Recipe
from emoreg.config.training import Device, Precision, TrainingSettings
from emoreg.errors import UserError
from emoreg.models.features import require_single
from emoreg.runs.run import Run
from emoreg.runtime.cores import usable_cores
from emoreg.runtime.malloc import keep_freed_memory
from emoreg.runtime.optional import import_fabric

if TYPE_CHECKING:
    from lightning_fabric import Fabric

M = TypeVar("M", bound=nn.Module)

ONEDNN_LIMIT = "ONEDNN_MAX_CPU_ISA"  # the environment variable that limits oneDNN's instructions
# Its values with which oneDNN does not compute in bfloat16.
WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")


def make_fabric(training: TrainingSettings, devices: int = 1, **options: Any) -> Fabric:
    """Make a Fabric for one or several devices of this machine.

    Args:
        training: device, precision and determinism are used.
        devices: number of devices, instead of training.devices.
        options: passed on to Fabric.

    Raises:
        UserError: the device is not available, or there are fewer than `devices`.
    """
    import_fabric()
    from lightning_fabric import Fabric

    device = device_kind(training, devices)
    prepare_process(training, device)
    if resolve_precision(training, device) == "bf16-mixed":
        from emoreg.training.autocast import Autocast

        options["plugins"] = [*options.get("plugins", ()), Autocast("bf16-mixed", device)]
    return Fabric(accelerator=device, devices=devices, **options)


def device_kind(training: TrainingSettings, devices: int) -> Literal["cpu", "cuda", "mps"]:
    """Return the kind of device to train on. Raise UserError if PyTorch finds fewer than `devices` of them."""
    device = first_device() if training.device == "auto" else training.device
    if not is_available(device):
        raise UserError(f"training.device is {device}, but PyTorch finds none here; use auto or cpu")
    count = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device, devices)
    if devices > count:
        raise UserError(f"training.devices is {devices}, but PyTorch finds {count} here of the kind {device}")
    return device


def place(model: M, fabric: Fabric) -> M:
    """Move a model in place to Fabric's device, with the attention that is fastest there; return it.

    PyTorch's fused attention is slow in bfloat16 on CPUs: forward and backward pass of a layer take two to six times as
    long as timm's alternative, matrix products and a softmax (PyTorch 2.14; docs/speed.md).

    Raises:
        SettingError: the model is in double precision.
    """
    require_single(model, "model")
    with fabric.autocast():
        is_fused_slow = fabric.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    for settings in map(vars, model.modules()):
        if settings.get("fused_attn"):  # the switch of all timm attention layers
            settings |= {"fused_attn": not is_fused_slow, "can_be_fused": True}
        elif settings.get("can_be_fused"):  # an earlier call switched it off
            settings["fused_attn"] = not is_fused_slow
    return model.to(fabric.device)


def is_available(device: str) -> bool:
    """Whether PyTorch finds a device of this kind (cpu, cuda or mps)."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return available.get(device, False)


def first_device() -> Literal["cpu", "cuda", "mps"]:
    """The kind of device that training.device auto stands for: the first accelerator, or else the CPU."""
    if is_available("cuda"):
        return "cuda"
    return "mps" if is_available("mps") else "cpu"


def resolve_precision(training: TrainingSettings, device: str) -> Precision:
    """Resolve training.precision; "auto" depends on the device (cpu, cuda or mps).

    It depends on the device's abilities, not on a measurement, so that all runs of a study have the same.
    """
    if training.precision != "auto":
        return training.precision
    if device == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if device == "cpu" and _processor_has_bf16() else "32-true"


def _processor_has_bf16() -> bool:
    """Whether oneDNN, PyTorch's library for CPUs, computes in bfloat16 instead of emulating it.

    Processors other than x86 have not been measured.
    """
    if not hasattr(torch.cpu, "get_capabilities"):  # an older PyTorch
        return False
    can = torch.cpu.get_capabilities()
    limit = os.environ.get(ONEDNN_LIMIT, "").upper()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16")) and limit not in WITHOUT_BF16


def training_settings(recipe: Recipe, run: Run) -> TrainingSettings:
    """Return the training settings of a run, which continues in the precision in which it was started.

    `auto` may have meant another one then: on another machine, or with an earlier emoreg, for which it was 32-true on
    every CPU, as it still is in the first edition.
    """
    training = recipe.training
    if training.precision != "auto":
        return training
    precision = run.precision if run.has_begun else None
    device = first_device() if training.device == "auto" else training.device
    if precision is None and recipe.edition == 1 and device == "cpu":
        precision = "32-true"
    return training if precision is None else replace(training, precision=precision)


def scoring_settings(recipe: Recipe, run: Run, device: Device) -> TrainingSettings:
    """Return the settings to score a finished run on a device: in float32 if it was trained in float32.

    A run that was trained in bfloat16 by `auto` is scored in what `auto` means here, as emulated bfloat16 is slow.
    """
    training = training_settings(recipe, run)
    may_change = recipe.training.precision == "auto" and training.precision == "bf16-mixed"
    return replace(training, device=device, precision="auto" if may_change else training.precision)


def prepare_process(training: TrainingSettings, device: str) -> None:
    """Set PyTorch's process-wide switches for training on a device (cpu, cuda or mps)."""
    if torch.get_num_threads() > usable_cores():  # PyTorch respects affinity and OMP_NUM_THREADS, but not cgroup quotas
        torch.set_num_threads(usable_cores())
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning_fabric")
    if device == "cpu":
        keep_freed_memory()
    torch.backends.cudnn.benchmark = not training.deterministic  # worthwhile, as images have one size or a few
    if training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by PyTorch for deterministic cuBLAS
        torch.use_deterministic_algorithms(True)
