"""Compare the accuracy of emoreg's fast path and of the usual recipe: test accuracies, paired by seed.

    python benchmarks/accuracy.py                            # downloads CIFAR-10 into data if it is missing
    python benchmarks/accuracy.py --root cifar10.zip --backbone resnet20 --epochs 10 --seeds 3 --json accuracy.json

The usual recipe is in usual.py. It has the same learning-rate schedule and the same training images, but draws weights,
order and crops in its own way, so a seed pairs only the images.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import usual
from numpy.typing import NDArray
from torch import nn

from emoreg.config.augment import AugmentSettings
from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import BackboneSettings, TargetSettings
from emoreg.config.training import TrainingSettings
from emoreg.data.images.image_set import load_images
from emoreg.data.images.splits import cut_validation
from emoreg.data.images.table import Table
from emoreg.data.targets import read_target
from emoreg.models.backbones import build_backbone
from emoreg.models.features import num_features
from emoreg.report.statistics import interval
from emoreg.runs.provenance import environment
from emoreg.runtime.progress import Progress
from emoreg.stages.classify import train
from emoreg.training.optim import make_schedule


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="CIFAR-10: folder, zip or pack; downloaded into data if none is given")
    parser.add_argument("--backbone", default="resnet8")
    parser.add_argument("--limit", type=int, default=5000, help="training images")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write accuracies and environment to FILE")
    options = parser.parse_args()
    recipe = TrainRecipe(
        target=TargetSettings("cifar10", root=options.root, limit=options.limit, validation=0.0),
        backbone=BackboneSettings(options.backbone),
        augment=AugmentSettings(crop_padding=4, flip=True),
        optimizer=OptimizerSettings(warmup=0.1),
        training=TrainingSettings(epochs=options.epochs, batch_size=options.batch_size),
    )
    growing = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, initial_scale=0.5))
    accuracies: dict[str, list[float]] = {"usual": [], "emoreg": [], "emoreg, initial_scale 0.5": []}
    for seed in range(options.seeds):
        accuracies["usual"].append(train_by_usual_recipe(dataclasses.replace(recipe, seed=seed)))
        accuracies["emoreg"].append(train_by_emoreg(dataclasses.replace(recipe, seed=seed)))
        accuracies["emoreg, initial_scale 0.5"].append(train_by_emoreg(dataclasses.replace(growing, seed=seed)))
        print(f"seed {seed}: " + ", ".join(f"{arm} {values[-1]:.2%}" for arm, values in accuracies.items()), flush=True)
    for arm, values in accuracies.items():
        difference = _interval([a - b for a, b in zip(values, accuracies["usual"], strict=True)])
        print(f"{arm:28}{_interval(values)} %   minus usual: {difference} points")
    if options.json:
        record = {"accuracies": accuracies, "recipe": asdict(recipe), "command": sys.argv, **environment()}
        options.json.write_text(json.dumps(record, indent=2, default=str), encoding="utf-8")


def train_by_emoreg(recipe: TrainRecipe) -> float:
    with tempfile.TemporaryDirectory() as folder:
        run = train(recipe, Path(folder) / "run", progress=Progress(quiet=True))
        return float(run.final["test"]["accuracy"])


def train_by_usual_recipe(recipe: TrainRecipe) -> float:
    """Train with plain PyTorch and return the test accuracy."""
    torch.manual_seed(recipe.seed)
    target = read_target(recipe.target)
    rows, _ = cut_validation(target.train, 0.0, recipe.target.limit, recipe.seed)
    images = usual.cifar(*_pixels(target.train.take(rows)), usual.augmented())
    data = usual.loader(images, recipe.training.batch_size, workers=0)
    backbone = build_backbone(recipe.backbone)
    model = nn.Sequential(backbone, nn.Linear(num_features(backbone), len(target.classes)))
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.optimizer.lr,
        momentum=recipe.optimizer.momentum,
        nesterov=True,
        weight_decay=recipe.optimizer.weight_decay,
    )
    schedule = make_schedule(optimizer, recipe.optimizer, len(data) * recipe.training.epochs)
    for _ in range(recipe.training.epochs):
        for batch, labels in data:
            loss = nn.functional.cross_entropy(model(batch), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    test = usual.cifar(*_pixels(target.test), usual.plain())
    right = 0
    with torch.no_grad():
        for batch, labels in torch.utils.data.DataLoader(test, 500):
            right += int((model(batch).argmax(1) == labels).sum())
    return right / len(target.test)


def _pixels(table: Table) -> tuple[NDArray[np.uint8], list[int]]:
    images = load_images(table, 32, False, 4.0, Progress(quiet=True))
    assert images.pixels is not None
    return images.pixels.permute(0, 2, 3, 1).contiguous().numpy(), images.labels.tolist()


def _interval(values: list[float]) -> str:
    found = interval(values)
    return f"{100 * found.mean:+.2f} [{100 * found.low:+.2f}, {100 * found.high:+.2f}]"


if __name__ == "__main__":
    main()
