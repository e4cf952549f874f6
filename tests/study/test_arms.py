from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from emoreg.config.loss import LossSettings
from emoreg.config.read_recipe import differences
from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import RELATIVES, EncoderSettings, RegulationSettings, Relative
from emoreg.study.arms import (
    EXPERIENCES,
    REFERENCES,
    REGULATED,
    USUAL_REFERENCES,
    Experience,
    PlannedArm,
    RegulatedMode,
    factorial,
    recipe_of,
)

BASE = TrainRecipe(
    encoder=EncoderSettings(frozen=True, lr_factor=0.1, takeover="shrunk", shrink=0.7),
    regulation=RegulationSettings("learned", lam=0.3, granularity="per_sample", lr_factor=2),
    loss=LossSettings(label_smoothing=0.1, regulated=1, non_emotional=0.5, emotional=0.5, mutual=0.5),
)
STAGE_1 = Path("runs/stage-1")


def changed(arm: PlannedArm) -> set[str]:
    """The settings in which the recipe of an arm differs from the study's."""
    return {line.split(":")[0] for line in differences(BASE, recipe_of(arm, BASE, STAGE_1, seed=7))}


def test_a_factorial_design_has_every_mode_with_every_experience_and_each_reference_once() -> None:
    arms = factorial(("fixed", "learned"))
    assert len(arms) == 2 * 6 + 4 == len(set(arms)) and arms[0] == PlannedArm("none")
    assert {arm for arm in arms if not arm.has_regulated_mode} == {REFERENCES[name] for name in USUAL_REFERENCES}
    assert [arm.experience for arm in arms if arm.mode == "fixed"] == list(EXPERIENCES)
    assert factorial((), (), ("ensemble", "backbone")) == (PlannedArm("none"), PlannedArm("ensemble"))


@pytest.mark.parametrize("mode", REGULATED)
@pytest.mark.parametrize("experience", EXPERIENCES)
def test_a_regulated_arm_differs_from_the_studys_recipe_in_mode_experience_and_seed_alone(
    mode: RegulatedMode, experience: Experience
) -> None:
    arm = PlannedArm(mode, experience)
    recipe = recipe_of(arm, BASE, STAGE_1, seed=7)
    allowed = {"encoder.experience", "regulation.mode", "regulation.granularity", "seed"}
    allowed |= {"encoder.moments_only"} if experience == "moments" else set()
    allowed |= {"encoder.takeover", "encoder.shrink"} if experience == "fresh" else set()  # it takes over nothing
    assert changed(arm) <= allowed
    assert recipe.seed == 7 and recipe.regulation.mode == mode
    assert recipe.encoder.experience == (None if experience == "fresh" else str(STAGE_1))
    assert recipe.regulation.granularity == ("per_sample" if "learned" in mode else "scalar")


@pytest.mark.parametrize("mode", REGULATED)
def test_a_twin_differs_from_its_arm_in_the_experience_alone(mode: RegulatedMode) -> None:
    affect = recipe_of(PlannedArm(mode, "affect"), BASE, "runs/affect", 1)
    for experience in ("shuffled", "neutral", "rotation"):
        twin = recipe_of(PlannedArm(mode, experience), BASE, f"runs/{experience}", 1)
        assert differences(affect, twin) == [f"encoder.experience: runs/affect -> runs/{experience}"]
    moments = recipe_of(PlannedArm(mode, "moments"), BASE, "runs/affect", 1)
    assert differences(affect, moments) == ["encoder.moments_only: False -> True"]
    fresh = recipe_of(PlannedArm(mode, "fresh"), BASE, None, 1)
    assert {line.split(":")[0] for line in differences(affect, fresh)} == {
        "encoder.experience",
        "encoder.takeover",
        "encoder.shrink",
    }


def test_settings_of_the_takeover_do_not_change_the_fresh_twin() -> None:
    as_is = TrainRecipe(regulation=RegulationSettings("learned"))
    shrunk = TrainRecipe(regulation=RegulationSettings("learned"), encoder=EncoderSettings(takeover="shrunk"))
    fresh = PlannedArm("learned", "fresh")
    assert recipe_of(fresh, as_is, None, 0) == recipe_of(fresh, shrunk, None, 0)


def test_affect_and_moments_and_transfer_need_the_same_stage_1_and_fresh_none() -> None:
    pretexts = {experience: PlannedArm("learned", experience).pretext for experience in EXPERIENCES}
    assert pretexts == {"affect": "affect", "moments": "affect", "fresh": None} | {
        name: name for name in ("shuffled", "neutral", "rotation")
    }
    assert {name for name, arm in REFERENCES.items() if arm.pretext == "affect"} == {"transfer", "unregulated"}


def test_the_ensemble_is_two_plain_backbones_each_with_its_own_loss_and_averaged_probabilities() -> None:
    recipe = recipe_of(PlannedArm("ensemble"), BASE, None, 0)
    assert recipe.encoder == EncoderSettings(backbone=recipe.backbone)  # trained, at the same learning rate
    assert recipe.regulation == RegulationSettings("fixed", lam=0.5, mix="probabilities")
    assert recipe.loss == LossSettings(label_smoothing=0.1, regulated=0, non_emotional=1, emotional=1)
    assert recipe.loss.budget == "matched"


