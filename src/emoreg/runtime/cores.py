"""The cores and memory that this process may use; schedulers and containers may limit them."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

_part = Fraction(1)  # this process's part of the cores and memory that it may use


def usable_cores(root: Path = Path("/")) -> int:
    """Number of threads or worker processes that this process should start, at least 1.

    This process's part (`take_part`) of `allowed_cores`, and at most OMP_NUM_THREADS if that is set.

    Args:
        root: the folder that contains /proc and /sys.
    """
    cores = max(1, math.floor(allowed_cores(root) * _part))
    limit = re.match(r"\s*(\d+)", os.environ.get("OMP_NUM_THREADS", ""))  # "4,2" is for nested levels
    return min(cores, int(limit[1])) if limit is not None and int(limit[1]) > 0 else cores


def allowed_cores(root: Path = Path("/")) -> int:
    """Number of cores that the system lets this process use.

    The minimum of its CPU affinity (taskset, SLURM, cpusets) and its cgroup's CPU quota, rounded up (docker --cpus,
    Kubernetes).

    Args:
        root: the folder that contains /proc and /sys.
    """
    has_affinity = hasattr(os, "sched_getaffinity")  # Linux
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(quota) for quota in _cpu_quotas(root))]))


def usable_memory(root: Path = Path("/")) -> float:
    """Memory that this process may use, in bytes; infinite if unknown.

    This process's part (`take_part`) of the machine's memory or of its cgroup's limit.

    Args:
        root: the folder that contains /proc and /sys.
    """
    allowed = list(_memory_limits(root))
    with contextlib.suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        allowed.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return float(min(allowed, default=math.inf) * _part)


def take_part(part: Fraction) -> None:
    """Restrict this process to a part, in (0, 1], of its cores and memory, because other processes use the rest."""
    global _part  # noqa: PLW0603  # cores and memory belong to the whole process
    _part = part


def _cpu_quotas(root: Path) -> Iterator[float]:
    """Yield the CPU quotas of this process's cgroup and its parents, in cores."""
    for folder in _cgroups(root, "cpu"):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = map(float, (folder / "cpu.max").read_text().split())  # "max 100000" without a limit
            yield quota / period
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            quota = float((folder / "cpu.cfs_quota_us").read_text())
            if quota > 0:  # -1 without a limit
                yield quota / float((folder / "cpu.cfs_period_us").read_text())


def _memory_limits(root: Path) -> Iterator[int]:
    """Yield the memory limits of this process's cgroup and its parents, in bytes."""
    for folder in _cgroups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):  # without a limit: "max", or a huge number
            with contextlib.suppress(OSError, ValueError):
                yield int((folder / name).read_text())


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's cgroups, version 1 or 2, that may have limits of a controller."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            top = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / controllers
        else:
            continue
        # In a container the path may be the host's, while the container's cgroup is mounted at the top.
        cgroup = Path(path.lstrip("/"))
        yield from (top / folder for folder in (cgroup, *cgroup.parents) if (top / folder).is_dir())
