"""How long a plan will take: a few steps of every kind of run are timed, the rest is multiplication."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from emoreg.config.schema import PretrainRecipe, Recipe, TargetSettings, TrainRecipe
from emoreg.data.images.batches import steps_per_epoch
from emoreg.data.images.splits import cut_validation
from emoreg.data.stimuli import read_stimuli
from emoreg.data.targets import read_target
from emoreg.models.backbones import build_backbone
from emoreg.runtime.progress import Progress
from emoreg.stages.classify import build_classifier
from emoreg.stages.pretrain import AffectiveModel
from emoreg.stages.stimulus_mixture import cut_stimuli
from emoreg.study.plan import PlannedRun
from emoreg.training.loop import make_fabric, make_optimizer

SECONDS = 1.0  # that a kind of step is timed for, at least


def estimate_seconds(planned: Sequence[PlannedRun], progress: Progress, jobs: int = 1) -> dict[str, float]:
    """Seconds that each run would take alone, by its id. Reads the image sets' tables, decodes no image.

    Args:
        planned: of `plan_runs`.
        progress: told what is measured.
        jobs: runs at a time; each then has its share of the cores.

    Raises:
        UserError: an image set is not there.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // jobs))
    speeds: dict[Recipe, tuple[float, float]] = {}
    seconds = {}
    try:
        with progress.task("calibrate", len(planned), "runs") as advance:
            for run in planned:
                shape = _shape(run.recipe)
                if shape not in speeds:
                    speeds[shape] = _seconds_per_image(shape)
                train, held_out, test = _counts(run.recipe)
                training, (step, forward) = run.recipe.training, speeds[shape]
                images = steps_per_epoch(train, training.batch_size) * min(training.batch_size, train)
                seconds[run.id] = training.epochs * (images * step + held_out * forward) + (held_out + test) * forward
                advance(1)
    finally:
        torch.set_num_threads(threads)
    return seconds


def _shape(recipe: Recipe) -> Recipe:
    """The recipe without what does not change the speed of a step."""
    training = dataclasses.replace(recipe.training, epochs=1)
    if isinstance(recipe, PretrainRecipe):
        stimuli = dataclasses.replace(PretrainRecipe().stimuli, image_size=recipe.stimuli.image_size)
        return dataclasses.replace(recipe, stimuli=stimuli, also=(), pretext="affect", training=training, seed=0)
    target = TargetSettings(image_size=recipe.target.image_size)
    encoder = dataclasses.replace(recipe.encoder, experience=None)
    return dataclasses.replace(recipe, target=target, encoder=encoder, training=training, seed=0)


def _seconds_per_image(recipe: Recipe) -> tuple[float, float]:
    """Of a training step, and of the forward pass alone, on random images."""
    fabric = make_fabric(recipe.training)
    model: nn.Module
    if isinstance(recipe, TrainRecipe):
        size = recipe.target.image_size
        model = build_classifier(_without_download(recipe), 10)
    else:
        size = recipe.stimuli.image_size
        model = AffectiveModel(build_backbone(dataclasses.replace(recipe.backbone, pretrained=False), size), outputs=2)
    optimizer = make_optimizer(model, recipe.optimizer, {})
    model, fabric_optimizer = fabric.setup(model.to(memory_format=torch.channels_last), optimizer)
    images = torch.randn(recipe.training.batch_size, 3, size, size, device=fabric.device)
    images = images.to(memory_format=torch.channels_last)

    def step() -> None:
        loss = model(images).square().mean()
        fabric_optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        fabric_optimizer.step()

    @torch.no_grad()
    def forward() -> Tensor:
        result: Tensor = model(images)
        return result

    return _timed(step, fabric.device) / len(images), _timed(forward, fabric.device) / len(images)


def _without_download(recipe: TrainRecipe) -> TrainRecipe:
    """The same architecture with random weights."""
    encoder = recipe.encoder
    if encoder.backbone is not None:
        encoder = dataclasses.replace(encoder, backbone=dataclasses.replace(encoder.backbone, pretrained=False))
    return dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, pretrained=False), encoder=encoder)


def _timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, over as many as fill a second; the first one warms up."""
    work()
    _wait(device)
    calls, begun = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < SECONDS:
        work()
        _wait(device)
        calls += 1
    return elapsed / calls


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _counts(recipe: Recipe) -> tuple[int, int, int]:
    """Images that a run trains on, those that it holds out, and those that it is tested on."""
    if isinstance(recipe, TrainRecipe):
        return _target_counts(dataclasses.replace(recipe, seed=0).target)
    return _stimuli_counts(dataclasses.replace(recipe, seed=0))


@functools.lru_cache(maxsize=64)
def _target_counts(settings: TargetSettings) -> tuple[int, int, int]:
    target = read_target(settings)
    train, held_out = cut_validation(
        target.train, settings.validation, settings.limit, 0, settings.per_class, target.classes
    )
    return len(train), len(held_out or ()), len(target.test)


@functools.lru_cache(maxsize=64)
def _stimuli_counts(recipe: PretrainRecipe) -> tuple[int, int, int]:
    cuts = [cut_stimuli(read_stimuli(each, 0), each, 0, Progress(quiet=True)) for each in recipe.sets]
    return (
        sum(len(cut.train) for cut in cuts),
        sum(len(cut.validation or ()) for cut in cuts),
        sum(len(cut.test or ()) for cut in cuts),
    )
