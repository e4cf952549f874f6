"""Collective operations for the processes that share a run; no-ops for a single process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")


class ProcessGroup:
    """All processes that share a run. Every process must call the same methods in the same order.

    Args:
        fabric: a launched Fabric, for rank and world size.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.rank: int = fabric.global_rank
        self.size: int = fabric.world_size
        # Flags and Python objects are exchanged between CPUs (gloo), so that this does not synchronise a GPU.
        self._on_cpu: Any = distributed.new_group(backend="gloo") if self.size > 1 else None

    @property
    def share(self) -> tuple[int, int]:
        """This process's part of each batch: (index, number of parts)."""
        return self.rank, self.size

    def weighted(self, loss: Tensor, images: int, batch_size: int) -> Tensor:
        """Weight the mean loss over a part of a batch so that the mean over processes is the batch's mean loss.

        Args:
            loss: scalar, the mean over this process's part.
            images: number of images in the part; parts may differ by one.
            batch_size: number of images in the batch.
        """
        return loss if images * self.size == batch_size else loss * (images * self.size / batch_size)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean over all processes of a scalar on their devices."""
        if self.size == 1:
            return value
        total = value.clone()
        distributed.all_reduce(total)
        return total / self.size

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.size == 1:
            return flag
        flags = torch.tensor(float(flag))
        distributed.all_reduce(flags, distributed.ReduceOp.MAX, self._on_cpu)
        return bool(flags)

    def gather(self, item: T) -> list[T]:
        """Return the objects of all processes, by rank."""
        if self.size == 1:
            return [item]
        items: list[Any] = [None] * self.size
        distributed.all_gather_object(items, item, self._on_cpu)
        return items

    def synchronise_batch_norm(self, model: nn.Module, device: torch.device) -> None:
        """Compute batch-norm statistics over the whole batch, in place; PyTorch supports it on CUDA only.

        Frozen children are left alone: their statistics do not depend on the batch.
        """
        if self.size == 1 or device.type != "cuda":
            return
        for name, child in model.named_children():
            if any(parameter.requires_grad for parameter in child.parameters()):
                setattr(model, name, synchronised(child))


def synchronised(network: nn.Module) -> nn.Module:
    """Return the network with synchronised batch norms that keep their parameters and buffers.

    The conversion expects weights that are parameters, so a weight that is a buffer, as in speednet, is one meanwhile.
    """
    from timm.layers import norm_act

    # PyTorch's conversion drops the activations of timm's norms.
    convert = cast(Callable[[nn.Module], nn.Module], norm_act.convert_sync_batchnorm)

    norms = {name: norm for name, norm in network.named_modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)}
    fixed = {name: norm.weight for name, norm in norms.items() if "weight" in norm._buffers}
    for name, weight in fixed.items():
        del norms[name].weight
        norms[name].weight = nn.Parameter(weight)
    network = convert(network)
    for name, weight in fixed.items():
        norm = network.get_submodule(name)
        del norm.weight
        norm.register_buffer("weight", weight)
    return network
