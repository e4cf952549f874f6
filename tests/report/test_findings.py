from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from emoreg.report.analysis import analyse
from emoreg.report.findings import findings, in_points
from emoreg.report.old_arms import ARMS
from emoreg.report.statistics import interval
from result_rows import results, stage_1, stage_2

NAN = math.nan
CONTROLS = [name for name, arm in ARMS.items() if arm.is_control]


def arm(gain: float, seeds: int = 10, number: int = 0) -> list[float]:
    """A tenth of a point to and fro around 0.9 + gain, by seed; no two arms of different number alike."""
    noise = np.random.default_rng(number).uniform(-0.001, 0.001, seeds)
    return [round(value, 4) for value in 0.9 + np.arange(seeds) / 100 + gain + noise - noise.mean()]


def study(seeds: int = 10, /, **gains: float) -> pd.DataFrame:
    return results(stage_2({name: arm(gain, seeds, number) for number, (name, gain) in enumerate(gains.items())}))


def said(table: pd.DataFrame) -> list[str]:
    return findings(analyse("a study", table))


def test_a_difference_comes_with_its_interval_and_p() -> None:
    three = interval([0.01, 0.02, 0.03])
    assert in_points(three) == "+2.00 points (95 % interval −0.48 to +4.48)"
    assert in_points(three, 0.25) == "+2.00 points (95 % interval −0.48 to +4.48, p = 0.250)"
    assert in_points(interval([0.01]), NAN) == "+1.00 points (one seed, no interval, no p)"


def test_a_null_result_is_reported_as_one() -> None:
    sentences = said(study(backbone=0, learned=0, random_encoder=0))
    assert sentences[0] == (
        "No regulated arm is above every control with 10 seeds: nothing here shows that emotion does it."
    )
    assert sentences[1].startswith(
        "The largest difference to the best control is that of Learn-E-Reg to random_encoder: "
    )
    assert sentences[2].startswith(
        "No gain over Backbone is distinguishable from zero with 10 seeds; the largest gain is that of "
    )


def test_an_emotion_effect_comes_first_with_what_it_rules_out() -> None:
    first, ruled_out, gain, *_ = said(study(backbone=0, learned=0.02, fixed=0, **dict.fromkeys(CONTROLS, 0.0)))
    assert first.startswith(
        "1 of 2 regulated arms is above every control with 10 seeds: Learn-E-Reg, over the best one, "
    )
    assert "p = 0.004)" in first
    assert ruled_out == (
        "This is not explained by capacity, image statistics without emotion, any pre-training or ensembling."
    )
    assert gain.startswith("1 of 2 regulated arms is above Backbone with 10 seeds: Learn-E-Reg by +2.00 points (95 % ")


def test_what_controls_that_were_not_run_would_rule_out_is_said() -> None:
    _, _, open_still, *_ = said(study(backbone=0, learned=0.02, random_encoder=0, shuffled_affect=0, ensemble=0))
    assert open_still == "It may still be explained by any pre-training, as neutral_pretext was not run."


def test_a_gain_that_a_control_has_too_is_not_put_down_to_emotion() -> None:
    sentences = said(study(backbone=0, learned=0.02, random_encoder=0, ensemble=0.02))
    assert sentences[0].endswith("nothing here shows that emotion does it.")
    assert "Learn-E-Reg is above Backbone but not above ensemble, so ensembling may explain the gain." in sentences
    own = next(s for s in sentences if s.startswith("Controls above Backbone by their intervals: "))
    assert "ensemble by +2.00 points" in own
    assert "random_encoder" not in own


def test_a_gain_without_any_control_shows_nothing_about_emotion() -> None:
    first, gain, *_ = said(study(backbone=0, learned=0.02))
    assert first == "No control was run with a regulated arm, so nothing here shows that emotion does it."
    assert gain.startswith("The one regulated arm is above Backbone with 10 seeds: Learn-E-Reg by +2.00 points")


