"""Detects processes that torchrun or srun has started to share a run."""

from __future__ import annotations

import os


def processes() -> int:
    """Number of processes on all machines; 1 if neither torchrun nor srun has started this one."""
    if _is_torchrun():
        return int(os.environ.get("WORLD_SIZE", "1"))
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))  # set by srun, not in the batch script itself


def machines() -> int:
    """Number of machines. Each has the same number of processes."""
    if _is_torchrun():
        return processes() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return int(os.environ.get("SLURM_STEP_NUM_NODES", "1"))


def rank() -> int:
    """Rank of this process, from 0. Rank 0 leads."""
    return int(os.environ.get("RANK" if _is_torchrun() else "SLURM_PROCID", "0")) if processes() > 1 else 0


def _is_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ
