"""Memory that training frees is kept for its next step, instead of being given back to the system."""

from __future__ import annotations

import ctypes
import os

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> None:
    """Raise glibc's thresholds for this process; elsewhere, or where its user set them, do nothing.

    Each step frees activations of the same sizes that the next one asks for. glibc would map and unmap each of
    them, and the kernel fill its pages with zeros: a good part of a small network's step on a CPU (docs/speed.md).
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