def test_unregulated_differs_from_the_fixed_arm_only_in_loss_and_lambda() -> None:
    fixed, apart = (recipe_of(PlannedArm(mode, "affect"), BASE, STAGE_1, 3) for mode in ("fixed", "unregulated"))
    assert {line.split(":")[0] for line in differences(fixed, apart)} == {
        *("loss.regulated", "loss.non_emotional", "loss.emotional", "loss.mutual"),
        *("regulation.lam", "regulation.lr_factor"),
    }
    assert apart.loss == recipe_of(PlannedArm("ensemble"), BASE, None, 3).loss
    assert apart.encoder == fixed.encoder and apart.encoder.experience == str(STAGE_1)


def test_only_a_learned_lambda_warms_up() -> None:
    base = dataclasses.replace(BASE, regulation=RegulationSettings("learned", warmup=0.2))
    warmups = {
        arm.mode: recipe_of(arm, base, STAGE_1, 3).regulation.warmup
        for arm in (PlannedArm("learned"), PlannedArm("random_learned"), PlannedArm("fixed"), PlannedArm("random"))
    }
    assert warmups == {"learned": 0.2, "random_learned": 0.2, "fixed": 0.0, "random": 0.0}


def test_the_default_references_do_not_change() -> None:
    assert [arm.mode for arm in factorial() if not arm.has_regulated_mode] == ["none", "ensemble", "wide", "transfer"]


def test_relatives_are_added_to_the_references_and_have_no_twins() -> None:
    arms = factorial(("learned",), relatives=("liaenn", "embp"))
    assert arms[-2:] == (PlannedArm("embp"), PlannedArm("liaenn")) and arms[:-2] == factorial(("learned",))
    assert not any(arm.has_regulated_mode or arm.pretext or arm.experience for arm in arms[-2:])


@pytest.mark.parametrize("mode", RELATIVES)
def test_a_relative_differs_from_backbone_only_in_its_head(mode: Relative) -> None:
    backbone, relative = (recipe_of(arm, BASE, None, 3) for arm in (PlannedArm("none"), PlannedArm(mode)))
    assert differences(backbone, relative) == [f"regulation.mode: none -> {mode}"]


@pytest.mark.parametrize("mode", ["none", "wide"])
def test_settings_of_the_method_are_reset_for_plain_networks(mode: str) -> None:
    recipe = recipe_of(PlannedArm("none" if mode == "none" else "wide"), BASE, None, 0)
    assert (recipe.encoder, recipe.regulation) == (EncoderSettings(), RegulationSettings())
    assert recipe.loss == LossSettings(label_smoothing=0.1) and recipe.loss_weights == (1, 0, 0, 0)


def test_transfer_fine_tunes_the_encoder_alone_with_the_studys_takeover() -> None:
    recipe = recipe_of(PlannedArm("transfer", "affect"), BASE, STAGE_1, 0)
    assert recipe.encoder == EncoderSettings(str(STAGE_1), takeover="shrunk", shrink=0.7)
    anchored = dataclasses.replace(BASE, encoder=EncoderSettings(anchor=0.1))
    assert recipe_of(PlannedArm("transfer", "affect"), anchored, STAGE_1, 0).encoder.anchor == 0.1
    assert recipe_of(PlannedArm("ensemble"), anchored, None, 0).encoder.anchor == 0  # two plain networks
    rehearsing = dataclasses.replace(BASE, encoder=EncoderSettings(rehearsal=0.5))
    assert recipe_of(PlannedArm("transfer", "affect"), rehearsing, STAGE_1, 0).encoder.rehearsal == 0.5
    assert recipe_of(PlannedArm("ensemble"), rehearsing, None, 0).encoder.rehearsal == 0
    assert recipe.regulation == RegulationSettings("transfer")
    assert recipe.loss == LossSettings(label_smoothing=0.1)


def test_the_first_edition_s_references_keep_its_losses() -> None:
    loss = LossSettings(regulated=1, non_emotional=0, emotional=0, budget="as_given")
    old = TrainRecipe(regulation=RegulationSettings("learned", mix="logits"), loss=loss, edition=1)
    assert recipe_of(PlannedArm("none"), old, None, 0).loss == loss
    ensemble = LossSettings(regulated=0, non_emotional=1, emotional=1, budget="as_given")
    assert recipe_of(PlannedArm("ensemble"), old, None, 0).loss == ensemble


def test_only_twins_that_have_learned_something_rehearse() -> None:
    study = dataclasses.replace(BASE, encoder=EncoderSettings(rehearsal=0.5))
    arms: dict[Experience, float] = {
        experience: recipe_of(PlannedArm("learned", experience), study, STAGE_1, 0).encoder.rehearsal
        for experience in EXPERIENCES
    }
    taught = {"affect": 0.5, "shuffled": 0.5, "neutral": 0.5, "rotation": 0.5}
    assert arms == {"fresh": 0.0, "moments": 0.0, **taught}
    assert recipe_of(PlannedArm("learned", "fresh"), study, None, 0) == recipe_of(
        PlannedArm("learned", "fresh"), plain(study), None, 0
    )
    assert recipe_of(PlannedArm("unregulated", "affect"), study, STAGE_1, 0).encoder.rehearsal == 0.5


def plain(recipe: TrainRecipe) -> TrainRecipe:
    return dataclasses.replace(recipe, encoder=EncoderSettings())
