"""Checkpoints: everything needed to resume training exactly, even in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from emoreg.errors import UserError, shortened
from emoreg.runs.readers import refuse_non_finite, with_constant_lambda
from emoreg.runs.run import CHECKPOINT, Run
from emoreg.runtime.seeding import derive_seed
from emoreg.training.launch import RunContext
from emoreg.training.step import TrainState

GeneratorStates = dict[str, Tensor]  # of one process: "cpu", and "cuda" or "mps" on a GPU


@dataclass
class EpochProgress:
    """The progress within an epoch. Order and augmentation need no state: they follow from (seed, epoch).

    Args:
        steps: done so far.
        seconds: spent so far.
        losses: one per step (S,), float32 on the device; 0 for steps to come.
        generators: states of each process's random generators; empty at the start of an epoch.
    """

    steps: int
    seconds: float
    losses: Tensor
    generators: Sequence[GeneratorStates] = ()


@dataclass
class History:
    """The progress of a training.

    Args:
        rows: metrics, one row per finished epoch.
        seconds: spent on the finished epochs.
        interrupted: the epoch in which training stopped; None if it stopped between epochs.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: EpochProgress | None = None

    def steps_done(self, steps: int) -> int:
        """Number of steps done, at `steps` per epoch."""
        return len(self.rows) * steps + (self.interrupted.steps if self.interrupted else 0)

    def begin_epoch(self, seed: int, steps: int, device: torch.device, rank: int) -> EpochProgress:
        """Seed PyTorch's default generators for the next epoch, or restore those of the interrupted one.

        Dropout, stochastic depth, a random λ and rotations draw from these generators. Each process has its own
        streams; rank 0 has those of a run on one process.
        """
        own = (rank,) if rank else ()
        torch.manual_seed(derive_seed(seed, "dropout", len(self.rows), *own))
        epoch, self.interrupted = self.interrupted, None
        if epoch is None:
            return EpochProgress(0, 0.0, torch.zeros(steps, device=device))
        if rank < len(epoch.generators):  # a run that resumes on more processes has no states for the new ones
            states = epoch.generators[rank]
            torch.set_rng_state(states["cpu"])
            if device.type == "cuda" and "cuda" in states:  # the run may have been stopped on another device
                torch.cuda.set_rng_state(states["cuda"], device)
            elif device.type == "mps" and "mps" in states:
                torch.mps.set_rng_state(states["mps"])
        return epoch

    def add(self, row: dict[str, float]) -> None:
        """Append the row of a finished epoch."""
        self.rows.append(row)
        self.seconds += row["seconds"]


def save(context: RunContext[Any], state: TrainState, history: History, epoch: EpochProgress | None = None) -> None:
    """Write the checkpoint, after an epoch or in the middle of one. Every process must call it; the leader writes.

    Raises:
        UserError: the checkpoint cannot be written; the previous one is kept.
    """
    begun = None
    if epoch is not None:
        device = epoch.losses.device
        own = {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            own["cuda"] = torch.cuda.get_rng_state(device)
        elif device.type == "mps":
            own["mps"] = torch.mps.get_rng_state()
        generators = state.processes.gather(own)
        begun = {"steps": epoch.steps, "seconds": epoch.seconds, "losses": epoch.losses.cpu(), "draws": generators}
    if context.is_leader:
        parts = {name: part.state_dict() for name, part in state.parts.items()}
        context.run.save_checkpoint({**parts, "rows": history.rows, "seconds": history.seconds, "begun": begun})


def restore(run: Run, state: TrainState, steps: int) -> History:
    """Load the run's checkpoint into the state, if there is one.

    Args:
        run: whose checkpoint is read.
        state: changed in place.
        steps: per epoch.

    Returns:
        The history in the checkpoint; an empty one if there is no checkpoint.

    Raises:
        UserError: the checkpoint is damaged, of another model, or of other images.
    """
    saved = run.load_checkpoint()
    if saved is None:
        return History()
    path = run.folder / CHECKPOINT
    try:
        history = _history(saved, state.fabric.device)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); delete it to start this run over") from None
    try:
        for name, part in state.parts.items():
            if isinstance(part, nn.Module):
                weights = with_constant_lambda(saved[name])
                refuse_non_finite(path, weights)
                part.load_state_dict(weights)
                continue
            is_optimizer = isinstance(part, Optimizer)
            own = _with_current_kernels(part, saved[name]) if is_optimizer else saved[name]
            part.load_state_dict(_with_same_types(part.state_dict(), own, name))
            if is_optimizer:
                _check_optimizer(part)
    except UserError:
        raise
    except Exception as error:  # load_state_dict raises almost anything for a state that does not fit
        detail = shortened(str(error), 300)
        raise UserError(f"{run.folder}: its checkpoint is of another model ({detail}); give the same one") from None
    if history.interrupted is not None and len(history.interrupted.losses) != steps:
        raise UserError(
            f"{path} was saved in an epoch of {len(history.interrupted.losses)} steps, and now one has {steps}: the "
            "images are not the same; choose another folder with --out, or delete that one"
        )
    return history


