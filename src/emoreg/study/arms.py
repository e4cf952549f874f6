"""What a study compares: the plain backbone, the regulated arms, and the controls to judge them by."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from emoreg.config.schema import LEARNED, EncoderSettings, Mode, Pretext, RegulationSettings, TrainRecipe, defaults


@dataclass(frozen=True)
class Arm:
    """One thing that is compared.

    Args:
        label: its name in reports.
        mode: regulation mode; None for a control that uses the study's `control_mode`.
        pretext: what its emotional encoder learns in stage 1; None for an encoder without stage 1.
        rules_out: the explanation of a gain that is ruled out if an arm is better than this control; empty for an arm
            that is not a control.
    """

    label: str
    mode: Mode | None
    pretext: Pretext | None
    rules_out: str = ""

    @property
    def is_control(self) -> bool:
        """Whether the regulated arms are judged by comparison with it."""
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
    """The recipe of one arm. It differs from `recipe` only in the emotional branch and the seed.

    Settings that do not apply to the arm are reset: the losses of the two responses for the plain backbone, the
    granularity of a λ that is not learned. The ensemble is two plain backbones, each trained by its own loss alone on
    the same batches; their probabilities are averaged.

    Args:
        recipe: the study's; its other settings are kept.
        name: a key of ARMS.
        experience: folder of the stage-1 run, for arms with a pretext.
        seed: seed of the run.
        control_mode: regulation mode of the controls that have none of their own.
    """
    arm = ARMS[name]
    recipe = dataclasses.replace(recipe, seed=seed)
    loss = recipe.loss
    if name == "backbone":
        plain = dataclasses.replace(loss, regulated=1.0, non_emotional=0.0, emotional=0.0, mutual=0.0)
        own = defaults(TrainRecipe, recipe.edition).regulation
        return dataclasses.replace(recipe, encoder=EncoderSettings(), regulation=own, loss=plain)
    if name == "ensemble":
        return dataclasses.replace(
            recipe,
            encoder=EncoderSettings(backbone=recipe.backbone),
            regulation=RegulationSettings(mode="fixed", lam=0.5, mix="probabilities"),
            loss=dataclasses.replace(loss, regulated=0.0, non_emotional=1.0, emotional=1.0, mutual=0.0),
        )
    mode = arm.mode or control_mode
    # Only a learned λ can differ between classes or samples.
    granularity = recipe.regulation.granularity if mode in LEARNED else "scalar"
    return dataclasses.replace(
        recipe,
        encoder=dataclasses.replace(recipe.encoder, experience=None if arm.pretext is None else str(experience)),
        regulation=dataclasses.replace(recipe.regulation, mode=mode, granularity=granularity),
    )
