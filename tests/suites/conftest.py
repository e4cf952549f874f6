"""A classifier with two small branches and images with two classes, without any training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import TargetSettings
from emoreg.config.training import TrainingSettings
from emoreg.data.images.image_set import ImageSet
from emoreg.data.images.table import Table
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.run import FINAL, Run
from emoreg.runtime.progress import Progress
from emoreg.suites.subject import Subject
from emoreg.training.fabric import make_fabric
from tiny_backbone import TinyBackbone

ON_CPU = TrainingSettings(device="cpu", precision="32-true")


@pytest.fixture
def images() -> Callable[..., ImageSet]:
    """Random images, dark of class 0 and bright of class 1."""

    def make(count: int = 12, size: int = 32, seed: int = 0) -> ImageSet:
        labels = np.arange(count) % 2
        draw = np.random.default_rng(seed)
        pixels = draw.integers(0, 120, (count, size, size, 3)) + 120 * labels[:, None, None, None]
        table = Table("random", pixels.astype(np.uint8), labels)
        held = torch.from_numpy(pixels.astype(np.uint8)).permute(0, 3, 1, 2)
        return ImageSet(table, size, held, torch.from_numpy(labels))

    return make


@pytest.fixture
def subject(tmp_path: Path, quiet: Progress, images: Callable[..., ImageSet]) -> Subject:
    """A run of 12 images of 32 pixels that has no validation images."""
    torch.manual_seed(0)
    classifier = RegulatedClassifier(TinyBackbone(), TinyBackbone(), 2, mode="learned", lam=0.3).eval()
    target = TargetSettings("svhn", validation=0.0)
    recipe = dataclasses.replace(TrainRecipe(), target=target, training=ON_CPU)
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    (run.folder / FINAL).write_text('{"test": null}')
    return Subject(run, recipe, classifier, make_fabric(ON_CPU), quiet, images(), None)
