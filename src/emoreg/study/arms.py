"""What a study compares: the plain backbone, the regulated arms, and the controls to judge them by."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from emoreg.config.schema import LEARNED, EncoderSettings, Mode, Pretext, RegulationSettings, TrainRecipe


@dataclass(frozen=True)
class Arm:
    """One thing that is compared.

    Args:
        label: in reports.
        mode: of the regulation; None for a control, whose mode is the study's `control_mode`.
        pretext: what its emotional encoder learns in stage 1; None for an encoder that has no stage 1.
        rules_out: for a control, the explanation of a gain that it rules out where an arm passes it.
    """

    label: str
    mode: Mode | None
    pretext: Pretext | None
    rules_out: str = ""

    @property
    def is_control(self) -> bool:
        """Whether it stands beside the regulated arms to judge them by."""
        return bool(self.rules_out)

    @property
    def is_regulated(self) -> bool:
        """Whether it is one of the method's own arms."""
        return self.pretext == "affect"


# Names and labels as in docs/method.md; the controls are ours.
ARMS: Mapping[str, Arm] = {
    "backbone": Arm("Backbone", "none", None),
    "fixed": Arm("E-Reg", "fixed", "affect"),
    "random": Arm("Rand-E-Reg", "random", "affect"),
    "learned": Arm("Learn-E-Reg", "learned", "affect"),
    "random_learned": Arm("Rand-Learn-E-Reg", "random_learned", "affect"),
    "random_encoder": Arm("random_encoder", None, None, rules_out="capacity"),
    "shuffled_affect": Arm("shuffled_affect", None, "shuffled", rules_out="image statistics without emotion"),
    "neutral_pretext": Arm("neutral_pretext", None, "rotation", rules_out="any pre-training"),
    "ensemble": Arm("ensemble", "fixed", None, rules_out="ensembling"),
}


def arm_recipe(
    recipe: TrainRecipe, name: str, experience: Path | str | None, seed: int, control_mode: Mode = "learned"
) -> TrainRecipe:
    """The recipe of one arm: it differs from `recipe` in the emotional branch and the seed, in nothing else.

    What an arm cannot have is left out: the plain backbone the losses of the two responses, a λ that is not
    learned its granularity. The ensemble is two plain backbones side by side: each has its own loss alone, on
    the same batches, and their probabilities are averaged.

    Args:
        recipe: of the study; its encoder's and regulation's other settings are kept.
        name: of the arm.
        experience: folder of the stage-1 run, for arms that have one.
        seed: of the run.
        control_mode: of the controls that have the method's shape.
    """
    arm = ARMS[name]
    recipe = dataclasses.replace(recipe, seed=seed)
    loss = recipe.loss
    if name == "backbone":
        plain = dataclasses.replace(loss, regulated=1.0, non_emotional=0.0, emotional=0.0, mutual=0.0)
        return dataclasses.replace(recipe, encoder=EncoderSettings(), regulation=RegulationSettings(), loss=plain)
    if name == "ensemble":
        return dataclasses.replace(
            recipe,
            encoder=EncoderSettings(backbone=recipe.backbone),
            regulation=RegulationSettings(mode="fixed", lam=0.5, mix="probabilities"),
            loss=dataclasses.replace(loss, regulated=0.0, non_emotional=1.0, emotional=1.0, mutual=0.0),
        )
    mode = arm.mode or control_mode
    # Only a λ that is learned can differ between classes or samples.
    granularity = recipe.regulation.granularity if mode in LEARNED else "scalar"
    return dataclasses.replace(
        recipe,
        encoder=dataclasses.replace(recipe.encoder, experience=None if arm.pretext is None else str(experience)),
        regulation=dataclasses.replace(recipe.regulation, mode=mode, granularity=granularity),
    )
