"""Estimates how long a plan will take: a few steps of every kind of run are timed, the rest is multiplication."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from emoreg.config.recipe import PretrainRecipe, Recipe, TrainRecipe
from emoreg.config.schema import EncoderSettings, StimuliSettings, TargetSettings
from emoreg.data.images.augment import normalise, resize
from emoreg.data.images.batches import Batch, steps_per_epoch, training_batches
from emoreg.data.images.image_set import ImageSet, load_images
from emoreg.data.images.splits import cut_validation
from emoreg.data.images.table import Table
from emoreg.data.stimuli.emotion import EmotionSpace
from emoreg.data.targets import read_target
from emoreg.models.backbones import build_backbone, channels_last
from emoreg.runtime.cores import usable_cores
from emoreg.runtime.progress import Progress
from emoreg.stages.affective_heads import heads_of
from emoreg.stages.class_stimuli import read_stimuli
from emoreg.stages.classify import build_classifier, classification_loss
from emoreg.stages.pretext import pretext_task
from emoreg.stages.pretrain import AffectiveModel
from emoreg.stages.stimulus_mixture import cut_stimuli
from emoreg.study.arms import SHARED_OF_LOSS
from emoreg.study.missing_sets import is_missing
from emoreg.study.plan import PlannedRun
from emoreg.study.stand_ins import stimuli_like, target_like
from emoreg.training.diagnostics import refuse_single_images, refuse_without_compiler
from emoreg.training.fabric import first_device, is_available, make_fabric
from emoreg.training.progressive_resizing import progressive_size
from emoreg.training.step import make_state, train_step

SECONDS = 0.5  # least time for which one kind of step is timed
# On a CPU a step of a whole batch takes long with a large network. With so few images the optimiser's part of it makes
# an image a fifth dearer (ResNet-18); with 8 it would be half as dear again, and 32 take minutes over the paper's grid.
LARGE, CPU_BATCH = 1_000_000, 16  # weights; images
CLASSES = 10
R = TypeVar("R", PretrainRecipe, TrainRecipe)
SPACE = EmotionSpace("dimensions", ("valence", "arousal"))


def estimate_seconds(planned: Sequence[PlannedRun], progress: Progress, jobs: int = 1) -> dict[str, float]:
    """Seconds that each run would take alone, by its id. Reads the tables of the image sets, decodes no image.

    A set that is not here is taken to have as many images as are published, and CIFAR is not downloaded. Runs on a kind
    of device that is not here are left out, and those of sets that are not here and whose size nobody has published.

    Args:
        planned: from `plan_runs`.
        progress: shows how many runs are estimated.
        jobs: runs at a time; each has its share of the cores.

    Raises:
        UserError: an image set is not available, or a run cannot be trained as it is: see `training.diagnostics`.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, min(threads, usable_cores()) // jobs))
    speeds: dict[Recipe, tuple[float, float]] = {}
    seconds = {}
    try:
        with progress.task("calibrate", len(planned), "runs") as advance:
            for run in planned:
                device = run.recipe.training.device
                counts = None if device != "auto" and not is_available(device) else _counts(run.recipe)
                if counts is None:
                    advance(1)
                    continue
                kind = _kind(run.recipe)
                if kind not in speeds:
                    speeds[kind] = _seconds_per_image(kind)
                train, held_out, test = counts
                training, (step, forward) = run.recipe.training, speeds[kind]
                images = steps_per_epoch(train, training.batch_size) * min(training.batch_size, train)
                seconds[run.id] = training.epochs * (images * step + held_out * forward) + (held_out + test) * forward
                advance(1)
    finally:
        torch.set_num_threads(threads)
    return seconds


