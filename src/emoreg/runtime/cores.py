"""The part of a machine that this process may use, which under schedulers and in containers is not all of it."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

_part = Fraction(1)  # what this process takes of what it may use


def usable_cores(root: Path = Path("/")) -> int:
    """Threads, or worker processes, that it is sensible for this process to start: at least 1.

    As many as `allowed_cores`, of which this process has its part (`take_part`), and no more than OMP_NUM_THREADS where
    that is set.

    Args:
        root: where /proc and /sys are.
    """
    own = max(1, math.floor(allowed_cores(root) * _part))
    asked = re.match(r"\s*(\d+)", os.environ.get("OMP_NUM_THREADS", ""))  # "4,2" is for nested levels
    return min(own, int(asked[1])) if asked is not None and int(asked[1]) > 0 else own


def allowed_cores(root: Path = Path("/")) -> int:
    """Cores that the system lets this process use: the fewer of its CPU affinity (taskset, SLURM, cpusets) and its
    cgroup's CPU quota, rounded up (docker --cpus, Kubernetes).

    Args:
        root: where /proc and /sys are.
    """
    has_affinity = hasattr(os, "sched_getaffinity")  # Linux
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(quota) for quota in _cpu_quotas(root))]))


def usable_memory(root: Path = Path("/")) -> float:
    """Bytes of memory that this process may use: the machine's, or its cgroup's limit; infinite if unknown.

    Of these, this process's part, see `take_part`.

    Args:
        root: where /proc and /sys are.
    """
    allowed = list(_memory_limits(root))
    with contextlib.suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        allowed.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return float(min(allowed, default=math.inf) * _part)


def take_part(part: Fraction) -> None:
    """From here on this process takes only so much of the cores and of the memory, as others take the rest.

    Args:
        part: above 0, at most 1.
    """
    global _part  # noqa: PLW0603  # of the process, as the cores are
    _part = part


def _cpu_quotas(root: Path) -> Iterator[float]:
    """The quotas of this process's cgroup and of those around it, in cores."""
    for folder in _cgroups(root, "cpu"):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = map(float, (folder / "cpu.max").read_text().split())  # "max 100000" without a limit
            yield quota / period
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            quota = float((folder / "cpu.cfs_quota_us").read_text())
            if quota > 0:  # -1 without a limit
                yield quota / float((folder / "cpu.cfs_period_us").read_text())


def _memory_limits(root: Path) -> Iterator[int]:
    """The limits of this process's cgroup and of those around it, in bytes."""
    for folder in _cgroups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):  # without a limit "max", or more than any machine has
            with contextlib.suppress(OSError, ValueError):
                yield int((folder / name).read_text())


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's cgroups, of version 2 and 1, that may limit what a controller controls."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not on Linux
        return
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if not controllers:  # version 2
            top = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / controllers
        else:
            continue
        # In a container the path may be that of the host, while its own cgroup is mounted at the top.
        place = Path(own.lstrip("/"))
        yield from (top / each for each in (place, *place.parents) if (top / each).is_dir())
