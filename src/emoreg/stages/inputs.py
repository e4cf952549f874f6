"""What the run of a recipe would be made from, as it is on this machine now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emoreg.config.recipe import PretrainRecipe, Recipe
from emoreg.config.schema import StimuliSettings, TargetSettings
from emoreg.data.fingerprint import contents_of
from emoreg.runs.inputs import Inputs, weights_checksum
from emoreg.runs.run import WEIGHTS


def inputs_of(recipe: Recipe, given: Any = None) -> Inputs:
    """The images and the stage-1 weights that a recipe names, without those that are not there.

    Args:
        recipe: of either stage.
        given: what the caller brings in place of what the recipe names: images in stage 1, a model in stage 2.
    """
    sets: dict[str, StimuliSettings | TargetSettings] = {**recipe.sections}
    if isinstance(recipe, PretrainRecipe):
        if given is not None:
            del sets["stimuli"]
        experience = None
    else:
        experience = recipe.encoder.experience if given is None else None
    found = {section: contents_of(settings) for section, settings in sets.items()}
    data = {section: contents for section, contents in found.items() if contents is not None}
    return Inputs(data, None if experience is None else weights_checksum(Path(experience) / WEIGHTS))
