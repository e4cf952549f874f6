"""Actionable errors for trainings that would end with a traceback or be worthless."""

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
from emoreg.errors import Diverged, SettingError, UserError, first_few, shortened
from emoreg.runs.readers import non_finite
from emoreg.runtime.out_of_memory import is_out_of_memory
from emoreg.runtime.quiet_libraries import errors_only
from emoreg.training.step import Objective


def check_losses(losses: Tensor, batches: Callable[..., Iterator[Batch]], images: ImageSet, epoch: int) -> None:
    """Raise Diverged if a loss is not finite; names the step and its images.

    Args:
        losses: of the epoch's steps so far (S,).
        batches: iterates over the epoch's batches again, from number `done` on.
        images: training images.
        epoch: from 0.
    """
    wrong = (~torch.isfinite(losses)).nonzero()
    if not len(wrong):
        return
    step = int(wrong[0])
    rows = next(batches(done=step)).rows.tolist()
    names = first_few([name_image(images.table.images, row) for row in rows], most=5)
    raise Diverged(
        f"the loss became {losses[step].item()} in step {step + 1} of epoch {epoch + 1}, at the images "
        f"{names} of {images.table.name}"
    )


def check_weights(model: nn.Module, last: str) -> None:
    """Raise Diverged if weights that are to be saved are not finite: the last loss was computed before the last step.

    Args:
        model: the one that would be kept.
        last: what was done last, such as "epoch 3".
    """
    if (name := non_finite(model.state_dict())) is not None:
        raise Diverged(f"{name} is not finite after {last}")


def refuse_too_many_parts(batch_size: int, processes: int, training: TrainingSettings) -> None:
    """Raise SettingError if accumulation would divide a step into parts without images.

    Args:
        batch_size: images in a step; less than training.batch_size if there are fewer images.
        processes: number of processes that share a step.
        training: accumulate is used.
    """
    most = batch_size // processes
    if training.accumulate > max(most, 1):
        shared = f" on {processes} processes" if processes > 1 else ""
        reason = f"must be at most {most} here, not {training.accumulate}: a step has {batch_size} images{shared}"
        raise SettingError("training.accumulate", reason)


def refuse_single_images(objective: Objective, first: Batch, images: ImageSet, training: TrainingSettings) -> None:
    """Refuse steps on one image if the network cannot train on one, such as with batch norm on maps of one pixel.

    Args:
        objective: copies of its model and loss are tried.
        first: the first batch, or this process's part of it. Nothing is tried if it has several images.
        images: training images.
        training: batch_size and accumulate are used.

    Raises:
        UserError: the network can train on two images but not on one; names the setting to change.
    """
    if len(first.rows) > 1:
        return
    model, loss_of = copy.deepcopy(objective.model).train(), copy.deepcopy(objective.loss_of)
    pair = first._replace(**{key: torch.cat([part, part]) for key, part in first._asdict().items() if part is not None})
    with torch.no_grad():
        try:
            loss_of(model, first)
        except ValueError:
            loss_of(model, pair)  # if this fails too, the number of images is not the reason
        else:
            return
    reason = "this network normalises over the values of a step, and finds only one per channel"
    if len(images) == 1:
        raise UserError(f"{images.table.name} leaves one image to train on, but {reason}: give at least two")
    key, size, mend = "training.batch_size", training.batch_size, f"but {reason}: give each at least two"
    if training.accumulate > 1:
        fault = f"{training.accumulate} leaves one image to some part of a step, {mend}"
        raise SettingError("training.accumulate", fault)
    if size > 1:
        raise SettingError(key, f"{size} leaves one image to some process, {mend}")
    raise SettingError(key, f"must be at least 2, not 1: {reason} at {images.image_size} pixels")


def refuse_without_compiler(training: TrainingSettings, device: torch.device) -> None:
    """Raise SettingError if training.compile is true but PyTorch cannot compile a small function here."""
    if not training.compile:
        return
    try:
        with errors_only("torch.utils.cpp_extension"):  # it warns if there is no CUDA
            torch.compile(_small)(torch.zeros(64, device=device))
    except Exception as error:  # depends on PyTorch's version and on what is missing: a compiler, headers, a folder
        reason = shortened(str(error) or type(error).__name__, 200)
        raise SettingError(
            "training.compile",
            f"is true, but PyTorch cannot compile for {device.type} here ({reason}): set it to false, or install a "
            "compiler (g++ or clang)",
        ) from None


def _small(x: Tensor) -> Tensor:
    return x.sin() + 1


@contextlib.contextmanager
def explain_out_of_memory(training: TrainingSettings, device: torch.device) -> Iterator[None]:
    """Raise UserError with the setting to lower if a device or the machine runs out of memory."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        size, parts = training.batch_size, 2 * training.accumulate
        hint = f"training.batch_size to {size // 2} (now {size})"
        if parts * training.devices <= size:
            hint = f"set training.accumulate to {parts} (now {training.accumulate}), or {hint}"
        else:
            hint = f"set {hint}" if size > 1 else "choose a smaller network"
        raise UserError(f"out of memory on {device.type} in a training step: {hint}") from None
