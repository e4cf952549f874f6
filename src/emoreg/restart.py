"""All that a restart needs to go on as if training had never stopped, also in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from emoreg.errors import UserError
from emoreg.randomness import derive_seed
from emoreg.run import Run
from emoreg.team import Team


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

    def restore(self, run: Run, device: torch.device) -> None:
        """Take up what the run's checkpoint holds, if it has one.

        Raises:
            UserError: the checkpoint is damaged, or of another model.
        """
        saved = run.load_checkpoint()
        if saved is None:
            return
        try:
            for name, part in self.parts.items():
                part.load_state_dict(saved[name])
            self.rows, self.seconds = saved["rows"], saved["seconds"]
            self.begun = BegunEpoch(**saved["begun"]) if saved.get("begun") else None
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            detail = " ".join(str(error).split())
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
        if begun.draws is not None and rank < len(begun.draws):  # of more processes than before, some begin anew
            torch.set_rng_state(begun.draws[rank]["cpu"])
            if "cuda" in begun.draws[rank]:
                torch.cuda.set_rng_state(begun.draws[rank]["cuda"], device)
        return begun
