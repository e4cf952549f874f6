"""Images a second in training: a plain backbone, its regulated twins, and the batches alone.

    python benchmarks/throughput.py
    python benchmarks/throughput.py --backbone resnet18 --batch-size 128 --steps 10 --rounds 5

Images are noise of CIFAR's size: speed does not depend on what they show. The arms take turns, round by round,
so that a machine whose speed drifts does not favour one of them; each figure is the median of the rounds.
Measure alone: anything else that runs makes the figures worthless.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from emoreg.classification import build_classifier
from emoreg.images.batches import training_batches
from emoreg.images.decode import ImageSet, load_images
from emoreg.images.table import Table
from emoreg.progress import Progress
from emoreg.regulation import regulation_loss
from emoreg.run import environment
from emoreg.settings import BackboneSettings, EncoderSettings, Mode, RegulationSettings, TrainingSettings, TrainRecipe
from emoreg.training import make_fabric, make_optimizer

ARMS: dict[str, tuple[Mode, bool]] = {  # mode, and whether the encoder is frozen
    "Backbone": ("none", False),
    "Learn-E-Reg": ("learned", False),
    "Learn-E-Reg, frozen encoder": ("learned", True),
}
Round = Callable[[int], None]


def training_round(recipe: TrainRecipe, images: ImageSet) -> Round:
    """Runs some training steps of the recipe's classifier, as the training loop does."""
    fabric = make_fabric(recipe.training)
    classifier = build_classifier(recipe, num_classes=10)
    model, optimizer = fabric.setup(classifier, make_optimizer(classifier, recipe.optimizer, {}))
    model.mark_forward_method("respond")
    batches = training_batches(images, recipe.training.batch_size, recipe.augment, seed=0, epoch=0)

    def run(steps: int) -> None:
        nonlocal batches
        for _ in range(steps):
            batch = next(batches, None)
            if batch is None:
                batches = training_batches(images, recipe.training.batch_size, recipe.augment, seed=0, epoch=0)
                batch = next(batches)
            loss = regulation_loss(model.respond(batch[0]), batch[1])
            optimizer.zero_grad(set_to_none=True)
            fabric.backward(loss)
            optimizer.step()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet20")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10, help="in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--json", metavar="FILE", help="write the figures and the environment there too")
    options = parser.parse_args()

    training = TrainingSettings(batch_size=options.batch_size, device=options.device, precision=options.precision)
    device = make_fabric(training).device
    pixels = np.random.default_rng(0).integers(0, 256, (options.batch_size * 20, 32, 32, 3), dtype=np.uint8)
    labels = np.random.default_rng(0).integers(0, 10, len(pixels))
    images = load_images(Table("noise", pixels, labels), 32, False, 4.0, Progress(quiet=True)).to(device)

    recipe = TrainRecipe(backbone=BackboneSettings(options.backbone), training=training)
    rounds: dict[str, Round] = {}
    for label, (mode, frozen) in ARMS.items():
        arm = dataclasses.replace(
            recipe,
            encoder=EncoderSettings(frozen=frozen),
            regulation=RegulationSettings(mode=mode),
        )
        rounds[label] = training_round(arm, images)

    def batches_alone(steps: int) -> None:
        for number, _ in enumerate(training_batches(images, options.batch_size, recipe.augment, 0, 0), start=1):
            if number == steps:
                break

    rounds["batches alone"] = batches_alone

    seconds: dict[str, list[float]] = {label: [] for label in rounds}
    for number in range(options.rounds + 1):
        for label, run in rounds.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
            begun = time.perf_counter()
            run(options.steps)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number:  # the first round is a warm-up
                seconds[label].append(time.perf_counter() - begun)

    count = options.steps * options.batch_size
    figures = {label: count / statistics.median(times) for label, times in seconds.items()}
    print(f"{options.backbone}, batch {options.batch_size}, {device}, median of {options.rounds} rounds")
    print(f"{'':30}{'images/s':>10}{'step / Backbone step':>24}")
    for label, figure in figures.items():
        print(f"{label:30}{figure:10,.0f}{figures['Backbone'] / figure:24.2f}")
    if options.json:
        record = {"images_per_second": figures, "options": vars(options), **environment()}
        Path(options.json).write_text(json.dumps(record, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
