"""What to do when the memory of a device or of the machine does not suffice."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from emoreg.errors import UserError

T = TypeVar("T")

# PyTorch has an exception for some accelerators only. Otherwise it raises a RuntimeError, and libraries that load files
# raise errors of their own, with one of these words.
MESSAGES = (
    "out of memory",  # of MPS, and of a driver of CUDA or HIP, if another process took the memory
    "can't allocate memory",  # of PyTorch's DefaultCPUAllocator
    "not enough memory",  # of the same on Windows
    "cannot allocate memory",  # of the operating system
    "invalid buffer size",  # of a tensor that is larger than Metal allows
    "status_alloc_failed",  # of cuBLAS and cuSOLVER, which allocate memory of their own
)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of Python, PyTorch or another library says that a device or the machine is out of memory."""
    is_typed = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return is_typed or any(message in str(error).lower() for message in MESSAGES)


def in_halves(compute: Callable[[slice], T], batch: slice, device: torch.device) -> list[T]:
    """Compute something for a batch of images, in halves of halves if it does not fit into memory.

    Args:
        compute: maps a part of the images to its result.
        batch: all of the images, such as slice(0, B).
        device: where it is computed; for the error.

    Returns:
        The results of the parts, in order; one if the batch fits.

    Raises:
        UserError: one image alone does not fit.
    """
    try:
        return [compute(batch)]
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if batch.stop - batch.start == 1:
            remedy = "" if device.type == "cpu" else "; choose the CPU as device"
            raise UserError(f"{device} has too little memory for one image{remedy}") from None
    middle = (batch.start + batch.stop) // 2  # outside of the handler, whose error keeps tensors
    parts = slice(batch.start, middle), slice(middle, batch.stop)
    return [result for part in parts for result in in_halves(compute, part, device)]
