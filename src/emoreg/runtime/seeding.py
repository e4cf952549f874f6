"""Seeds for separate purposes, derived from the single seed of a run.

Two runs with the same seed draw the same weights, splits, order and augmentation, whatever else differs. This makes
arms comparable in pairs.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator

import torch
from numpy.random import PCG64, mtrand


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a seed in [0, 2**63) for `purpose`, independent of the seeds for other purposes."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator for `purpose`."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


@contextlib.contextmanager
def drawn_from(seed: int, *purpose: str | int) -> Iterator[None]:
    """Seed PyTorch's global CPU generator for `purpose`, and restore it afterwards.

    For libraries that initialise weights from the global generator. Unlike `torch.manual_seed`, it leaves the
    generators of GPUs alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, *purpose))
        yield


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Restore the global generators of PyTorch, on every device, of NumPy and of Python afterwards."""
    cpu, numpy, python = torch.get_rng_state(), mtrand.get_state(), random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        mtrand.set_state(numpy)
        random.setstate(python)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        elif torch.cuda.is_initialized():  # in the block: seed as if the caller were the first to use a GPU
            torch.cuda.manual_seed_all(torch.initial_seed())
        if mps is not None:
            torch.mps.set_rng_state(mps)


@contextlib.contextmanager
def numpy_drawn_from(seed: int, *purpose: str | int) -> Iterator[None]:
    """Like `drawn_from`, but seed NumPy's global generator."""
    before = mtrand.get_bit_generator()
    mtrand.set_bit_generator(PCG64(derive_seed(seed, *purpose)))
    try:
        yield
    finally:
        mtrand.set_bit_generator(before)