def timed_on(planned: Sequence[PlannedRun], jobs: int = 1) -> str:
    """The device and precision on which `estimate_seconds` times these runs; "" where it can time none."""
    found = {(run.recipe.training.device, run.recipe.training.precision): None for run in planned}
    parts = []
    for asked, precision in found:
        device = first_device() if asked == "auto" else asked
        if is_available(device):
            threads = max(1, min(torch.get_num_threads(), usable_cores()) // jobs)
            name = torch.cuda.get_device_name() if device == "cuda" else device
            parts.append(f"{name} ({f'{threads} threads, ' if device == 'cpu' else ''}{precision})")
    return " and ".join(dict.fromkeys(parts)) + (f", torch {torch.__version__}" if parts else "")


def _kind(recipe: Recipe) -> Recipe:
    """The recipe without the settings that hardly change the speed of a step, and without downloads."""
    training = dataclasses.replace(recipe.training, epochs=1)
    backbone = dataclasses.replace(recipe.backbone, pretrained=False)
    if isinstance(recipe, PretrainRecipe):
        stimuli = dataclasses.replace(PretrainRecipe().stimuli, image_size=recipe.stimuli.image_size)
        return dataclasses.replace(
            recipe, stimuli=stimuli, also=(), pretext="affect", backbone=backbone, training=training, seed=0
        )
    target, encoder = TargetSettings(image_size=recipe.target.image_size), recipe.encoder
    own = None if encoder.backbone is None else dataclasses.replace(encoder.backbone, pretrained=False)
    encoder = dataclasses.replace(
        encoder, experience=None, backbone=own, takeover="as_is", shrink=EncoderSettings().shrink, moments_only=False
    )
    recipe = dataclasses.replace(recipe, target=target, encoder=encoder, backbone=backbone, training=training, seed=0)
    return _with_plain_answers(recipe) if recipe.edition > 1 else recipe


def _with_plain_answers(recipe: TrainRecipe) -> TrainRecipe:
    """The recipe with one way of making, mixing and judging answers: these are K numbers, a network millions.

    A network without a second response is a plain one, whatever it was called.
    """
    own, regulation = TrainRecipe(), recipe.regulation
    loss = dataclasses.replace(own.loss, **{name: getattr(recipe.loss, name) for name in SHARED_OF_LOSS})
    if not recipe.has_two_responses:
        alone = recipe.encoder_backbone if regulation.mode == "transfer" else recipe.backbone
        plain = dataclasses.replace(own.regulation, mode="none")
        return dataclasses.replace(recipe, backbone=alone, encoder=own.encoder, regulation=plain, loss=loss)
    if regulation.mix == "features" or regulation.granularity == "per_sample":
        return recipe
    mixed = dataclasses.replace(own.regulation, mode="fixed")
    encoder = dataclasses.replace(recipe.encoder, backbone=recipe.encoder_backbone)
    return dataclasses.replace(recipe, encoder=encoder, regulation=mixed, loss=loss)


def _seconds_per_image(recipe: Recipe) -> tuple[float, float]:
    """Seconds per image of a training step, and of the forward pass alone, on random images."""
    fabric = make_fabric(recipe.training)
    refuse_without_compiler(recipe.training, fabric.device)
    model: nn.Module
    if isinstance(recipe, TrainRecipe):
        size = recipe.target.image_size
        model = classifier = build_classifier(recipe, CLASSES)
        recipe = _with_few_images(recipe, model, fabric.device)
        images = _noise(size, recipe.training.batch_size, fabric.device, has_classes=True)
        loss_of = classification_loss(classifier, images, recipe)
    else:
        size = recipe.stimuli.image_size
        task = pretext_task(recipe.pretext, heads_of([("noise", SPACE)]), [1], fabric)
        model = AffectiveModel(build_backbone(recipe.backbone, size), task.outputs)
        channels_last(model)
        recipe = _with_few_images(recipe, model, fabric.device)
        images = _noise(size, recipe.training.batch_size, fabric.device, has_classes=False)
        loss_of = task.loss_of
    training = recipe.training
    state = make_state(fabric, model, loss_of, recipe, training.batch_size, steps=10**9)
    state.objective.train()
    batches = _endless_batches(images, recipe)
    refuse_single_images(model, loss_of, next(batches), images, training)
    # Images that grow are timed at sizes spread evenly over the training.
    points = [0.1, 0.3, 0.5, 0.7, 0.9] if training.initial_scale < 1 else [0.0]

    def steps() -> None:
        for point in points:
            batch, small = next(batches), progressive_size(size, training, point)
            train_step(state, batch._replace(images=resize(batch.images, small)))

    assert images.pixels is not None
    pixels = images.pixels[: training.batch_size]

    @torch.no_grad()
    def forward() -> None:
        with fabric.autocast():
            model(normalise(pixels))

    step = _timed(steps, fabric.device) / len(points)
    model.eval()
    return step / training.batch_size, _timed(forward, fabric.device) / len(pixels)


def _with_few_images(recipe: R, model: nn.Module, device: torch.device) -> R:
    """The recipe with batches of at most `CPU_BATCH` images for a large network on a CPU."""
    batch_size = recipe.training.batch_size
    if device.type != "cpu" or sum(parameter.numel() for parameter in model.parameters()) < LARGE:
        return recipe
    few = dataclasses.replace(recipe.training, batch_size=min(batch_size, CPU_BATCH))
    return dataclasses.replace(recipe, training=few)


def _noise(size: int, batch_size: int, device: torch.device, has_classes: bool) -> ImageSet:
    """Random images, two batches of them, with classes or with values in `SPACE`."""
    draw, count = np.random.default_rng(0), 2 * batch_size
    pixels = draw.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    labels = draw.integers(0, CLASSES, count) if has_classes else draw.random((count, 2), dtype=np.float32)
    return load_images(Table("noise", pixels, labels), size, False, math.inf, Progress(quiet=True)).to(device)


def _endless_batches(images: ImageSet, recipe: Recipe) -> Iterator[Batch]:
    for epoch in itertools.count():
        yield from training_batches(images, recipe.training.batch_size, recipe.augment, 0, epoch)


def _timed(work: Callable[[], object], device: torch.device) -> float:
    """Mean seconds per call, over at least `SECONDS`; a first call is not counted, unless it alone takes long enough.

    What is done once at first, in a fraction of a second on a CPU, is then little of it.
    """

    def call() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()

    start = time.perf_counter()
    call()
    if device.type == "cpu" and (first := time.perf_counter() - start) > 2 * SECONDS:
        return first
    calls, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < SECONDS:
        call()
        calls += 1
    return elapsed / calls


def _counts(recipe: Recipe) -> tuple[int, int, int] | None:
    """Number of training, validation and test images of a run; None if it cannot be known."""
    if isinstance(recipe, TrainRecipe):
        return _target_counts(recipe.target)
    return _stimuli_counts(recipe.sets)


@functools.lru_cache(maxsize=64)
def _target_counts(settings: TargetSettings) -> tuple[int, int, int] | None:
    if is_missing(settings):
        return None
    target = target_like(settings) or read_target(settings)
    train, held_out = cut_validation(
        target.train, settings.validation, settings.limit, 0, settings.per_class, target.classes, target.validation
    )
    return len(train), len(held_out or ()), len(target.test)


@functools.lru_cache(maxsize=64)
def _stimuli_counts(sets: tuple[StimuliSettings, ...]) -> tuple[int, int, int] | None:
    cuts = []
    for each in sets:
        stand_in = stimuli_like(each)
        if stand_in is None and is_missing(each):
            return None
        settings = each if stand_in is None else dataclasses.replace(each, labels="published")
        cuts.append(cut_stimuli(stand_in or read_stimuli(each, 0), settings, 0, Progress(quiet=True)))
    return (
        sum(len(cut.train) for cut in cuts),
        sum(len(cut.validation or ()) for cut in cuts),
        sum(len(cut.test or ()) for cut in cuts),
    )