def test_a_loss_is_reported_as_one() -> None:
    sentences = said(study(backbone=0, learned=0, fixed=-0.02))
    assert sentences[1].startswith(
        "No regulated arm is above Backbone with 10 seeds; the largest gain is that of Learn-E-Reg: "
    )
    assert sentences[2].startswith("1 of 2 regulated arms is below Backbone with 10 seeds: E-Reg by −2.00 points")


@pytest.mark.parametrize(("seeds", "count"), [(1, "one seed"), (3, "3 seeds"), (6, "6 seeds")])
def test_too_few_seeds_decide_nothing_and_the_number_that_would_is_said(seeds: int, count: str) -> None:
    sentences = said(study(seeds, backbone=0, learned=0.05, fixed=0, **dict.fromkeys(CONTROLS, 0.0)))
    assert sentences[0] == (
        f"Nothing can be decided with {count}: for 2 gains and 2 emotion effects the exact test with Holm's "
        "correction needs at least 7 seeds."
    )
    hint = (
        "The largest mean gain"
        if seeds == 1
        else "Not a result, but a hint from the intervals: Learn-E-Reg exceeds every control, the best of them, "
    )
    assert sentences[1].startswith(hint)
    assert not any("is above" in s or "is not explained" in s for s in sentences)


def test_seeds_may_suffice_for_one_arm_but_not_for_more() -> None:
    few, more = {"backbone": 0.0, "learned": 0.05, "ensemble": 0.0}, {"fixed": 0.0, "random": 0.0}
    assert said(study(6, **few))[0].startswith("The one regulated arm is above every control with 6 seeds")
    assert said(study(6, **few, **more))[0].startswith("Nothing can be decided with 6 seeds")


def test_gains_may_be_decided_where_effects_cannot() -> None:
    table = study(backbone=0, learned=0.02, ensemble=0)
    table.loc[(table["arm"] == "ensemble") & (table["seed"] > 3), "status"] = "waiting"
    first, gain, *_ = said(table)
    assert first.startswith("No emotion effect can be decided with 4 seeds")
    assert gain.startswith("The one regulated arm is above Backbone with 10 seeds")


def test_several_cells_and_experiences_are_named() -> None:
    one = {"backbone": arm(0), "learned": arm(0.02, 10, 1), "ensemble": arm(0, 10, 2)}
    table = results(
        stage_2(one, target="digits", experience="oasis"),
        stage_2({"learned": arm(0, 10, 3)}, target="digits", experience="emoset"),
        stage_2({name: arm(0, 10, 4 + n) for n, name in enumerate(one)}, target="cifar10", experience="oasis"),
    )
    first, *_ = said(table)
    assert "1 of 3 regulated arms is above every control" in first
    assert "Learn-E-Reg (oasis) on digits, resnet8, over the best one, ensemble on digits" not in first
    assert "Learn-E-Reg (oasis) on digits, resnet8, over the best one, ensemble, by" in first


def test_only_a_few_of_many_are_listed() -> None:
    arms = {name: 0.02 for name, arm in ARMS.items() if arm.is_regulated}
    gain = next(s for s in said(study(backbone=0, **arms)) if "above Backbone" in s)
    assert gain.count("points") == 3
    assert gain.endswith("; 1 more.")


def test_what_stage_1_learned_is_compared_with_shuffled_labels() -> None:
    stage2 = stage_2({"backbone": arm(0), "learned": arm(0, 10, 1)})
    table = results(stage_1("affect", (0.8, 0.9)), stage_1("shuffled", (-0.01, -0.03)), stage2)
    sentence = next(s for s in said(table) if "stage 1" in s)
    assert sentence == (
        "In stage 1 the encoder of procedural (resnet8) reached CCC 0.85 (−0.02 with shuffled labels) on validation "
        "images."
    )
    table = results(stage_1("affect", (0.01,)), stage_1("shuffled", (0.0,)), stage2)
    assert "hardly learned emotion" in next(s for s in said(table) if "stage 1" in s)


@pytest.mark.parametrize(("accuracy", "is_said"), [(0.25, True), (0.6, False)])
def test_a_rotation_that_was_not_learned_is_said(accuracy: float, is_said: bool) -> None:
    rotation = [{**row, "validation_ccc": None, "validation_accuracy": accuracy} for row in stage_1("rotation", (0, 0))]
    table = results(stage_1("affect", (0.8, 0.9)), rotation, stage_2({"backbone": arm(0), "learned": arm(0, 10, 1)}))
    assert any(s.startswith("neutral_pretext did not learn which way up an image is") for s in said(table)) == is_said


def test_a_lambda_that_balances_nothing_is_said() -> None:
    table = study(backbone=0, learned=0, fixed=0)
    assert not any(s.startswith("λ") for s in said(table))
    table.loc[(table["arm"] == "learned") & (table["seed"] < 3), "lambda"] = 0.995
    assert "λ ended at a limit, where one response answers alone: Learn-E-Reg (near 1 in 3 of 10 seeds)." in said(table)


def test_a_lambda_per_image_is_judged_by_its_mean_over_test_images() -> None:
    table = study(backbone=0, learned=0)
    table.loc[table["arm"] == "learned", "test_lambda"] = 0.001  # the column lambda has 0.4, at features of zero
    assert any("Learn-E-Reg (near 0 in 10 of 10 seeds)" in s for s in said(table))


def test_a_starved_branch_is_reported_whichever_it_is_in_each_seed() -> None:
    table = study(backbone=0, learned=0, random_encoder=0)
    of_learned, of_control = table["arm"] == "learned", table["arm"] == "random_encoder"
    weak = np.where(table["seed"] < 4, 0.2, 0.6)
    table.loc[of_learned, "test_accuracy_non_emotional"] = weak[of_learned]
    table.loc[of_learned, "test_accuracy_emotional"] = 0.8 - weak[of_learned]
    table.loc[of_control, ["test_accuracy_non_emotional", "test_accuracy_emotional"]] = 0.5
    (sentence,) = [s for s in said(table) if s.startswith("One response")]
    assert sentence == (
        "One response answers almost alone, by the accuracy of each without the other: Learn-E-Reg, 60.00 % and "
        "20.00 %. λ then says which of them won, not that emotion is useful."
    )


def test_unfinished_and_failed_runs_are_counted() -> None:
    table = study(backbone=0, learned=0)
    table.loc[[0, 1], "status"] = ["failed", "waiting"]
    assert "2 of 20 runs are not finished (1 failed) and are left out; these findings may change." in said(table)


def test_the_correction_and_the_choice_of_the_control_are_said_last() -> None:
    *_, correction, choice = said(study(backbone=0, learned=0, fixed=0, ensemble=0))
    assert correction == (
        "Each p is from a sign-flip test paired by seed, Holm-corrected over 2 gains and, separately, 2 emotion "
        "effects; the intervals are not corrected."
    )
    assert choice == "The best control is the one with the highest mean accuracy on validation images."
    accuracies = {"backbone": arm(0), "learned": arm(0, 10, 1), "ensemble": arm(0, 10, 2)}
    assert "the highest mean test accuracy, which makes" in said(results(stage_2(accuracies, validation={})))[-1]


@pytest.mark.parametrize("arms", [("backbone",), ("backbone", "ensemble"), ("learned",)])
def test_nothing_to_compare_is_said(arms: tuple[str, ...]) -> None:
    assert said(study(**dict.fromkeys(arms, 0.0))) == [
        "No regulated arm was run together with Backbone, so there is no gain to report."
    ]


@pytest.mark.parametrize("seeds", [1, 2, 10])
def test_an_absent_number_is_never_written_as_nan(seeds: int) -> None:
    table = study(seeds, **dict.fromkeys(ARMS, 0.0))
    table.loc[(table["arm"] == "learned") & (table["seed"] > 0), "status"] = "failed"
    assert "nan" not in " ".join(said(table)).lower().split()
    assert not any("nan" in s for s in said(table))
