"""Training that goes wrong, told so that something can be done about it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from emoreg.config.schema import TrainingSettings
from emoreg.data.images.batches import Batch
from emoreg.data.images.image_set import ImageSet
from emoreg.data.images.table import name_image
from emoreg.errors import UserError
from emoreg.training.checkpoint import BegunEpoch

NAMED = 5  # images of a batch that a message lists


def check_losses(
    begun: BegunEpoch, batches: Callable[..., Iterator[Batch]], images: ImageSet, folder: Path, epoch: int
) -> None:
    """Stop at the first loss that is not finite.

    Args:
        begun: the epoch.
        batches: its batches from number `done` on, as they were.
        images: that they come from.
        folder: of the run.
        epoch: from 0.

    Raises:
        UserError: it names the step and the images.
    """
    losses = begun.losses[: begun.steps]
    wrong = (~torch.isfinite(losses)).nonzero()
    if not len(wrong):
        return
    step = int(wrong[0])
    rows = next(batches(done=step)).rows.tolist()
    raise UserError(
        f"{folder}: the loss became {losses[step].item()} in step {step + 1} of epoch {epoch + 1}, at the images "
        f"{_names(images, rows)}; lower optimizer.lr, or set optimizer.clip_norm or optimizer.warmup (the last good "
        "epoch is kept)"
    )


def _names(images: ImageSet, rows: list[int]) -> str:
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return ", ".join(name_image(images.table.images, row) for row in rows[:NAMED]) + more


@contextlib.contextmanager
def memory_told(training: TrainingSettings) -> Iterator[None]:
    """Say which setting to lower when the memory is full. Raises UserError."""
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        size = training.batch_size
        hint = f"set training.batch_size to {size // 2} (now {size})" if size > 1 else "choose a smaller network"
        raise UserError(f"the memory of {training.device} is not enough for a step of training: {hint}") from None
