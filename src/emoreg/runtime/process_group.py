"""The processes that share a run, seen from one of them. One that is alone does nothing differently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, distributed, nn

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")


class Team:
    """All of them have to call its methods at the same moments.

    Args:
        fabric: launched; it knows how many they are. None for one that is alone.
    """

    def __init__(self, fabric: Fabric | None = None) -> None:
        self.rank = fabric.global_rank if fabric else 0
        self.size = fabric.world_size if fabric else 1
        # What is asked by way of the processors makes no one wait for a device.
        self._by_processors: Any = distributed.new_group(backend="gloo") if self.size > 1 else None

    @property
    def share(self) -> tuple[int, int]:
        """Of each batch: (which, of how many) parts."""
        return self.rank, self.size

    def weighted(self, loss: Tensor, images: int, batch_size: int) -> Tensor:
        """The mean loss of a part of a batch, so that its mean over the team is that of the batch.

        Args:
            loss: a scalar, the mean over the part.
            images: of the part; parts may differ by one.
            batch_size: images of the batch.
        """
        return loss if images * self.size == batch_size else loss * (images * self.size / batch_size)

    def mean(self, value: Tensor) -> Tensor:
        """Of what each gives, a scalar on its device."""
        if self.size == 1:
            return value
        total = value.clone()
        distributed.all_reduce(total)
        return total / self.size

    def any_says(self, said: bool) -> bool:
        """Whether one of them says so."""
        if self.size == 1:
            return said
        flag = torch.tensor(float(said))
        distributed.all_reduce(flag, distributed.ReduceOp.MAX, self._by_processors)
        return bool(flag)

    def gather(self, own: T) -> list[T]:
        """What each gives, by rank."""
        if self.size == 1:
            return [own]
        everyone: list[Any] = [None] * self.size
        distributed.all_gather_object(everyone, own, self._by_processors)
        return everyone

    def share_norms(self, model: nn.Module, device: torch.device) -> None:
        """Let batch norm see the whole batch, in place; PyTorch can on GPUs only.

        A frozen part is left as it is: it takes nothing from the batch.
        """
        if self.size == 1 or device.type != "cuda":
            return
        for name, child in model.named_children():
            if any(parameter.requires_grad for parameter in child.parameters()):
                setattr(model, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
