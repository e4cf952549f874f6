"""Seeds for separate purposes, derived from the one seed of a run.

Two runs with the same seed draw the same weights, splits, order and augmentation for each purpose, however they
differ otherwise. This makes arms comparable pair by pair.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator

import torch
from numpy.random import PCG64, mtrand


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed in [0, 2**63) for `purpose`, independent of that for any other purpose."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for `purpose`."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


@contextlib.contextmanager
def drawn_from(seed: int, *purpose: str | int) -> Iterator[None]:
    """Within, torch's global CPU generator is seeded for `purpose`; afterwards it is as it was.

    For libraries that initialise weights from the global generator. Those of GPUs are left alone, which
    `torch.manual_seed` would seed too.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, *purpose))
        yield


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Afterwards the global generators of PyTorch, on every device, of NumPy and of Python are as they were."""
    states = torch.get_rng_state(), mtrand.get_state(), random.getstate()
    of_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    of_mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        mtrand.set_state(states[1])
        random.setstate(states[2])
        if of_cuda is not None:
            torch.cuda.set_rng_state_all(of_cuda)
        elif torch.cuda.is_initialized():  # meanwhile: as when the caller first uses a GPU
            torch.cuda.manual_seed_all(torch.initial_seed())
        if of_mps is not None:
            torch.mps.set_rng_state(of_mps)


@contextlib.contextmanager
def numpy_drawn_from(seed: int, *purpose: str | int) -> Iterator[None]:
    """As `drawn_from`, of NumPy's global generator, for libraries that draw from it."""
    before = mtrand.get_bit_generator()
    mtrand.set_bit_generator(PCG64(derive_seed(seed, *purpose)))
    try:
        yield
    finally:
        mtrand.set_bit_generator(before)
