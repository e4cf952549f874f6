"""Time the training step of a kind of run, on random images."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from emoreg.config.augment import AugmentSettings
from emoreg.config.recipe import TrainRecipe
from emoreg.data.images.augment import resize
from emoreg.data.images.batches import Batch, epoch_quotas, training_batches
from emoreg.data.images.image_set import ImageSet, load_images
from emoreg.data.images.table import Table
from emoreg.models.features import num_features
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runtime.progress import Progress
from emoreg.stages.classification_loss import classification_loss
from emoreg.stages.classifier import build_classifier
from emoreg.stages.rehearsal import Rehearsal, loss_of_classes
from emoreg.study.kinds_of_run import is_large
from emoreg.training.captured_step import make_step
from emoreg.training.diagnostics import refuse_single_images, refuse_without_compiler
from emoreg.training.fabric import make_fabric
from emoreg.training.progressive_resizing import progressive_size
from emoreg.training.step import Objective, make_state

SECONDS = 0.5  # minimum time for which a kind of step is timed
WARM_UP = {"cuda": 4}  # calls that are not timed (1 on other devices): the first ones capture CUDA graphs
# Images per timed step of a large network on a CPU. ResNet-18 took 45, 36.1, 36.5 and 36.2 ms per image in batches of
# 16, 32, 64 and 128 (SGD; one core of an AMD EPYC): larger batches are no more accurate, and take seconds.
CPU_BATCH = 32
CLASSES = 10


def seconds_per_image(kind: TrainRecipe) -> float:
    """Seconds of a training step of this kind, divided by its images.

    Args:
        kind: from `kind_of`.

    Raises:
        UserError: such a run cannot be trained, see `training.diagnostics`.
    """
    fabric, training, size = make_fabric(kind.training), kind.training, kind.target.image_size
    refuse_without_compiler(training, fabric.device)
    has_few = fabric.device.type == "cpu" and is_large(kind)
    batch_size = min(training.batch_size, CPU_BATCH) if has_few else training.batch_size
    classifier = build_classifier(kind, CLASSES)
    images = noise(size, 2 * batch_size).to(fabric.device)
    rehearsal = _rehearsal(classifier, images) if kind.encoder.rehearsal else None
    objective = Objective(classifier, classification_loss(classifier, images, kind, rehearsal=rehearsal))
    state = make_state(fabric, objective, kind, batch_size, steps=10**9)
    step = make_step(state)
    state.loss_module.train()
    batches = endless_batches(images, batch_size, kind.augment)
    refuse_single_images(objective, next(batches), images, training)
    # With growing images, several sizes are timed, spread evenly over the training.
    points = [0.1, 0.3, 0.5, 0.7, 0.9] if training.initial_scale < 1 else [0.0]
    begun = in_optimizer = 0.0

    def note_gradients() -> None:
        nonlocal begun
        begun = time.perf_counter()

    def steps() -> None:
        nonlocal in_optimizer
        for point in points:
            batch, small = next(batches), progressive_size(size, training, point)
            step(batch._replace(images=resize(batch.images, small)), note_gradients if has_few else None)
            in_optimizer += time.perf_counter() - begun if has_few else 0.0

    for _ in range(WARM_UP.get(fabric.device.type, 1)):
        steps()
    in_optimizer = 0.0
    seconds, calls = _timed(steps, fabric.device)
    seconds, in_optimizer = (each / calls / len(points) for each in (seconds, in_optimizer))
    # The optimiser runs once a step whatever the number of images, so its time is divided by the full batch size.
    return (seconds - in_optimizer) / batch_size + in_optimizer / training.batch_size


def noise(size: int, count: int) -> ImageSet:
    """Random images with classes."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    table = Table("noise", pixels, draw.integers(0, CLASSES, count))
    return load_images(table, size, False, math.inf, Progress(quiet=True))


def _rehearsal(classifier: RegulatedClassifier, images: ImageSet) -> Rehearsal:
    """A rehearsal on `images` and their classes; any other task takes as long."""
    head = nn.Linear(num_features(classifier.encoder or classifier.backbone), CLASSES).to(images.labels.device)
    quotas = epoch_quotas([len(images)], None)
    return Rehearsal(1.0, head, images, quotas, loss_of_classes, mirrors=True, turns=False, seed=0)


def endless_batches(images: ImageSet, batch_size: int, augment: AugmentSettings) -> Iterator[Batch]:
    """Training batches of one epoch after another."""
    for epoch in itertools.count():
        yield from training_batches(images, batch_size, augment, 0, epoch)


def _timed(work: Callable[[], object], device: torch.device) -> tuple[float, int]:
    """Call `work` for at least `SECONDS`, and at least once. Return the elapsed seconds and the number of calls."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    calls, start = 0, time.perf_counter()
    while calls == 0 or time.perf_counter() - start < SECONDS:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        calls += 1
    return time.perf_counter() - start, calls
