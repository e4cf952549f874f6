"""The training step: forward, backward, clipping, optimiser, schedule and weight average."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from emoreg.config.recipe import Recipe
from emoreg.config.training import TrainingSettings
from emoreg.data.images.batches import Batch, split_batch
from emoreg.runtime.process_group import ProcessGroup
from emoreg.training.fabric import place
from emoreg.training.optim import make_average, make_optimizer, make_schedule

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer

# Returns the mean loss of a model over a batch, a scalar. If it is a module, checkpoints include its buffers.
LossOf = Callable[[nn.Module, Batch], Tensor]
# Trains parameters by their gradients and clears them; takes the learning rate as a share of its peak.
OwnRule = Callable[[float], None]
# Prepares a step; takes the share of the training that is done, in [0, 1), and the optimiser.
Prepare = Callable[[float, Optimizer], None]

COMPILED_MODELS = 16  # models whose compiled code is kept in a process; a study has fewer kinds of run
PROGRAMS = 4  # that a model may need: training and evaluation, for one image size and for any
_compiled = itertools.count(1)


@dataclass(frozen=True)
class Objective:
    """What a stage trains: a model by a loss, and what its parameters need besides the recipe's settings.

    Args:
        model: trained in place.
        loss_of: mean loss of (model, batch).
        lr_factors: factors of the learning rate, by prefix of the parameters' names.
        clip_groups: groups of parameters whose gradients are clipped together; empty to clip all of them together.
        own_rule: trains parameters that the optimiser leaves out, after the optimiser's step; None without such
            parameters.
        prepare: called before each step; None for nothing.
    """

    model: nn.Module
    loss_of: LossOf
    lr_factors: Mapping[str, float] = field(default_factory=dict)
    clip_groups: Sequence[Sequence[nn.Parameter]] = ()
    own_rule: OwnRule | None = None
    prepare: Prepare | None = None


@dataclass(frozen=True)
class TrainState:
    """Everything that a training step reads and changes.

    Args:
        objective: what is trained.
        recipe: its optimizer and training are used.
        fabric: device and precision.
        processes: the processes that share the step.
        batch_size: images in a step, over all processes.
        loss_module: maps a `Batch` to its mean loss; perhaps compiled, set up by Fabric.
        optimizer: set up by Fabric.
        schedule: of the learning rate; stepped with the optimiser.
        average: exponential moving average of the model's weights, or None.
        clip_groups: parameters whose gradients are clipped together, each group by itself.
        measured: index and factor of the optimiser's group by which the learning rate is known; see `lr`.
        uncaptured: why the step cannot be captured as a CUDA graph; None if it can.
    """

    objective: Objective
    recipe: Recipe
    fabric: Fabric
    processes: ProcessGroup
    batch_size: int
    loss_module: _FabricModule
    optimizer: _FabricOptimizer
    schedule: LRScheduler
    average: AveragedModel | None
    clip_groups: Sequence[Sequence[nn.Parameter]]
    measured: tuple[int, float]
    uncaptured: str | None

    @property
    def lr(self) -> float:
        """The current learning rate of parameters without a factor, even if all of the optimiser's have one.

        0 if every factor is 0.
        """
        group, factor = self.measured
        return float(self.schedule.get_last_lr()[group]) / factor if factor else 0.0

    @property
    def kept(self) -> nn.Module:
        """The model to measure and keep: the average of the weights, if there is one."""
        return self.objective.model if self.average is None else self.average.module

    @property
    def parts(self) -> dict[str, Any]:
        """The objects whose `state_dict` a checkpoint keeps, by its key there."""
        model, loss = self.objective.model, self.objective.loss_of
        parts = {"model": model, "optimizer": self.optimizer.optimizer, "schedule": self.schedule}
        if self.average is not None:
            parts["average"] = self.average
        if isinstance(loss, nn.Module) and loss.state_dict():
            parts["loss"] = loss
        return parts


def make_state(fabric: Fabric, objective: Objective, recipe: Recipe, batch_size: int, steps: int) -> TrainState:
    """Move a model to its device and prepare its first step.

    Args:
        fabric: device and precision.
        objective: its model is trained in place.
        recipe: its optimizer and training are used.
        batch_size: images in a step, over all processes.
        steps: length of the training, for the schedule.
    """
    model, settings, training = objective.model, recipe.optimizer, recipe.training
    place(model, fabric)
    optimizer = make_optimizer(model, settings, objective.lr_factors, training.batch_size, fabric.device)
    peak, peaks = settings.peak_lr(training.batch_size), [group["lr"] for group in optimizer.param_groups]
    group = peaks.index(peak if peak in peaks else max(peaks))
    schedule = make_schedule(optimizer, settings, steps)
    processes = ProcessGroup(fabric)
    processes.synchronise_batch_norm(model, fabric.device)
    dynamic = None if training.initial_scale < 1 else False
    uncaptured = why_uncaptured(fabric.device, processes.size, optimizer, objective.own_rule)
    loss_module = make_loss_module(objective, compile_mode(training, fabric.device, uncaptured is None), dynamic)
    loss_module, fabric_optimizer = fabric.setup(loss_module, optimizer)
    return TrainState(
        objective=objective,
        recipe=recipe,
        fabric=fabric,
        processes=processes,
        batch_size=batch_size,
        loss_module=loss_module,
        optimizer=fabric_optimizer,
        schedule=schedule,
        average=make_average(model, settings.ema),  # copies the model, so after it was moved to its device
        clip_groups=objective.clip_groups or [list(model.parameters())],
        measured=(group, peaks[group] / peak),
        uncaptured=uncaptured,
    )


def train_step(state: TrainState, batch: Batch, observe: Callable[[], None] | None = None) -> Tensor:
    """Train on one batch, or in each of several processes on its part.

    Args:
        state: changed in place.
        batch: this process's part of the batch.
        observe: called when the gradients are those of the batch's loss, before they are clipped and used.

    Returns:
        The mean loss over the batch before the step, a detached scalar on the device.
    """
    loss = update(state, batch, observe)
    finish_step(state)
    return state.processes.mean(loss)


def update(state: TrainState, batch: Batch, observe: Callable[[], None] | None = None) -> Tensor:
    """Do the first part of a step, from the batch to the optimiser, all of it on the device.

    Arguments are those of `train_step`. Returns the loss over this process's part, from `ProcessGroup.weighted`.
    """
    state.optimizer.zero_grad(set_to_none=True)
    loss = _backward(state, batch)
    if observe is not None:
        observe()
    clip_norm = state.recipe.optimizer.clip_norm
    if clip_norm is not None:
        for group in state.clip_groups:
            nn.utils.clip_grad_norm_(group, clip_norm)
    state.optimizer.step()
    return loss


def finish_step(state: TrainState) -> None:
    """Do the second part of a step: apply the own rule, set the next learning rate, update the weight average."""
    objective, recipe = state.objective, state.recipe
    if objective.own_rule is not None:
        objective.own_rule(state.lr / recipe.optimizer.peak_lr(recipe.training.batch_size))
    state.schedule.step()
    if state.average is not None:
        state.average.update_parameters(objective.model)


def _backward(state: TrainState, batch: Batch) -> Tensor:
    """Accumulate the gradients of the batch's loss part by part; return the loss, detached.

    Losses are means over images, so the losses of the parts, weighted by their images, add up to the batch's.
    """
    losses = []
    for part in split_batch(batch, state.recipe.training.accumulate):
        # Processes exchange gradients in each part: DDP with a static graph cannot defer that to the last one.
        loss = state.processes.weighted(state.loss_module(part), len(part.rows), state.batch_size)
        state.fabric.backward(loss)
        losses.append(loss.detach())
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def why_uncaptured(device: torch.device, processes: int, optimizer: Optimizer, own_rule: OwnRule | None) -> str | None:
    """Why a step cannot be captured as a CUDA graph, in a few words; None if it can."""
    if device.type != "cuda":
        return f"there are none on {device.type}"
    if processes > 1:
        return "processes exchange gradients"
    if own_rule is not None:
        return "a part of the network has a rule of its own, which is not captured"
    if not any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups):
        return f"{type(optimizer).__name__} reads its learning rate on the CPU"
    return None


def compile_mode(training: TrainingSettings, device: torch.device, captures: bool) -> str | None:
    """Return torch.compile's mode, or None for no compilation; on GPUs with CUDA graphs, which speed up small networks.

    Without CUDA graphs if gradients are accumulated, since a graph's gradients are in its own memory, which the next
    part would overwrite; and if the whole step is captured as a graph (training.cuda_graphs, and `captures` is true).
    """
    if not training.compile:
        return None
    has_graphs = device.type == "cuda" and training.accumulate == 1 and not (training.cuda_graphs and captures)
    return "reduce-overhead" if has_graphs else "default"


def make_loss_module(objective: Objective, mode: str | None, dynamic: bool | None = None) -> nn.Module:
    """Return a module that maps a `Batch` to its loss, compiled in a mode of `compile_mode`.

    Code that was compiled for an earlier model of this process is reused if the models are alike, since weights are
    arguments of the code. CUDA graphs hold a model's own memory, so the last model's are freed first.

    Args:
        objective: its model and loss are compiled together.
        mode: None for no compilation.
        dynamic: True to compile for any image size, False for one size, None to let PyTorch decide.
    """
    module = _LossModule(objective.model, objective.loss_of)
    if mode is None:
        return module
    import torch._dynamo  # takes a second; torch.compiler.config has no such limit in torch 2.9

    # PyTorch's default is 8, after which it no longer compiles.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILED_MODELS * PROGRAMS)
    if mode == "reduce-overhead" or next(_compiled) % COMPILED_MODELS == 0:
        torch.compiler.reset()
    return cast(nn.Module, torch.compile(module, mode=mode, dynamic=dynamic))


class _LossModule(nn.Module):
    """Model and loss in one module, so that autocast and compilation cover both."""

    def __init__(self, model: nn.Module, loss_of: LossOf) -> None:
        super().__init__()
        self.model, self.loss_of = model, loss_of

    def forward(self, batch: Batch) -> Tensor:
        return self.loss_of(self.model, batch)
