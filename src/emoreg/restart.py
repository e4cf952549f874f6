"""All that a restart needs to go on as if training had never stopped, also in the middle of an epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from emoreg.errors import UserError
from emoreg.run import Run


@dataclass
class BegunEpoch:
    """How far an epoch is. Order and augmentation need no state: they follow from (seed, epoch)."""

    steps: int  # done
    seconds: float  # spent
    losses: Tensor  # of the steps (S,), on the device; 0 for those to come
    draws: dict[str, Any] | None = None  # where torch's default generators are; None at the beginning


@dataclass
class Position:
    """Where training is.

    Args:
        parts: model, optimiser, schedule and, where there is one, the average of the weights, by name.
        rows: metrics, one an epoch that is done.
        seconds: spent training in those.
        begun: the epoch that was stopped in the middle, if one was.
    """

    parts: dict[str, Any]
    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    begun: BegunEpoch | None = None

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

    def save(self, run: Run, begun: BegunEpoch | None = None) -> None:
        """Write the checkpoint: after an epoch, or in the middle of the one that was begun."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        epoch = None
        if begun is not None:
            draws = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}
            epoch = {"steps": begun.steps, "seconds": begun.seconds, "losses": begun.losses.cpu(), "draws": draws}
        run.save_checkpoint({**state, "rows": self.rows, "seconds": self.seconds, "begun": epoch})

    def begin_epoch(self, seed: int, steps: int, device: torch.device) -> BegunEpoch:
        """A new epoch, torch's default generators seeded for it; or the one that was begun, with its draws."""
        torch.manual_seed(seed)  # dropout, stochastic depth, drawn λ, rotations
        begun, self.begun = self.begun, None
        if begun is None:
            return BegunEpoch(0, 0.0, torch.zeros(steps, device=device))
        if begun.draws is not None:
            torch.set_rng_state(begun.draws["cpu"])
            if begun.draws["cuda"]:
                torch.cuda.set_rng_state_all(begun.draws["cuda"])
        return begun
