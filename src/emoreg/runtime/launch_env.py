"""Detects processes that torchrun, srun or another launcher has started together."""

from __future__ import annotations

import os

from emoreg.errors import UserError

# Variables that other launchers set, the number of processes and the rank first: Open MPI, and MPICH with what is made
# from it; what starts processes for torch.distributed as DeepSpeed does. All of them must be there.
OTHERS = {
    "mpirun": (("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"), ("PMI_SIZE", "PMI_RANK")),
    "a launcher that sets WORLD_SIZE": (("WORLD_SIZE", "RANK", "LOCAL_RANK"),),
}


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
    if processes() > 1:
        return _number("RANK" if _is_torchrun() else "SLURM_PROCID")
    other = _other()
    return 0 if other is None else other[1]


def refuse_launchers(what: str) -> None:
    """UserError if this is one of several processes that were started together, by whichever launcher.

    Args:
        what: the end of a sentence about what is not for them, and what there is instead.
    """
    if processes() > 1:
        raise UserError(f"{'torchrun' if _is_torchrun() else 'srun'} has started {processes()} processes: {what}")
    refuse_other_launchers(what)


def refuse_other_launchers(what: str) -> None:
    """As `refuse_launchers`, unless the launcher is torchrun or srun, whose processes can share a run."""
    if processes() == 1 and (other := _other()) is not None:
        name, _, size = other
        raise UserError(f"{name} has started {size} processes: {what}")


def _other() -> tuple[str, int, int] | None:
    """Another launcher of several processes, with this one's rank and their number; None if there is none."""
    for name, sets in OTHERS.items():
        for size, own, *more in sets:
            if _number(size) > 1 and all(variable in os.environ for variable in (own, *more)):
                return name, _number(own), _number(size)
    return None


def _number(variable: str) -> int:
    """The value of a variable; 0 without it, and where it is no number."""
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else 0


def _is_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ
