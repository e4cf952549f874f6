"""The training loop of both stages. Everything about emotion is in the objective and the score."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from emoreg.data.images.augment import resize
from emoreg.data.images.batches import SetQuota, split_batch, steps_per_epoch, training_batches
from emoreg.data.images.image_set import ImageSet
from emoreg.runtime.progress import figure
from emoreg.runtime.signals import Stopped, deferred
from emoreg.training.captured_step import make_step
from emoreg.training.checkpoint import restore, save
from emoreg.training.diagnostics import (
    check_losses,
    check_weights,
    explain_out_of_memory,
    refuse_single_images,
    refuse_too_many_parts,
    refuse_without_compiler,
)
from emoreg.training.launch import RunContext
from emoreg.training.progressive_resizing import progressive_size, refuse_fixed_size
from emoreg.training.step import Objective, make_state

Score = Callable[[nn.Module], dict[str, float]]


def fit(
    context: RunContext[Any],
    objective: Objective,
    images: ImageSet,
    score: Score,
    mixture: Sequence[SetQuota] = (),
    observe: Callable[[], None] | None = None,
) -> tuple[nn.Module, float]:
    """Train a model in place, from the run's checkpoint if there is one.

    Every process of a run calls it with its own copy of the model.

    Args:
        context: the run; its recipe's augment, optimizer, training and seed are used.
        objective: the model and its loss.
        images: training images, on the device.
        score: returns metrics of a model for an epoch's row; called in the leading process only.
        mixture: images drawn from each set per epoch, if `images` joins several sets.
        observe: called in the leading process in the last step of each epoch, before `score`, when gradients are those
            of the loss over all processes and not yet clipped.

    Returns:
        The model to keep (the average of the weights if the recipe has one) and the seconds spent training.

    Raises:
        UserError: a loss or weight is not finite; out of memory; the checkpoint does not fit the model.
        Stopped: Ctrl-C or a signal requested to stop; the checkpoint includes the last step.
    """
    fabric, run, recipe, progress = context.fabric, context.run, context.recipe, context.progress
    training, seed, is_on_cpu = recipe.training, recipe.seed, fabric.device.type == "cpu"
    refuse_without_compiler(training, fabric.device)
    steps, batch_size = steps_per_epoch(len(images), training.batch_size), min(training.batch_size, len(images))
    all_steps = steps * training.epochs
    state = make_state(fabric, objective, recipe, batch_size, all_steps)
    processes, step = state.processes, make_step(state)
    history = restore(run, state, steps)
    refuse_fixed_size(objective.model, images.image_size, training)
    refuse_too_many_parts(batch_size, processes.size, training)
    if batch_size < 2 * processes.size * training.accumulate:
        first = next(training_batches(images, batch_size, recipe.augment, seed, 0, mixture, part=processes.share))
        refuse_single_images(objective, split_batch(first, training.accumulate)[0], images, training)
    context.track(history.rows)
    if training.cuda_graphs and state.uncaptured is not None:
        progress.say(f"{run.folder.name}: steps are not captured as CUDA graphs: {state.uncaptured}")
    if recipe.optimizer.lr_per_batch is not None:
        progress.detail(f"{run.folder.name}: {recipe.optimizer.describe_lr(training.batch_size)}")
    with (
        progress.task(f"train {run.folder.name}", all_steps, "steps", history.steps_done(steps)) as advance,
        deferred() as is_asked_to_stop,
    ):
        for epoch in range(len(history.rows), training.epochs):
            current = history.begin_epoch(seed, steps, fabric.device, processes.rank)
            state.loss_module.train()
            start = time.perf_counter() - current.seconds
            batches = partial(training_batches, images, training.batch_size, recipe.augment, seed, epoch, mixture)
            with explain_out_of_memory(training, fabric.device):  # not around the score: its advice does not apply
                for batch in batches(done=current.steps, part=processes.share):
                    if objective.prepare is not None:
                        objective.prepare((epoch * steps + current.steps) / all_steps, state.optimizer.optimizer)
                    size = progressive_size(images.image_size, training, epoch + current.steps / steps)
                    watch = observe if context.is_leader and current.steps + 1 == steps else None
                    resized = batch._replace(images=resize(batch.images, size))
                    current.losses[current.steps] = step(resized, watch)
                    current.steps += 1
                    advance(1)
                    stops = processes.any(is_asked_to_stop()) and current.steps < steps
                    if is_on_cpu or stops or current.steps == steps:  # on a GPU, reading a loss waits for the step
                        check_losses(current.losses[: current.steps], batches, images, epoch)
                    if stops:
                        check_weights(state.kept, f"step {current.steps} of epoch {epoch + 1}")
                        current.seconds = time.perf_counter() - start
                        save(context, state, history, current)
                        raise Stopped
            check_weights(state.kept, f"epoch {epoch + 1}")
            seconds = time.perf_counter() - start
            row = {
                "epoch": epoch + 1,
                "train_loss": current.losses.mean().item(),
                "lr": state.lr,
                "seconds": seconds,
                "images_per_second": steps * batch_size / seconds,
                **(score(state.kept) if context.is_leader else {}),
            }
            history.add(row)
            save(context, state, history)
            context.track(history.rows)
            progress.detail(_epoch_line(row, training.epochs))
            if processes.any(is_asked_to_stop()):
                raise Stopped
    return state.kept, history.seconds


def _epoch_line(row: Mapping[str, float], epochs: int) -> str:
    width = len(str(epochs))
    hidden = ("epoch", "lr", "seconds", "images_per_second", "gradient_", "norm_")  # prefixes of names
    metrics = "  ".join(f"{key} {figure(value)}" for key, value in row.items() if not key.startswith(hidden))
    return f"epoch {int(row['epoch']):{width}}/{epochs}  {metrics}  {row['images_per_second']:,.0f} images/s"
