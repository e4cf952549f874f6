"""All that a restart needs to go on as if training had never stopped, also in the middle of an epoch."""

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
from emoreg.runtime.process_group import Team
from emoreg.runtime.seeding import derive_seed


@dataclass
class BegunEpoch:
    """How far an epoch is. Order and augmentation need no state: they follow from (seed, epoch)."""

    steps: int  # done
    seconds: float  # spent
    losses: Tensor  # of the steps (S,), on the device; 0 for those to come
    draws: Sequence[dict[str, Any]] | None = None  # where each process's generators are; None at the beginning


@dataclass
class Position:
    """Where training is.

    Args:
        parts: model, optimiser, schedule and, where there is one, the average of the weights, by name.
        rows: metrics, one an epoch that is done.
        seconds: spent training in those.
        begun: the epoch that was stopped in the middle, if one was.
        team: of the processes that share the run.
    """

    parts: dict[str, Any]
    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    begun: BegunEpoch | None = None
    team: Team = field(default_factory=Team)
    place: str = ""  # of the checkpoint that was taken up, for messages

    def restore(self, run: Run, device: torch.device) -> None:
        """Take up what the run's checkpoint holds, if it has one.

        Raises:
            UserError: the checkpoint is damaged, or of another model.
        """
        saved = run.load_checkpoint()
        if saved is None:
            return
        self.place = str(run.folder / CHECKPOINT)
        try:
            _check_position(saved)
        except ValueError as error:
            raise UserError(f"{self.place} is damaged ({error}); delete it to start this run anew") from None
        try:
            for name, part in self.parts.items():
                state = saved[name]
                if isinstance(part, nn.Module):
                    state = with_constant_lambda(state)
                    refuse_non_finite(self.place, state)
                else:
                    state = _fitted(state, part.state_dict(), name)
                part.load_state_dict(state)
                if isinstance(part, Optimizer):
                    _refuse_misshapen(part)
            self.rows, self.seconds = saved["rows"], saved["seconds"]
            self.begun = BegunEpoch(**saved["begun"]) if saved.get("begun") else None
        except UserError:
            raise
        except Exception as error:  # of a state that fits nothing the parts make almost anything
            detail = shortened(str(error), 300)
            raise UserError(f"{run.folder}: its checkpoint is of another model ({detail}); give the same one") from None
        if self.begun is not None:
            self.begun.losses = self.begun.losses.to(device)

    def steps_done(self, steps: int) -> int:
        """Of all epochs, where each has `steps`."""
        return len(self.rows) * steps + (self.begun.steps if self.begun else 0)

    def save(self, run: Run, begun: BegunEpoch | None = None) -> None:
        """Write the checkpoint: after an epoch, or in the middle of the one that was begun."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        epoch = None
        if begun is not None:
            device = begun.losses.device
            own = {"cpu": torch.get_rng_state()}
            if device.type == "cuda":
                own["cuda"] = torch.cuda.get_rng_state(device)
            draws = self.team.gather(own)
            epoch = {"steps": begun.steps, "seconds": begun.seconds, "losses": begun.losses.cpu(), "draws": draws}
        run.save_checkpoint({**state, "rows": self.rows, "seconds": self.seconds, "begun": epoch})

    def begin_epoch(self, seed: int, epoch: int, steps: int, device: torch.device) -> BegunEpoch:
        """A new epoch, torch's default generators seeded for it; or the one that was begun, with its draws.

        Each process draws for its own images; the first one as one process alone does.
        """
        rank = self.team.rank
        own = (rank,) if rank else ()
        torch.manual_seed(derive_seed(seed, "dropout", epoch, *own))  # stochastic depth, drawn λ, rotations too
        begun, self.begun = self.begun, None
        if begun is None:
            return BegunEpoch(0, 0.0, torch.zeros(steps, device=device))
        if len(begun.losses) != steps:
            raise UserError(
                f"{self.place} was saved in an epoch of {len(begun.losses)} steps, and now one has {steps}: the images "
                "are not the same; choose another folder with --out, or delete that one"
            )
        if begun.draws is not None and rank < len(begun.draws):  # of more processes than before, some begin anew
            torch.set_rng_state(begun.draws[rank]["cpu"])
            if "cuda" in begun.draws[rank]:
                torch.cuda.set_rng_state(begun.draws[rank]["cuda"], device)
        return begun


def _check_position(saved: Mapping[str, Any]) -> None:
    """ValueError for a checkpoint that holds no position in a training."""
    rows, seconds, begun = saved.get("rows"), saved.get("seconds"), saved.get("begun")
    if not isinstance(rows, list) or not all(_is_row(row) for row in rows):
        raise ValueError("rows are no metrics")
    if not isinstance(seconds, int | float):
        raise ValueError("seconds are no number")
    if not begun:
        return
    if not isinstance(begun, dict) or begun.keys() != {"steps", "seconds", "losses", "draws"}:
        raise ValueError("the epoch that was begun is none")
    steps, losses, draws = begun["steps"], begun["losses"], begun["draws"]
    if not isinstance(losses, Tensor) or losses.ndim != 1 or losses.dtype != torch.float32:
        raise ValueError("the losses of the epoch that was begun are none")
    if not isinstance(begun["seconds"], int | float) or type(steps) is not int or not 0 <= steps <= len(losses):
        raise ValueError("the steps of the epoch that was begun are none")
    try:
        if draws is not None:
            for own in draws:
                if not own.keys() <= {"cpu", "cuda"} or any(state.dtype != torch.uint8 for state in own.values()):
                    raise TypeError
                torch.Generator().set_state(own["cpu"])
    except (AttributeError, KeyError, TypeError, RuntimeError):
        raise ValueError("the state of the random generators is none") from None


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and all(
        isinstance(key, str) and isinstance(value, int | float) for key, value in row.items()
    )


def _fitted(saved: Any, own: Any, place: str) -> Any:
    """A saved state with no more names in it than one's own has, and with values of the same kind.

    What torch's load_state_dict does not look at: a schedule takes every name for an attribute of its own, its methods
    too, and an optimiser every value for a number.

    Raises:
        ValueError: a value is of another kind; says where.
    """
    if isinstance(own, dict):
        if isinstance(saved, dict):
            if place == "optimizer.state":  # empty before the first step; see `_refuse_misshapen`
                return saved
            return {key: _fitted(saved[key], value, f"{place}.{key}") for key, value in own.items() if key in saved}
    elif isinstance(own, list | tuple):
        if isinstance(saved, list | tuple) and len(saved) == len(own):
            return type(own)(_fitted(*both, place) for both in zip(saved, own, strict=True))
    elif isinstance(saved, int | float) if type(own) in (int, float) else type(saved) is type(own):
        return saved
    raise ValueError(f"{place} is not of the same kind")


NAMES = {SGD: {"momentum_buffer"}, AdamW: {"step", "exp_avg", "exp_avg_sq"}}  # of what an optimiser remembers


def _refuse_misshapen(optimizer: Optimizer) -> None:
    """ValueError for what an optimiser cannot remember of its parameters: the first step would meet it."""
    for parameter, state in optimizer.state.items():
        if not state.keys() <= NAMES.get(type(optimizer), state.keys()):
            raise ValueError(f"the optimizer remembers {', '.join(map(str, state))}")
        for name, value in state.items():
            is_tensor = isinstance(value, Tensor) and (not value.ndim or value.shape == parameter.shape)
            if not is_tensor and value is not None:
                raise ValueError(f"{name} of the optimizer is not of its parameter's shape")
