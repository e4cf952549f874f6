"""What the run of a recipe would be made from: the images and weights that are on this machine now."""

from __future__ import annotations

import hashlib
from pathlib import Path

from torch import nn

from emoreg.config.recipe import PretrainRecipe, Recipe
from emoreg.data.fingerprint import contents_of
from emoreg.data.given import GivenStimuli, contents_of_given
from emoreg.data.targets.target import Target
from emoreg.runs.inputs import Inputs, weights_checksum
from emoreg.runs.run import WEIGHTS
from emoreg.stages.origins import checksum_of, describe_experiences, experiences_of


def inputs_of(
    recipe: Recipe,
    own_images: Target | GivenStimuli | None = None,
    network: nn.Module | None = None,
) -> Inputs:
    """Identify the images and stage-1 weights of a run by their contents; files that do not exist are left out.

    Args:
        recipe: of either stage.
        own_images: user-supplied images that replace the recipe's target or stimuli.
        network: user-supplied classifier or encoder that replaces the recipe's.
    """
    own_section = "stimuli" if isinstance(recipe, PretrainRecipe) else "target"
    given = None if own_images is None else own_section
    contents = {section: contents_of(settings) for section, settings in recipe.sections.items() if section != given}
    if own_images is not None:
        contents[own_section] = contents_of_given(own_images)
    data = {section: each for section, each in contents.items() if each is not None}
    learning = None if network is None else _trainable(network)
    if isinstance(recipe, PretrainRecipe):
        return Inputs(data, given=given, learning=learning)
    if network is not None:
        experiences = experiences_of(network)
        origin = describe_experiences(experiences)
        return Inputs(data, checksum_of(experiences), given, has_model=True, origin=origin, learning=learning)
    experience = recipe.encoder.experience
    return Inputs(data, None if experience is None else weights_checksum(Path(experience) / WEIGHTS), given)


def _trainable(network: nn.Module) -> str:
    """SHA-256 of the names of the trainable parameters."""
    names = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()
