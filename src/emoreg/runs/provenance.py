"""The environment of a run: time, command, versions, git revision and hardware."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from emoreg.runtime.cores import allowed_cores
from emoreg.runtime.places import without_folders

RECORDED = ("emoreg", "torch", "torchvision", "timm", "lightning-fabric", "numpy", "pillow")


def environment() -> dict[str, Any]:
    """Return time, command (without folders), versions, git revision and hardware of this process."""
    import torch

    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": without_folders(sys.argv),
        "git": _git_revision(),
        "python": platform.python_version(),
        "packages": {name: package_version(name) for name in RECORDED},
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": allowed_cores(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def package_version(name: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _git_revision() -> str | None:
    """Return the revision of emoreg's source, with "-dirty" if it was edited since; None outside a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parents[1]), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", __file__)  # fails if site-packages is inside another project's checkout
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


@functools.cache
def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
