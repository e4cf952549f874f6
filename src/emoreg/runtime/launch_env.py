"""Detection of processes that torchrun, srun or another launcher has started together."""

from __future__ import annotations

import os

from emoreg.errors import UserError

# Other launchers with the environment variables that all must be set, the number of processes and the rank first.
OTHERS = (
    ("mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),  # of Open MPI
    ("mpirun", "PMI_SIZE", "PMI_RANK"),  # of MPICH and its derivatives
    ("a launcher that sets WORLD_SIZE", "WORLD_SIZE", "RANK", "LOCAL_RANK"),  # for torch.distributed, as DeepSpeed's
)


def processes() -> int:
    """Number of processes on all machines; 1 if neither torchrun nor srun started this process."""
    if _is_torchrun():
        return int(os.environ.get("WORLD_SIZE", "1"))
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))  # set by srun, not in the batch script itself


def machines() -> int:
    """Number of machines, which all have the same number of processes."""
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
    """Raise UserError if any launcher started this process together with others.

    Args:
        what: the end of the message: what cannot be launched so, and the alternative.
    """
    if processes() > 1:
        raise UserError(f"{'torchrun' if _is_torchrun() else 'srun'} has started {processes()} processes: {what}")
    refuse_other_launchers(what)


def refuse_other_launchers(what: str) -> None:
    """Like `refuse_launchers`, but allow torchrun and srun, whose processes can share a run."""
    if processes() == 1 and (other := _other()) is not None:
        name, _, size = other
        raise UserError(f"{name} has started {size} processes: {what}")


def _other() -> tuple[str, int, int] | None:
    """Return another launcher's name, this process's rank and the number of processes; None if there is none."""
    for name, size, own_rank, *more in OTHERS:
        if _number(size) > 1 and all(variable in os.environ for variable in (own_rank, *more)):
            return name, _number(own_rank), _number(size)
    return None


def _number(variable: str) -> int:
    """Return the value of an environment variable as a number; 0 if it is unset or not a number."""
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else 0


def _is_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ
