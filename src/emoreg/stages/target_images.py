"""The images of a target: divided into training, validation and test images, and decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import TargetSettings
from emoreg.config.training import TrainingSettings
from emoreg.data.images.image_set import ImageSet, load_images
from emoreg.data.images.splits import at_most
from emoreg.data.images.table import Table
from emoreg.data.targets.target import Target, require_measurable
from emoreg.data.targets.training_part import training_part
from emoreg.runtime.progress import Progress
from emoreg.training.launch import RunContext

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class TargetImages(NamedTuple):
    """Decoded images. `validation` and `test` are None if there are none, and in all processes but the leader."""

    train: ImageSet
    validation: ImageSet | None
    test: ImageSet | None


def load_parts_of(context: RunContext[TrainRecipe], target: Target) -> TargetImages:
    """Decode the images of a run."""
    recipe, progress = context.recipe, context.progress
    train, *held_out = parts_of(target, recipe, progress)

    def load(table: Table) -> ImageSet:
        return load_target(table, recipe.target, recipe.training, context.fabric, progress)

    images = load(train)
    validation, test = (load(table) if table and context.is_leader else None for table in held_out)
    return TargetImages(images, validation, test)


def parts_of(
    target: Target, recipe: TrainRecipe, progress: Progress | None = None
) -> tuple[Table, Table | None, Table | None]:
    """Divide a target into training, validation and test images, as the recipe specifies.

    Args:
        target: the whole task.
        recipe: of the run.
        progress: reports images that are left out; None for no reports.

    Raises:
        UserError: as `training_part`; test images on which nothing can be measured.
    """
    settings = recipe.target
    train, validation = training_part(target, settings, recipe.seed, recipe.edition, progress)
    if not settings.test:
        return train, validation, None
    test = limited_test(target.test, recipe)
    require_measurable(test, target.task)
    return train, validation, test


def limited_test(test: Table, recipe: TrainRecipe) -> Table:
    """The test images of a target that a run is scored on: at most target.test_limit of them."""
    limit = recipe.target.test_limit
    return test if limit is None else test.take(at_most(np.arange(len(test)), test.labels, limit, recipe.seed))


def load_target(
    table: Table, target: TargetSettings, training: TrainingSettings, fabric: Fabric, progress: Progress
) -> ImageSet:
    """Decode images of a target, and move them to the device if they fit into memory."""
    limit = training.memory_limit_gib
    images = load_images(table, target.image_size, target.skip_unreadable, limit, progress, target.fit)
    return images.to(fabric.device)
