"""Finished runs for tests: one of stage 1 and classifiers trained from it, made once per session."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from emoreg.config.augment import AugmentSettings
from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import BackboneSettings, EncoderSettings, RegulationSettings, StimuliSettings, TargetSettings
from emoreg.config.training import TrainingSettings
from emoreg.runtime.progress import Progress
from emoreg.stages.classify import train
from emoreg.stages.pretrain import pretrain

ONE_EPOCH = TrainingSettings(epochs=1, batch_size=32, device="cpu", precision="32-true")
EXPERIENCE = PretrainRecipe(
    stimuli=StimuliSettings(name="procedural", count=40, image_size=16),
    backbone=BackboneSettings(name="resnet8"),
    training=ONE_EPOCH,
)
CLASSIFIER = TrainRecipe(
    target=TargetSettings(name="digits", image_size=8, limit=64),
    backbone=BackboneSettings(name="resnet8"),
    augment=AugmentSettings(crop_padding=1, flip=False),
    optimizer=OptimizerSettings(lr=0.05),
    training=ONE_EPOCH,
)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `experience` (stage 1, 16 pixels), `learned`, `gated` and `plain` (stage 2, 8 pixels)."""
    torch.set_num_threads(1)
    root, quiet = tmp_path_factory.mktemp("runs"), Progress(quiet=True)
    pretrain(EXPERIENCE, root / "experience", progress=quiet)
    encoder = EncoderSettings(experience=str(root / "experience"))
    for name, regulation in (
        ("learned", RegulationSettings(mode="learned", lam=0.3)),
        ("gated", RegulationSettings(mode="learned", granularity="per_sample")),
    ):
        train(dataclasses.replace(CLASSIFIER, regulation=regulation, encoder=encoder), root / name, progress=quiet)
    train(CLASSIFIER, root / "plain", progress=quiet)
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five images of several sizes and formats."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    draw = np.random.default_rng(0)
    for number, name in enumerate(("a.png", "b.jpg", "below/c.png", "d.bmp", "e.webp")):
        pixels = draw.integers(0, 256, (20 + 5 * number, 30, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder
