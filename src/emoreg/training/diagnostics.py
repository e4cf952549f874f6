"""Turns non-finite losses and weights, and out-of-memory errors, into actionable messages."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from emoreg.config.schema import TrainingSettings
from emoreg.data.images.batches import Batch
from emoreg.data.images.image_set import ImageSet
from emoreg.data.images.table import name_image
from emoreg.errors import Diverged, UserError
from emoreg.runs.readers import non_finite

MAX_NAMED = 5  # images of a batch that a message names
_REMEDY = "lower optimizer.lr, or set optimizer.clip_norm or optimizer.warmup (the last good epoch is kept)"


def check_losses(
    losses: Tensor, batches: Callable[..., Iterator[Batch]], images: ImageSet, folder: Path, epoch: int
) -> None:
    """Stop at the first loss that is not finite.

    Args:
        losses: of the epoch's steps so far (S,).
        batches: gives the epoch's batches again, from number `done` on.
        images: training images.
        folder: run folder.
        epoch: from 0.

    Raises:
        Diverged: a loss is not finite; names the step and its images.
    """
    wrong = (~torch.isfinite(losses)).nonzero()
    if not len(wrong):
        return
    step = int(wrong[0])
    rows = next(batches(done=step)).rows.tolist()
    raise Diverged(
        f"{folder}: the loss became {losses[step].item()} in step {step + 1} of epoch {epoch + 1}, at the images "
        f"{_names(images, rows)}; {_REMEDY}"
    )


def check_weights(model: nn.Module, folder: Path, epoch: int) -> None:
    """Stop where the last step of an epoch has left weights that are not finite; its loss was computed before it.

    Args:
        model: the one that would be kept.
        folder: run folder.
        epoch: from 0.

    Raises:
        Diverged: weights are not finite; names them.
    """
    if (name := non_finite(model.state_dict())) is not None:
        raise Diverged(f"{folder}: {name} is not finite after epoch {epoch + 1}; {_REMEDY}")


def _names(images: ImageSet, rows: list[int]) -> str:
    more = f" and {len(rows) - MAX_NAMED} more" if len(rows) > MAX_NAMED else ""
    return ", ".join(name_image(images.table.images, row) for row in rows[:MAX_NAMED]) + more


@contextlib.contextmanager
def explain_out_of_memory(training: TrainingSettings) -> Iterator[None]:
    """Raise UserError with the setting to lower if a device or the machine runs out of memory within."""
    try:
        yield
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        size = training.batch_size
        hint = f"set training.batch_size to {size // 2} (now {size})" if size > 1 else "choose a smaller network"
        raise UserError(f"out of memory on {training.device} in a training step: {hint}") from None


def _is_out_of_memory(error: RuntimeError) -> bool:
    # PyTorch has a type for accelerators only; its allocator for CPUs raises a plain RuntimeError with this message.
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)
