"""Turns what would end a training with a traceback, or make it worthless, into actionable messages."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from emoreg.config.training import TrainingSettings
from emoreg.data.images.batches import Batch
from emoreg.data.images.image_set import ImageSet
from emoreg.data.images.table import name_image
from emoreg.errors import Diverged, SettingError, UserError, shortened
from emoreg.runs.readers import non_finite
from emoreg.runtime.quiet_libraries import errors_only
from emoreg.training.step import LossOf

MAX_NAMED = 5  # images of a batch that a message names


def check_losses(losses: Tensor, batches: Callable[..., Iterator[Batch]], images: ImageSet, epoch: int) -> None:
    """Stop at the first loss that is not finite.

    Args:
        losses: of the epoch's steps so far (S,).
        batches: gives the epoch's batches again, from number `done` on.
        images: training images.
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
        f"the loss became {losses[step].item()} in step {step + 1} of epoch {epoch + 1}, at the images "
        f"{_names(images, rows)} of {images.table.name}"
    )


def check_weights(model: nn.Module, epoch: int) -> None:
    """Stop where the last step of an epoch has left weights that are not finite; its loss was computed before it.

    Args:
        model: the one that would be kept.
        epoch: from 0.

    Raises:
        Diverged: weights are not finite; names them.
    """
    if (name := non_finite(model.state_dict())) is not None:
        raise Diverged(f"{name} is not finite after epoch {epoch + 1}")


def _names(images: ImageSet, rows: list[int]) -> str:
    more = f" and {len(rows) - MAX_NAMED} more" if len(rows) > MAX_NAMED else ""
    return ", ".join(name_image(images.table.images, row) for row in rows[:MAX_NAMED]) + more


def refuse_too_many_parts(batch_size: int, processes: int, training: TrainingSettings) -> None:
    """Refuse to accumulate over parts some of which would have no image.

    Args:
        batch_size: images in a step, which may be fewer than training.batch_size where there are few images.
        processes: that share them.
        training: accumulate is used.

    Raises:
        SettingError: names how many parts there may be.
    """
    most = batch_size // processes
    if training.accumulate > max(most, 1):
        shared = f" on {processes} processes" if processes > 1 else ""
        reason = f"must be at most {most} here, not {training.accumulate}: a step has {batch_size} images{shared}"
        raise SettingError("training.accumulate", reason)


def refuse_single_images(
    model: nn.Module, loss_of: LossOf, first: Batch, images: ImageSet, training: TrainingSettings
) -> None:
    """Refuse steps on one image where the network has none of it: batch norm of maps of one pixel.

    Args:
        model: tried on a copy, which is trained in nothing.
        loss_of: mean loss of (model, batch); of one that is a module a copy is tried too.
        first: the first batch, or this process's part of it. Nothing is tried if it holds several images.
        images: training images.
        training: batch_size and devices are named.

    Raises:
        UserError: the network can be trained on two images, but not on one; names what to change.
    """
    if len(first.rows) > 1:
        return
    tried = copy.deepcopy(model).train()
    loss_of = copy.deepcopy(loss_of)
    pair = first._replace(**{key: torch.cat([part, part]) for key, part in first._asdict().items() if part is not None})
    with torch.no_grad():
        try:
            loss_of(tried, first)
        except ValueError:
            loss_of(tried, pair)  # what fails here too has nothing to do with the number
        else:
            return
    reason = "this network normalises over the values of a step, and finds only one per channel"
    if len(images) == 1:
        raise UserError(f"{images.table.name} leaves one image to train on, but {reason}: give at least two")
    size = training.batch_size
    if training.accumulate > 1:
        leaves = f"{training.accumulate} leaves one image to some part of a step, but {reason}: give each at least two"
        raise SettingError("training.accumulate", leaves)
    if size > 1:
        raise SettingError(
            "training.batch_size", f"{size} leaves one image to some process, but {reason}: give each at least two"
        )
    raise SettingError("training.batch_size", f"must be at least 2, not 1: {reason} at {images.image_size} pixels")


def refuse_without_compiler(training: TrainingSettings, device: torch.device) -> None:
    """Raise SettingError if training.compile is true and PyTorch can compile nothing here; tries a small function."""
    if not training.compile:
        return
    try:
        with errors_only("torch.utils.cpp_extension"):  # it warns where there is no CUDA
            torch.compile(_small)(torch.zeros(64, device=device))
    except Exception as error:  # by the version of PyTorch and by what is missing: a compiler, headers, a folder
        reason = shortened(str(error) or type(error).__name__, 200)
        raise SettingError(
            "training.compile",
            f"is true, but PyTorch cannot compile for {device.type} here ({reason}): set it to false, or install a "
            "compiler (g++ or clang)",
        ) from None


def _small(x: Tensor) -> Tensor:
    return x.sin() + 1


@contextlib.contextmanager
def explain_out_of_memory(training: TrainingSettings) -> Iterator[None]:
    """Raise UserError with the setting to lower if a device or the machine runs out of memory within."""
    try:
        yield
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        size = training.batch_size
        parts = 2 * training.accumulate
        if parts * training.devices <= size:
            hint = (
                f"set training.accumulate to {parts} (now {training.accumulate}), or training.batch_size to {size // 2}"
            )
            hint += f" (now {size})"
        else:
            hint = f"set training.batch_size to {size // 2} (now {size})" if size > 1 else "choose a smaller network"
        raise UserError(f"out of memory on {training.device} in a training step: {hint}") from None


def _is_out_of_memory(error: RuntimeError) -> bool:
    # PyTorch has a type for accelerators only; its allocator for CPUs raises a plain RuntimeError with this message.
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)
