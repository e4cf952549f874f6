"""Whether torchrun or srun has started this process as one of several that share a run."""

from __future__ import annotations

import os


def processes() -> int:
    """How many there are, on all machines; 1 where neither has started them."""
    if _is_by_torchrun():
        return int(os.environ.get("WORLD_SIZE", "1"))
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))  # of srun; a batch script itself has none


def machines() -> int:
    """On how many machines they are, the same number on each."""
    if _is_by_torchrun():
        return processes() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return int(os.environ.get("SLURM_STEP_NUM_NODES", "1"))


def rank() -> int:
    """Which of them this one is, from 0; the first one leads."""
    return int(os.environ.get("RANK" if _is_by_torchrun() else "SLURM_PROCID", "0")) if processes() > 1 else 0


def _is_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ
