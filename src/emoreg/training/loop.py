"""The training loop of both stages. It knows nothing of emotions; the objective and the score do."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from emoreg.config.schema import OptimizerSettings, Recipe, TrainingSettings
from emoreg.data.images.augment import resize
from emoreg.data.images.batches import Batch, SetQuota, steps_per_epoch, training_batches
from emoreg.data.images.image_set import ImageSet
from emoreg.errors import UserError
from emoreg.runs.run import Run
from emoreg.runtime.malloc import keep_freed_memory
from emoreg.runtime.process_group import Team
from emoreg.runtime.progress import Progress
from emoreg.runtime.signals import Stopped, deferred
from emoreg.training.checkpoint import Position
from emoreg.training.diagnostics import check_losses, memory_told

if TYPE_CHECKING:
    from lightning_fabric import Fabric

GROWING = 0.8  # share of the steps over which images grow in progressive resizing
STRIDE = 4  # pixels: by which they grow, so that two halvings leave whole maps

Score = Callable[[nn.Module], dict[str, float]]
Rows = Sequence[Mapping[str, float]]


def fit(
    model: nn.Module,
    loss_of: Callable[[nn.Module, Batch], Tensor],
    images: ImageSet,
    score: Score,
    recipe: Recipe,
    lr_factors: Mapping[str, float],
    run: Run,
    fabric: Fabric,
    progress: Progress,
    mixture: Sequence[SetQuota] = (),
    track: Callable[[Rows], None] = lambda rows: None,
) -> tuple[nn.Module, float]:
    """Train `model` in place, from the run's checkpoint if there is one.

    Where several processes share a run (see `devices`), each is here with its own copy of the model.

    Args:
        model: what is trained.
        loss_of: the loss, a scalar, of (model, batch).
        images: to train on, on the device.
        score: metrics of a model after each epoch, for the row of that epoch; asked where the run is written.
        recipe: its augment, optimizer, training and seed are used.
        lr_factors: multiples of the learning rate, by prefix of the parameters' names.
        run: where checkpoint and metrics go.
        fabric: device and precision.
        progress: told how far it is.
        mixture: how many of which images make an epoch, where they are of several sets.
        track: told the rows of all epochs so far, at the beginning and after each.

    Returns:
        The model to keep (the average of the weights where one was asked for) and the seconds spent training.

    Raises:
        UserError: the loss is no longer finite; the memory is full; the checkpoint is of another model.
        Stopped: a signal asked for it (see `stopping`); the checkpoint has all steps that are done.
    """
    training, seed = recipe.training, recipe.seed
    steps, batch_size = steps_per_epoch(len(images), training.batch_size), min(training.batch_size, len(images))
    team = Team(fabric)
    optimizer = make_optimizer(model, recipe.optimizer, lr_factors)
    schedule = make_schedule(optimizer, recipe.optimizer, steps * training.epochs)
    team.share_norms(model, fabric.device)
    objective, fabric_optimizer = fabric.setup(
        make_objective(model, loss_of, compile_mode(training, fabric.device)), optimizer
    )
    average = make_average(model, recipe.optimizer.ema)  # a copy, so only now that the model is on its device

    parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "average": average}
    position = Position({name: part for name, part in parts.items() if part is not None}, team=team)
    position.restore(run, fabric.device)
    on_cpu = fabric.device.type == "cpu"
    refuse_fixed_size(model, images.image_size, training)
    track(position.rows)
    with (
        progress.task(
            f"train {run.folder.name}", training.epochs * steps, "steps", position.steps_done(steps)
        ) as advance,
        deferred() as is_asked_to_stop,
        memory_told(training),
    ):
        for epoch in range(len(position.rows), training.epochs):
            begun = position.begin_epoch(seed, epoch, steps, fabric.device)
            objective.train()
            start = time.perf_counter() - begun.seconds
            batches = partial(training_batches, images, training.batch_size, recipe.augment, seed, epoch, mixture)
            for batch in batches(done=begun.steps, part=team.share):
                size = progressive_size(images.image_size, training, epoch + begun.steps / steps)
                loss = objective(batch._replace(images=resize(batch.images, size)))
                loss = team.weighted(loss, len(batch.rows), batch_size)
                fabric_optimizer.zero_grad(set_to_none=True)
                fabric.backward(loss)
                if recipe.optimizer.clip_norm is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), recipe.optimizer.clip_norm)
                fabric_optimizer.step()
                schedule.step()
                if average is not None:
                    average.update_parameters(model)
                begun.losses[begun.steps] = team.mean(loss.detach())
                begun.steps += 1
                advance(1)
                is_stopped = team.any_says(is_asked_to_stop()) and begun.steps < steps
                if is_stopped or begun.steps == steps or on_cpu:  # elsewhere it would wait for the device
                    check_losses(begun, batches, images, run.folder, epoch)
                if is_stopped:
                    begun.seconds = time.perf_counter() - start
                    position.save(run, begun)
                    raise Stopped
            elapsed = time.perf_counter() - start
            row: dict[str, float] = {
                "epoch": epoch + 1,
                "train_loss": begun.losses.mean().item(),
                "lr": optimizer.param_groups[0]["lr"],
                "seconds": elapsed,
                "images_per_second": steps * batch_size / elapsed,
                **(score(model if average is None else average.module) if run.writes else {}),
            }
            position.rows.append(row)
            position.seconds += elapsed
            position.save(run)
            track(position.rows)
            progress.detail(_line(row, training.epochs))
            if team.any_says(is_asked_to_stop()):
                raise Stopped
    return (model if average is None else average.module), position.seconds


def compile_mode(training: TrainingSettings, device: torch.device) -> str | None:
    """torch.compile's mode; None for not at all. On GPUs with CUDA graphs, which small networks gain most by."""
    if not training.compile:
        return None
    return "reduce-overhead" if device.type == "cuda" else "default"


def make_objective(model: nn.Module, loss_of: Callable[[nn.Module, Batch], Tensor], mode: str | None) -> nn.Module:
    """What gives the loss of a batch. `mode` is of `compile_mode`."""
    objective = _Objective(model, loss_of)
    if mode is None:
        return objective
    torch.compiler.reset()  # of the runs before: PyTorch compiles the same code for a few models, then no more
    return cast(nn.Module, torch.compile(objective, mode=mode))


class _Objective(nn.Module):
    """Model and loss as one module, so that precision and compilation cover both."""

    def __init__(self, model: nn.Module, loss_of: Callable[[nn.Module, Batch], Tensor]) -> None:
        super().__init__()
        self.model, self.loss_of = model, loss_of

    def forward(self, batch: Batch) -> Tensor:
        return self.loss_of(self.model, batch)


def progressive_size(size: int, training: TrainingSettings, epochs_done: float) -> int:
    """Side of the training images in pixels at this point of the training; see `training.initial_scale`.

    Progressive resizing as in fast.ai's entry to DAWNBench (Howard 2018) and EfficientNetV2 (Tan & Le 2021,
    section 4): early steps see smaller images and cost less.
    """
    grown = min(epochs_done / (GROWING * training.epochs), 1.0)
    scale = training.initial_scale + (1 - training.initial_scale) * grown
    return min(round(scale * size / STRIDE) * STRIDE, size) if scale < 1 else size


def refuse_fixed_size(model: nn.Module, size: int, training: TrainingSettings) -> None:
    """UserError where `training.initial_scale` asks a network for smaller images that it cannot take."""
    small = progressive_size(size, training, 0.0)
    if small == size:
        return
    device, was_training = next(model.parameters()).device, model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(2, 3, small, small, device=device))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"training.initial_scale is {training.initial_scale}, but this network takes only images of {size} pixels, "
            f"not {small} ({reason}): set it to 1"
        ) from None
    model.train(was_training)


def make_fabric(training: TrainingSettings, devices: int = 1, **options: Any) -> Fabric:
    """Fabric for one device, or for several of this machine.

    Args:
        training: which device, and how exactly.
        devices: how many, whatever training.devices says.
        options: further ones of Fabric.

    Raises:
        UserError: the device that was asked for is not there, or there are fewer.
    """
    from lightning_fabric import Fabric

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    device = training.device
    if device == "auto":
        device = "cuda" if available["cuda"] else "mps" if available["mps"] else "cpu"
    if not available.get(device, False):
        raise UserError(f"training.device is {device}, but PyTorch finds none here; use auto or cpu")
    there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device, devices)
    if devices > there:
        raise UserError(f"training.devices is {devices}, but PyTorch finds {there} here of the kind {device}")
    prepare_process(training, device)
    precision = training.precision
    if precision == "auto":
        precision = "bf16-mixed" if device == "cuda" and torch.cuda.is_bf16_supported() else "32-true"
    return Fabric(accelerator=device, devices=devices, precision=precision, **options)


def prepare_process(training: TrainingSettings, device: str) -> None:
    """What is set once for all of a process that trains on a kind of device: cpu, cuda or mps."""
    import logging
    import warnings

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning_fabric")
    if device == "cpu":
        keep_freed_memory()
    torch.backends.cudnn.benchmark = not training.deterministic  # all images of a run have one size, or a few
    if training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as PyTorch asks for it
        torch.use_deterministic_algorithms(True)


def make_optimizer(model: nn.Module, settings: OptimizerSettings, lr_factors: Mapping[str, float]) -> Optimizer:
    """SGD with Nesterov momentum or AdamW over the parameters that train, grouped by decay and learning rate.

    Args:
        model: frozen parameters (requires_grad false) are left out. Biases, norms and what a module lists in
            `no_weight_decay()` (timm's convention) do not decay.
        settings: of the optimiser.
        lr_factors: multiples of the learning rate, by prefix of the parameters' names.
    """
    exempt = {
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in model.named_modules()
        if hasattr(module, "no_weight_decay")
        for name in module.no_weight_decay()
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = next((factor for prefix, factor in lr_factors.items() if name.startswith(prefix)), 1.0)
            decays = parameter.ndim >= 2 and name not in exempt
            groups.setdefault((factor, settings.weight_decay if decays else 0.0), []).append(parameter)
    parameters: list[dict[str, Any]] = [
        {"params": group, "lr": settings.lr * factor, "weight_decay": decay}
        for (factor, decay), group in groups.items()
    ]
    if settings.name == "adamw":
        return AdamW(parameters, lr=settings.lr)
    return SGD(parameters, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)


def make_schedule(optimizer: Optimizer, settings: OptimizerSettings, steps: int) -> LRScheduler:
    """The learning rate over `steps` batches: a rise over the warm-up, then what the schedule says."""
    rise = round(settings.warmup * steps)
    if settings.schedule == "one_cycle":
        highest = [group["lr"] for group in optimizer.param_groups]
        share = max(settings.warmup, 2 / (steps + 1))  # a rise of no step at all would divide by zero
        return OneCycleLR(optimizer, highest, total_steps=steps + 1, pct_start=share, cycle_momentum=False)
    after: LRScheduler
    if settings.schedule == "cosine":
        after = CosineAnnealingLR(optimizer, T_max=max(steps - rise, 1))
    else:
        after = LinearLR(optimizer, start_factor=1.0, total_iters=1)
    if rise == 0:
        return after
    return SequentialLR(optimizer, [LinearLR(optimizer, 1 / rise, total_iters=rise), after], milestones=[rise])


def make_average(model: nn.Module, decay: float | None) -> AveragedModel | None:
    """An exponential moving average of weights and batch statistics, or None."""
    if decay is None:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def _line(row: Mapping[str, float], epochs: int) -> str:
    width = len(str(epochs))
    rest = [
        f"{key} {value:.4f}" for key, value in row.items() if key not in ("epoch", "lr", "seconds", "images_per_second")
    ]
    return f"epoch {int(row['epoch']):{width}}/{epochs}  {'  '.join(rest)}  {row['images_per_second']:,.0f} images/s"
