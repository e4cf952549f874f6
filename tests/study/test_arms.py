from __future__ import annotations

from pathlib import Path

import pytest

from emoreg.config.recipe import differences
from emoreg.config.schema import EncoderSettings, LossSettings, RegulationSettings, TrainRecipe
from emoreg.study.arms import ARMS, arm_recipe

BASE = TrainRecipe(
    encoder=EncoderSettings(frozen=True, lr_factor=0.1),
    regulation=RegulationSettings("learned", lam=0.3, granularity="per_sample", lr_factor=2),
    loss=LossSettings(label_smoothing=0.1, non_emotional=0.5, emotional=0.5, mutual=0.5),
)
CONTROLS = ("random_encoder", "shuffled_affect", "neutral_pretext", "ensemble")


def test_every_control_says_what_it_rules_out_and_no_regulated_arm_is_one() -> None:
    assert tuple(name for name, arm in ARMS.items() if arm.is_control) == CONTROLS
    assert {name for name, arm in ARMS.items() if arm.is_regulated} == {"fixed", "random", "learned", "random_learned"}
    assert not ARMS["backbone"].is_control and not ARMS["backbone"].is_regulated


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_differs_from_the_studys_recipe_in_the_emotional_branch_and_the_seed_alone(name: str) -> None:
    recipe = arm_recipe(BASE, name, Path("runs/experience"), seed=7)
    changed = {line.split(":")[0] for line in differences(BASE, recipe)}
    assert {key.split(".")[0] for key in changed} <= {"encoder", "regulation", "loss", "seed"}
    assert recipe.seed == 7 and recipe.loss.label_smoothing == 0.1
    assert recipe.encoder.experience == ("runs/experience" if ARMS[name].pretext else None)
    if name not in ("backbone", "ensemble"):
        assert changed <= {"encoder.experience", "regulation.mode", "regulation.granularity", "seed"}
        assert recipe.regulation.mode == (ARMS[name].mode or "learned")
        assert recipe.regulation.granularity == ("per_sample" if "learned" in recipe.regulation.mode else "scalar")


def test_a_control_differs_from_its_arm_in_the_experience_alone() -> None:
    learned = arm_recipe(BASE, "learned", "runs/affect", 1)
    for name, folder in (("random_encoder", None), ("shuffled_affect", "runs/s"), ("neutral_pretext", "runs/r")):
        assert differences(learned, arm_recipe(BASE, name, folder, 1)) == [
            f"encoder.experience: runs/affect -> {folder}"
        ]


def test_controls_can_be_regulated_in_another_mode() -> None:
    assert arm_recipe(BASE, "random_encoder", None, 0, control_mode="fixed").regulation.mode == "fixed"
    assert arm_recipe(BASE, "random_learned", "x", 0, control_mode="fixed").regulation.mode == "random_learned"


def test_the_ensemble_is_two_plain_backbones_each_with_its_own_loss_and_averaged_probabilities() -> None:
    recipe = arm_recipe(BASE, "ensemble", None, 0)
    assert recipe.encoder == EncoderSettings(backbone=recipe.backbone)  # trained, at the same learning rate
    assert recipe.regulation == RegulationSettings("fixed", lam=0.5, mix="probabilities")
    assert recipe.loss == LossSettings(label_smoothing=0.1, regulated=0, non_emotional=1, emotional=1)


def test_the_backbone_has_no_part_of_the_method() -> None:
    recipe = arm_recipe(BASE, "backbone", None, 0)
    assert (recipe.encoder, recipe.regulation) == (EncoderSettings(), RegulationSettings())
    assert recipe.loss_weights == (1, 0, 0, 0) and recipe.loss.label_smoothing == 0.1
