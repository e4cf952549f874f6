"""Lightning Fabric for a recipe: device, precision, and the process-wide switches that go with them."""

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

# Values of oneDNN's own variable, which keeps it from newer instructions: those with which it computes in no bfloat16.
ONEDNN_LIMIT = "ONEDNN_MAX_CPU_ISA"
WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")


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

    device = device_kind(training, devices)
    prepare_process(training, device)
    if resolve_precision(training, device) == "bf16-mixed":
        from emoreg.training.autocast import Autocast

        options["plugins"] = [*options.get("plugins", ()), Autocast("bf16-mixed", device)]
    return Fabric(accelerator=device, devices=devices, **options)


def device_kind(training: TrainingSettings, devices: int) -> Literal["cpu", "cuda", "mps"]:
    """The kind of device that a run is trained on. UserError if there is none here, or fewer than `devices`."""
    device = first_device() if training.device == "auto" else training.device
    if not is_available(device):
        raise UserError(f"training.device is {device}, but PyTorch finds none here; use auto or cpu")
    count = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device, devices)
    if devices > count:
        raise UserError(f"training.devices is {devices}, but PyTorch finds {count} here of the kind {device}")
    return device


def place(model: M, fabric: Fabric) -> M:
    """The model, in place on Fabric's device, with the attention that is fastest there.

    PyTorch's fused attention is slow in bfloat16 on CPUs: forward and backward pass of a layer take two to six times as
    long as with matrix products and a softmax, which timm has beside it (PyTorch 2.14; docs/speed.md).

    Raises:
        SettingError: it is in double precision.
    """
    require_single(model, "model")
    with fabric.autocast():
        is_fused_slow = fabric.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    for settings in map(vars, model.modules()):
        if settings.get("fused_attn"):  # timm's name, in all of its kinds of attention
            settings |= {"fused_attn": not is_fused_slow, "can_be_fused": True}
        elif settings.get("can_be_fused"):  # it was placed before
            settings["fused_attn"] = not is_fused_slow
    return model.to(fabric.device)


def is_available(device: str) -> bool:
    """Whether PyTorch finds a device of this kind (cpu, cuda or mps)."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return available.get(device, False)


def first_device() -> Literal["cpu", "cuda", "mps"]:
    """The kind of device that training.device auto stands for: the first accelerator, or else the CPU."""
    return "cuda" if is_available("cuda") else "mps" if is_available("mps") else "cpu"


def resolve_precision(training: TrainingSettings, device: str) -> Precision:
    """The precision that training.precision asks for; "auto" depends on the device (cpu, cuda or mps).

    It depends on what the device can do, not on a measurement, so that all runs of a study come out alike.
    """
    if training.precision != "auto":
        return training.precision
    if device == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if device == "cpu" and _processor_has_bf16() else "32-true"


def _processor_has_bf16() -> bool:
    """Whether oneDNN, which convolves and multiplies on CPUs, computes in bfloat16 rather than emulates it.

    Processors of other makes than x86 have not been measured.
    """
    if not hasattr(torch.cpu, "get_capabilities"):  # an older PyTorch does not tell
        return False
    can = torch.cpu.get_capabilities()
    limit = os.environ.get(ONEDNN_LIMIT, "").upper()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16")) and limit not in WITHOUT_BF16


def settled(recipe: Recipe, run: Run) -> TrainingSettings:
    """How a run is trained: as its recipe says, and on from where it is in the precision in which it was begun.

    `auto` may have stood for another one then: on another machine, or with an earlier emoreg, for which it was 32-true
    on every CPU, as it is in the first edition.
    """
    training = recipe.training
    if training.precision != "auto":
        return training
    begun = run.precision if run.has_begun else None
    device = first_device() if training.device == "auto" else training.device
    if begun is None and recipe.edition == 1 and device == "cpu":
        begun = "32-true"
    return training if begun is None else replace(training, precision=begun)


def scoring(recipe: Recipe, run: Run, device: Device) -> TrainingSettings:
    """How a finished run is scored on a device: not in bfloat16 if it was trained, and scored, in float32.

    The other way round it is scored in what `auto` stands for here, as emulated bfloat16 is slow.
    """
    training = settled(recipe, run)
    may_change = recipe.training.precision == "auto" and training.precision == "bf16-mixed"
    return replace(training, device=device, precision="auto" if may_change else training.precision)


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
