"""What the run of a recipe would be made from, as it is on this machine now."""

from __future__ import annotations

import hashlib
from pathlib import Path

from torch import nn

from emoreg.config.contents import Contents
from emoreg.config.recipe import PretrainRecipe, Recipe, TrainRecipe
from emoreg.config.schema import StimuliSettings, TargetSettings
from emoreg.data.fingerprint import contents_of, contents_of_tables
from emoreg.data.images.table import Table
from emoreg.data.stimuli.emotion import EmotionSpace
from emoreg.data.targets.target import Target
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.inputs import Inputs, weights_checksum
from emoreg.runs.run import WEIGHTS
from emoreg.stages.origins import checksum_of, describe, experiences_of


def inputs_of(
    recipe: Recipe,
    own_images: Target | tuple[Table, EmotionSpace] | None = None,
    model: RegulatedClassifier | None = None,
) -> Inputs:
    """The images and the stage-1 weights that a recipe names, without those that are not there.

    Args:
        recipe: of either stage.
        own_images: those that the caller brings in place of the recipe's target or stimuli.
        model: a classifier that the caller brings, in place of one with the recipe's experience.
    """
    sets: dict[str, StimuliSettings | TargetSettings] = {**recipe.sections}
    experience = given = learning = None
    told = ""
    if model is not None:
        brought = experiences_of(model)
        experience, told, learning = checksum_of(brought), describe(brought), _learning(model)
    elif isinstance(recipe, TrainRecipe) and recipe.encoder.experience is not None:
        experience = weights_checksum(Path(recipe.encoder.experience) / WEIGHTS)
    if own_images is not None:
        given = "stimuli" if isinstance(recipe, PretrainRecipe) else "target"
        del sets[given]
    found = {section: contents_of(settings) for section, settings in sets.items()}
    if own_images is not None and given is not None:
        found[given] = contents_of_given(own_images)
    data = {section: contents for section, contents in found.items() if contents is not None}
    return Inputs(data, experience, given, has_model=model is not None, told=told, learning=learning)


def _learning(model: nn.Module) -> str:
    names = (name for name, parameter in model.named_parameters() if parameter.requires_grad)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def contents_of_given(images: Target | tuple[Table, EmotionSpace]) -> Contents | None:
    """What a caller gives in Python as a target or as stimuli: images, labels and what these stand for.

    None where that is not known, see `contents_of_tables`.
    """
    if isinstance(images, Target):
        return contents_of_tables((images.train, images.test, images.validation), (images.task, *images.classes))
    table, space = images
    return contents_of_tables((table,), (space.kind, *space.names))
