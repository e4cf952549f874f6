"""Training steps on a device that is not the CPU, without such a device: reading a value there is an error."""

from __future__ import annotations

import dataclasses
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from all_augmentation import EVERYTHING
from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import RELATIVES, Mode
from emoreg.config.training import TrainingSettings
from emoreg.data.images.batches import training_batches
from emoreg.data.images.image_set import ImageSet
from emoreg.data.images.table import Table
from emoreg.models.regulation import RegulatedClassifier
from emoreg.models.relatives.heads import RelativeHead
from emoreg.stages.classification_loss import classification_loss
from emoreg.training.step import Objective, make_state, train_step
from fake_gpu import GPU, Copies, gpu_fabric
from tiny_backbone import TinyBackbone

K = 3
MODES = [mode for mode in get_args(Mode) if mode != "transfer"]


@pytest.mark.parametrize(("mode", "is_frozen"), [*((mode, False) for mode in MODES), ("learned", True)])
def test_no_step_and_no_batch_reads_from_the_device_and_no_step_copies_to_it(
    mode: Mode, is_frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def has_mean(tensor: Tensor) -> bool:  # is asked once, before the first step
        return tensor.is_floating_point()

    monkeypatch.setattr("emoreg.training.optim._has_mean", has_mean)
    encoder = None if mode in ("none", *RELATIVES) else TinyBackbone()
    model = RegulatedClassifier(TinyBackbone(), encoder, K, mode=mode, freeze_encoder=is_frozen).to(GPU)
    optimizer = OptimizerSettings(ema=0.9, clip_norm=1.0)
    recipe = TrainRecipe(augment=EVERYTHING, optimizer=optimizer, training=TrainingSettings(batch_size=8, accumulate=2))
    recipe = dataclasses.replace(recipe, encoder=dataclasses.replace(recipe.encoder, frozen=is_frozen))
    images = images_on_gpu(32)
    own_rule = model.head.learn if isinstance(model.head, RelativeHead) else None
    objective = Objective(model, classification_loss(model, images, recipe), own_rule=own_rule)
    state = make_state(gpu_fabric(), objective, recipe, 8, steps=4)
    state.loss_module.train()
    batches = training_batches(images, 8, EVERYTHING, 0, 0)
    train_step(state, next(batches))  # the first step prepares constants
    with Copies() as of_batches:
        given = list(batches)
    with Copies() as of_steps:
        losses = [train_step(state, batch) for batch in given]
    assert {loss.device for loss in losses} == {GPU}
    assert of_steps.found == []
    assert set(of_batches.found) <= {"to"}  # each round of a policy moves its rows, from pinned memory if it is a GPU


def images_on_gpu(count: int, size: int = 16) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    labels = np.arange(count, dtype=np.int64) % K
    held = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return ImageSet(Table("noise", pixels, labels), size, held, torch.from_numpy(labels)).to(GPU)
