"""What a GPU would refuse or wait for, without a GPU: tensors on the meta device stand for tensors on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators.cpu import CPUAccelerator
from lightning_fabric.strategies.single_device import SingleDeviceStrategy
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("meta")  # reading a value there is an error
COPIES_OF_NUMBERS = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor}


class Copies(TorchFunctionMode):
    """Context that records in `found` the names of functions that copy Python numbers, or tensors to or from `GPU`."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        if func in COPIES_OF_NUMBERS or len({tensor.device for tensor in tensors}) > 1:
            self.found.append(func.__name__)
        return result


class AppleGPU(TorchFunctionMode):
    """Context in which `GPU` has no double precision, as Apple's GPUs, and zeros are read from it."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.cpu:
            return torch.zeros_like(args[0], device="cpu")
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.device == GPU and leaf.dtype == torch.float64:
                raise TypeError("the MPS framework doesn't support float64")
        return result


class _AnyDevice(CPUAccelerator):
    def setup_device(self, device: torch.device) -> None:
        pass


def gpu_fabric() -> Fabric:
    """A Fabric that trains on `GPU`."""
    return Fabric(strategy=SingleDeviceStrategy(GPU, accelerator=_AnyDevice()))
