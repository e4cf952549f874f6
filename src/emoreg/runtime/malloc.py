"""Reuse of the memory that a training step frees, instead of returning it to the system."""

from __future__ import annotations

import ctypes
import os

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> None:
    """Raise glibc's malloc thresholds for this process, unless the environment sets them. No-op with other C libraries.

    Each step frees activations of the sizes that the next step allocates. By default glibc unmaps and maps them again,
    and the kernel zeroes their pages, which takes a good part of a small network's step on a CPU (docs/speed.md).
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # macOS, Windows, musl
        return
    mallopt(_M_MMAP_THRESHOLD, 512 * 2**20)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_TOP_PAD, 64 * 2**20)