def _with_current_kernels(optimizer: Optimizer, saved: Any) -> Any:
    """Replace the choice of kernels in an optimiser's saved state, since it depends on the current device."""
    groups = saved.get("param_groups") if isinstance(saved, dict) else None
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        return saved  # `_with_same_types` raises the error
    current = optimizer.param_groups[0]
    kernels = {name: current[name] for name in ("fused", "capturable") if name in current}
    return saved | {"param_groups": [group | kernels for group in groups]}


def _history(saved: Mapping[str, Any], device: torch.device) -> History:
    """Read the history in a checkpoint. Raise ValueError if anything has another type than expected."""
    rows, seconds, begun = saved.get("rows"), saved.get("seconds"), saved.get("begun")
    if not isinstance(rows, list) or not all(_is_row(row) for row in rows):
        raise ValueError("'rows' does not hold metrics")
    if not isinstance(seconds, int | float):
        raise ValueError("'seconds' is not a number")
    if begun is None:
        return History(rows, seconds)
    if not isinstance(begun, dict) or begun.keys() != {"steps", "seconds", "losses", "draws"}:
        raise ValueError("'begun' does not describe an epoch")
    steps, losses, draws = begun["steps"], begun["losses"], begun["draws"]
    if not isinstance(losses, Tensor) or losses.ndim != 1 or losses.dtype != torch.float32:
        raise ValueError("'begun.losses' does not hold losses")
    if not isinstance(begun["seconds"], int | float) or type(steps) is not int or not 0 <= steps <= len(losses):
        raise ValueError("'begun.steps' is not a number of steps")
    try:
        draws = draws or ()
        for states in draws:
            dtypes = {state.dtype for state in states.values()}
            if not states.keys() <= {"cpu", "cuda", "mps"} or dtypes != {torch.uint8}:
                raise TypeError
            torch.Generator().set_state(states["cpu"])
    except (AttributeError, KeyError, TypeError, RuntimeError):
        raise ValueError("'begun.draws' does not hold states of random generators") from None
    return History(rows, seconds, EpochProgress(steps, begun["seconds"], losses.to(device), draws))


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and all(
        isinstance(key, str) and isinstance(value, int | float) for key, value in row.items()
    )


def _with_same_types(own: Any, saved: Any, name: str) -> Any:
    """Return the saved state restricted to the keys of `own`, after checking that values have the same types.

    torch's `load_state_dict` does not check this: a schedule sets every key as an attribute, even over a method, and
    an optimiser accepts every value as a number.

    Raises:
        ValueError: a value has another type; names it.
    """
    if isinstance(own, dict):
        if isinstance(saved, dict):
            if name == "optimizer.state":  # empty before the first step; see `_check_optimizer`
                return saved
            return {key: _with_same_types(own[key], saved[key], f"{name}.{key}") for key in own if key in saved}
    elif isinstance(own, list | tuple):
        if isinstance(saved, list | tuple) and len(saved) == len(own):
            return type(own)(_with_same_types(*pair, name) for pair in zip(own, saved, strict=True))
    elif isinstance(saved, int | float) if type(own) in (int, float) else type(saved) is type(own):
        return saved
    raise ValueError(f"{name} has another type")


def _check_optimizer(optimizer: Optimizer) -> None:
    """Raise ValueError for optimiser state that would fail in the first step."""
    names = {"step", "exp_avg", "exp_avg_sq"}
    if isinstance(optimizer, SGD):
        names = {"momentum_buffer"}
    elif not isinstance(optimizer, AdamW):  # Muon
        names |= {"momentum_buffer", "use_muon"}
    for parameter, state in optimizer.state.items():
        if not state.keys() <= names:
            raise ValueError(f"the optimizer state has the names {', '.join(map(str, state))}")
        for name, value in state.items():
            is_tensor = isinstance(value, Tensor) and (not value.ndim or value.shape == parameter.shape)
            if not is_tensor and value is not None and not (name == "use_muon" and isinstance(value, bool)):
                raise ValueError(f"{name} of the optimizer does not have its parameter's shape")
