"""What the run of a recipe would be made from, as it is on this machine now."""

from __future__ import annotations

from pathlib import Path

from emoreg.config.recipe import PretrainRecipe, Recipe, TrainRecipe
from emoreg.config.schema import StimuliSettings, TargetSettings
from emoreg.data.fingerprint import contents_of
from emoreg.runs.inputs import Inputs, weights_checksum
from emoreg.runs.run import WEIGHTS


def inputs_of(recipe: Recipe, own_images: bool = False, own_network: bool = False) -> Inputs:
    """The images and the stage-1 weights that a recipe names, without those that are not there.

    Args:
        recipe: of either stage.
        own_images: whether the caller brings the images of the stimuli or the target.
        own_network: whether the caller brings a classifier, in place of one with the recipe's experience.
    """
    sets: dict[str, StimuliSettings | TargetSettings] = {**recipe.sections}
    experience = None
    if isinstance(recipe, TrainRecipe) and not own_network:
        experience = recipe.encoder.experience
    if own_images:
        del sets["stimuli" if isinstance(recipe, PretrainRecipe) else "target"]
    found = {section: contents_of(settings) for section, settings in sets.items()}
    data = {section: contents for section, contents in found.items() if contents is not None}
    return Inputs(data, None if experience is None else weights_checksum(Path(experience) / WEIGHTS))
