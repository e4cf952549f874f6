"""Every shipped recipe trains: one step on noise, with its network made narrow and its images small."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emoreg.config.read_recipe import read_recipe
from emoreg.config.recipe import PretrainRecipe, Recipe, TrainRecipe
from emoreg.config.schema import BackboneSettings
from emoreg.data.images.batches import Batch, training_batches
from emoreg.data.images.image_set import ImageSet
from emoreg.data.images.table import Table
from emoreg.models.backbones import build_backbone
from emoreg.stages.classification_loss import classification_loss
from emoreg.stages.classifier import build_classifier
from emoreg.stages.pretrain import AffectiveModel
from emoreg.training.fabric import make_fabric
from emoreg.training.step import LossOf, Objective, make_state, train_step

RECIPES = Path(__file__).parents[2] / "recipes"
EXPERIENCES = sorted(path.stem for path in (RECIPES / "experience").glob("*.yaml"))
# Those for CIFAR-100 have the same settings: tests/config/test_read_recipe.py.
TARGETS = sorted(
    path.relative_to(RECIPES).as_posix()
    for kind in ("cifar10", "affective")
    for path in (RECIPES / kind).glob("*.yaml")
)
SIZE, COUNT, K = 32, 4, 10


def narrow(backbone: BackboneSettings) -> BackboneSettings:
    heads = 6  # of ViT-Small; ViT-Tiny has half as many
    return dataclasses.replace(backbone, pretrained=False, width=4 * heads if "vit" in backbone.name else 8)


def noise(labels: Tensor) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 3), np.uint8)
    return ImageSet(
        Table("noise", pixels, labels.numpy()), SIZE, torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), labels
    )


def step(recipe: Recipe, model: nn.Module, loss_of: LossOf, images: ImageSet) -> None:
    """One step: its loss is finite, and every parameter that has a gradient moves."""
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    state = make_state(make_fabric(recipe.training), Objective(model, loss_of), recipe, COUNT, 4)
    loss = train_step(state, next(training_batches(images, COUNT, recipe.augment, 0, 0)))
    assert torch.isfinite(loss)
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    decisive = {name for name in before if "head" in name or "regulation.rho" in name}
    assert decisive <= moved


@pytest.mark.parametrize("name", TARGETS)
def test_a_recipe_for_a_target_trains_a_step(name: str) -> None:
    recipe = read_recipe(TrainRecipe, RECIPES / name)
    recipe = dataclasses.replace(
        recipe,
        target=dataclasses.replace(recipe.target, image_size=SIZE),
        backbone=narrow(recipe.backbone),
        encoder=dataclasses.replace(recipe.encoder, experience=None),
        training=dataclasses.replace(recipe.training, device="cpu", precision="32-true"),
    )
    labels = torch.arange(COUNT) if recipe.target.task == "classification" else torch.ones(COUNT, K)
    classifier, images = build_classifier(recipe, K), noise(labels)
    step(recipe, classifier, classification_loss(classifier, images, recipe), images)


@pytest.mark.parametrize("name", EXPERIENCES)
def test_a_recipe_for_an_experience_trains_a_step(name: str) -> None:
    recipe = read_recipe(PretrainRecipe, RECIPES / "experience" / f"{name}.yaml")
    training = dataclasses.replace(recipe.training, device="cpu", precision="32-true")
    recipe = dataclasses.replace(recipe, backbone=narrow(recipe.backbone), training=training)
    model = AffectiveModel(build_backbone(recipe.backbone, SIZE), 2)

    def loss_of(trained: nn.Module, batch: Batch) -> Tensor:
        return F.mse_loss(trained(batch.images), batch.labels)

    step(recipe, model, loss_of, noise(torch.rand(COUNT, 2)))
