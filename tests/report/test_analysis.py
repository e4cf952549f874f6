from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.power import TTestPower

from emoreg.report.analysis import Analysis, ArmResult, analyse
from emoreg.report.old_arms import ARMS
from emoreg.report.statistics import above_all, holm, sign_flip_p
from refusing import refusal
from result_rows import results, stage_1, stage_2

NAN = math.nan
PLAIN = (0.900, 0.910, 0.905)
CONTROLS = [name for name, arm in ARMS.items() if arm.is_control]
REGULATED = [name for name, arm in ARMS.items() if arm.is_regulated]


def shifted(*gains: float) -> tuple[float, ...]:
    return tuple(b + gain for b, gain in zip(PLAIN, gains, strict=True))


def arm_of(analysis: Analysis, name: str, cell: int = 0, experience: str | None = None) -> ArmResult:
    found = [arm for arm in analysis.cells[cell].arms if arm.name == name and arm.experience in (None, experience)]
    return found[0] if found else next(arm for arm in analysis.cells[cell].arms if arm.name == name)


def test_gains_are_paired_by_seed_and_arms_come_in_their_order() -> None:
    table = results(
        stage_2({"ensemble": shifted(0.01, 0.01, 0.01), "learned": shifted(0.02, 0.021, 0.022), "backbone": PLAIN})
    )
    analysis = analyse("a study", table.sample(frac=1, random_state=0))
    assert [arm.name for arm in analysis.cells[0].arms] == ["backbone", "learned", "ensemble"]
    learned, plain = arm_of(analysis, "learned"), arm_of(analysis, "backbone")
    assert learned.gain is not None
    assert learned.gain.difference.values == pytest.approx((0.02, 0.021, 0.022))
    assert learned.gain.p == 0.25
    assert learned.accuracy.values == pytest.approx(shifted(0.02, 0.021, 0.022))
    assert (plain.gain, plain.effect, plain.lam) == (None, None, ())
    assert (learned.lam, learned.seconds, learned.parameters, learned.flops) == ((0.4,) * 3, 10.0, 1000, 5000)
    assert (analysis.seeds, analysis.planned, analysis.finished) == ((0, 1, 2), 9, 9)


def test_either_response_alone_is_of_the_seeds_that_have_both() -> None:
    table = results(stage_2({"backbone": PLAIN, "learned": PLAIN}))
    assert arm_of(analyse("a study", table), "learned").responses is None
    of_learned = table["arm"] == "learned"
    table.loc[of_learned, "test_accuracy_non_emotional"] = [0.2, 0.3, NAN]
    table.loc[of_learned, "test_accuracy_emotional"] = [0.8, 0.9, 0.7]
    analysis = analyse("a study", table)
    assert arm_of(analysis, "backbone").responses is None
    responses = arm_of(analysis, "learned").responses
    assert responses is not None
    assert [response.values for response in responses] == [(0.2, 0.3), (0.8, 0.9)]


def test_only_seeds_that_both_have_are_compared() -> None:
    table = results(
        stage_2({"backbone": (NAN, 0.91, 0.905), "learned": (0.93, NAN, 0.925), "ensemble": (NAN, 0.9, NAN)})
    )
    analysis = analyse("a study", table)
    learned = arm_of(analysis, "learned")
    assert learned.gain is not None
    assert learned.gain.difference.values == pytest.approx((0.02,))
    assert math.isnan(learned.gain.p)
    assert math.isnan(learned.gain.p_holm)
    assert learned.effect is None  # the only control shares no seed with it
    assert (analysis.planned, analysis.finished, analysis.tested_gains, analysis.tested_effects) == (9, 5, 0, 0)


def test_what_is_not_finished_is_as_if_it_were_not_there() -> None:
    assert analyse("a study", results(stage_2({"backbone": (NAN, NAN), "learned": (NAN,)}))).cells == ()
    table = results(stage_2({"backbone": PLAIN, "learned": (NAN, NAN, NAN), "fixed": shifted(0.01, 0, 0.02)}))
    table.loc[table["arm"] == "learned", ["status", "error"]] = ["failed", "out of memory"]
    analysis = analyse("a study", table)
    assert [arm.name for arm in analysis.cells[0].arms] == ["backbone", "fixed"]
    assert analysis.failures[0] == ("digits-resnet8-learned-procedural-seed0", "out of memory")
    assert len(analysis.failures) == 3


def test_an_effect_is_measured_against_the_best_control_on_validation_images() -> None:
    accuracies = {
        "backbone": PLAIN,
        "learned": shifted(0.02, 0.021, 0.022),
        "random_encoder": shifted(0.015, 0.015, 0.016),
        "ensemble": shifted(0.01, 0.012, 0.011),
    }
    validation = {"backbone": 0.9, "learned": 0.9, "random_encoder": 0.8, "ensemble": 0.85}
    effect = arm_of(analyse("a study", results(stage_2(accuracies, validation=validation))), "learned").effect
    assert effect is not None
    assert effect.control == "ensemble"
    assert effect.by_validation
    assert effect.difference.values == pytest.approx((0.01, 0.009, 0.011))
    assert [label for label, _ in effect.against] == ["random_encoder", "ensemble"]
    unseen = arm_of(analyse("a study", results(stage_2(accuracies, validation={}))), "learned")
    assert unseen.effect is not None
    assert (unseen.effect.control, unseen.effect.by_validation) == ("random_encoder", False)
    assert unseen.validation is None
    assert unseen.effect.p == effect.p  # chooses none


def test_an_arm_that_is_below_one_control_has_no_effect_however_far_above_the_others() -> None:
    accuracies = {"learned": shifted(0.02, 0.02, 0.02), "random_encoder": PLAIN, "ensemble": shifted(0.03, 0.03, 0.03)}
    effect = arm_of(analyse("a study", results(stage_2(accuracies))), "learned").effect
    assert effect is not None
    assert effect.p == 1.0


def test_each_experience_has_its_own_controls_and_shares_the_others() -> None:
    shared = stage_2({"backbone": PLAIN, "random_encoder": PLAIN, "ensemble": PLAIN})
    own = {"learned": shifted(0.02, 0.021, 0.022), "shuffled_affect": shifted(0.01, 0.01, 0.01)}
    table = results(shared, stage_2(own, experience="oasis"), stage_2(own, experience="emoset"))
    effect = arm_of(analyse("a study", table), "learned", experience="emoset").effect
    assert effect is not None
    assert [label for label, _ in effect.against] == ["random_encoder", "shuffled_affect (emoset)", "ensemble"]


def test_the_two_families_are_corrected_over_all_cells_and_controls_stay_out() -> None:
    accuracies = {
        "backbone": PLAIN,
        "learned": shifted(0.02, 0.021, 0.022),
        "fixed": shifted(0.01, 0.011, -0.01),
        "random_encoder": shifted(0.001, -0.001, 0.0005),
    }
    table = results(stage_2(accuracies), stage_2(accuracies, backbone="resnet20"))
    analysis = analyse("a study", table)
    arms = [arm for cell in analysis.cells for arm in cell.arms if arm.arm.is_regulated]
    gains = [arm.gain for arm in arms if arm.gain]
    effects = [arm.effect for arm in arms if arm.effect]
    assert [gain.p_holm for gain in gains] == holm([gain.p for gain in gains])
    assert [effect.p_holm for effect in effects] == holm([effect.p for effect in effects])
    assert (analysis.tested_gains, analysis.tested_effects) == (4, 4)
    control = arm_of(analysis, "random_encoder").gain
    assert control is not None
    assert not math.isnan(control.p)
    assert math.isnan(control.p_holm)


def test_classes_without_images_and_bins_without_images_stay_empty() -> None:
    lists: dict[str, Any] = {
        "classes": ["0", "1"],
        "test_per_class": [0.5, NAN],
        "test_reliability_confidence": [NAN, 0.9],
        "test_reliability_accuracy": [NAN, 0.8],
        "test_reliability_count": [0, 10],
    }
    table = results(stage_2({"backbone": PLAIN, "learned": PLAIN}, **lists))
    analysis = analyse("a study", table)
    learned = arm_of(analysis, "learned")
    assert analysis.cells[0].classes == ("0", "1")
    assert [i.n for i in learned.per_class_gain] == [3, 0]
    assert [i.mean for i in learned.per_class_gain] == pytest.approx([0.0, NAN], nan_ok=True)
    assert arm_of(analysis, "backbone").per_class_gain == ()
    assert learned.reliability[1] == pytest.approx((0.9, 0.8, 30))
    assert math.isnan(learned.reliability[0][0])
    assert learned.reliability[0][2] == 0


def test_reliability_is_pooled_by_images_not_by_seeds() -> None:
    rows = stage_2({"backbone": (0.9, 0.9)})
    for row, (confidence, accuracy, count) in zip(rows, [(0.6, 0.5, 10), (0.9, 1.0, 30)], strict=True):
        row |= {"test_reliability_confidence": [confidence], "test_reliability_accuracy": [accuracy]}
        row |= {"test_reliability_count": [count]}
    ((confidence, accuracy, count),) = arm_of(analyse("a study", results(rows)), "backbone").reliability
    assert (confidence, accuracy, count) == pytest.approx((0.825, 0.875, 40))


def test_a_table_read_from_a_file_says_the_same(tmp_path: Path) -> None:
    lists: dict[str, Any] = {"classes": ["0", "1"], "test_per_class": [0.5, 0.9], "test_reliability_count": [1, 2]}
    lists |= {"test_reliability_confidence": [0.5, 0.9], "test_reliability_accuracy": [0.5, 0.9]}
    accuracies = {"backbone": PLAIN, "learned": shifted(0.02, 0.021, 0.022), "ensemble": PLAIN}
    table = results(stage_1("affect", (0.5, 0.6, 0.7)), stage_2(accuracies, **lists))
    table.to_parquet(tmp_path / "results.parquet")
    one, other = analyse("a study", table), analyse("a study", pd.read_parquet(tmp_path / "results.parquet"))
    assert repr(one) == repr(other)


def test_curves_are_those_of_the_runs_that_have_some() -> None:
    rows = stage_2({"backbone": (0.9, 0.91)})
    rows[1] |= {"epochs.epoch": [1, 2], "epochs.val_accuracy": [0.5, 0.6]}
    curves = arm_of(analyse("a study", results(rows)), "backbone").curves
    assert curves.to_dict("list") == {"epoch": [1, 2], "val_accuracy": [0.5, 0.6], "seed": [1, 1]}


def gated() -> pd.DataFrame:
    """A study whose Learn-E-Reg has one λ per image: 0.4 at features of zero, 0.001 as the mean over test images."""
    table = results(stage_2({"backbone": PLAIN, "learned": PLAIN, "fixed": PLAIN}))
    of_learned = table["arm"] == "learned"
    table["recipe.regulation.granularity"] = np.where(of_learned, "per_sample", "scalar")
    table["test_lambda"] = np.where(of_learned, 0.001, NAN)
    table["epochs.epoch"] = pd.Series([[1, 2]] * len(table))
    table["epochs.lambda"] = pd.Series([[0.5, 0.4] if arm != "backbone" else None for arm in table["arm"]])
    return table


def test_lambda_at_the_end_is_the_mean_over_test_images_where_that_was_measured() -> None:
    analysis = analyse("a study", gated())
    assert arm_of(analysis, "learned").lam == (0.001,) * 3
    assert arm_of(analysis, "fixed").lam == (0.4,) * 3
    assert arm_of(analysis, "backbone").lam == ()


@pytest.mark.parametrize(("recorded", "is_omitted"), [(0.4, True), (0.001, False)])
def test_a_lambda_curve_at_features_of_zero_is_left_out(recorded: float, is_omitted: bool) -> None:
    table = gated()
    table.loc[table["arm"] == "learned", "lambda"] = recorded
    analysis = analyse("a study", table)
    learned, fixed = arm_of(analysis, "learned"), arm_of(analysis, "fixed")
    assert ("lambda" in learned.curves, learned.omits_lambda_curve) == (not is_omitted, is_omitted)
    assert fixed.curves["lambda"].to_list() == [0.5, 0.4] * 3 and not fixed.omits_lambda_curve


def test_what_stage_1_learned_comes_by_pretext() -> None:
    table = results(stage_1("affect", (0.5, 0.7)), stage_1("shuffled", (0.0, 0.1)), stage_2({"backbone": PLAIN}))
    affect, shuffled = analyse("a study", table).experiences
    assert (affect.label, affect.pretext, affect.backbone, affect.seconds) == ("procedural", "affect", "resnet8", 5.0)
    assert dict(affect.metrics)["ccc"].mean == pytest.approx(0.6)
    assert [name for name, _ in shuffled.metrics] == ["ccc", "loss"]


def test_a_run_that_is_there_twice_is_refused() -> None:
    table = results(stage_2({"backbone": PLAIN}), stage_2({"backbone": PLAIN}))
    assert "the run digits-resnet8-backbone-None-seed0 twice" in refusal(lambda: analyse("a study", table))


def test_what_ran_where_shows_every_value_that_there_was() -> None:
    first = stage_2({"backbone": PLAIN}, images_train=1500.0, images_test=360.0)
    for row, git in zip(first, ["abc", "abc", "def"], strict=True):
        row |= {"env.git": git, "env.emoreg": "0.1.0", "recipe.training.epochs": 8, "env.gpu": None, "env.cores": 2.0}
        row |= {"env.cpu": "A CPU", "env.started": f"2026-01-0{1 + row['seed']}", "env.command": f"try {row['seed']}"}
    facts = dict(analyse("a study", results(stage_1("affect", (0.5,)), first)).facts)
    assert facts["emoreg"] == "0.1.0, git abc; 0.1.0, git def"
    assert facts["Targets"] == "digits: 1,500 training, 360 test images"
    assert facts["CPU"] == "A CPU, cores: 2"
    assert facts["Epochs"] == "8 in stage 2"
    assert facts["Seeds"] == "0 to 2"
    assert facts["Training"] == "0m35s in 4 runs"
    assert facts["Started"] == "2026-01-01 to 2026-01-03"
    assert facts["Command"] == "try 2"
    assert "GPU" not in facts


# Simulated studies: arms in the order of ARMS, accuracies (studies, arms, seeds).

STUDIES, SEEDS, NOISE = 200, 10, 0.004
GAINS = [list(ARMS).index(name) for name in REGULATED]
BESIDE = [list(ARMS).index(name) for name in CONTROLS]


def simulated(effects: dict[str, float], studies: int = STUDIES, seeds: int = SEEDS) -> NDArray[np.float64]:
    """A seed's effect is shared by all arms; each run has noise of its own; scored on 10,000 images."""
    draw = np.random.default_rng(7)
    shift = np.array([effects.get(name, 0.0) for name in ARMS])[:, None]
    shared = draw.normal(0, 0.01, (studies, 1, seeds))
    accuracy: NDArray[np.float64] = 0.9 + shift + shared + draw.normal(0, NOISE, (studies, len(ARMS), seeds))
    return accuracy.round(4)


def judged(accuracy: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The p's (studies, regulated arms) of the gains and of the emotion effects, as `analyse` gets them."""
    gains = sign_flip_p(accuracy[:, GAINS] - accuracy[:, :1])
    against = accuracy[:, GAINS, None] - accuracy[:, None, BESIDE]
    effects = above_all(against.mean(axis=-1), sign_flip_p(against))
    return gains, effects


def any_of(ps: NDArray[np.float64]) -> float:
    """The share of studies in which one p or more of a family is at most 0.05 after correction: Holm's first step."""
    return float((ps.min(axis=1) * ps.shape[1] <= 0.05).mean())


def test_simulated_studies_are_judged_as_analyse_judges() -> None:
    accuracy = simulated({"learned": 0.006, "fixed": 0.003}, studies=1)
    gains, effects = judged(accuracy)
    analysis = analyse("a study", results(stage_2(dict(zip(ARMS, accuracy[0].tolist(), strict=True)))))
    arms = [arm for arm in analysis.cells[0].arms if arm.arm.is_regulated]
    assert [arm.gain and arm.gain.p_holm for arm in arms] == pytest.approx(holm(gains[0]))
    assert [arm.effect and arm.effect.p_holm for arm in arms] == pytest.approx(holm(effects[0]))


def test_without_any_effect_one_comparison_in_twenty_comes_out() -> None:
    accuracy = simulated({}, studies=1000)
    share = (sign_flip_p(accuracy[:, 1] - accuracy[:, 0]) <= 0.05).mean()
    low, high = stats.binom.ppf([0.0005, 0.9995], 1000, 25 / 512) / 1000  # 25/512 is the largest exact level to 0.05
    assert low <= share <= high


def test_without_any_effect_a_study_of_many_arms_seldom_finds_one() -> None:
    gains, effects = judged(simulated({}))
    most = stats.binom.ppf(0.9995, STUDIES, 0.05) / STUDIES
    assert any_of(gains) <= most
    assert any_of(effects) <= most


def test_a_gain_is_found_as_often_as_theory_says() -> None:
    accuracy = simulated({"learned": 0.006})
    expected = TTestPower().power(0.006 / (NOISE * math.sqrt(2)), SEEDS, 0.05)
    share = (sign_flip_p(accuracy[:, list(ARMS).index("learned")] - accuracy[:, 0]) <= 0.05).mean()
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / STUDIES) + 0.02


def test_an_emotion_effect_is_found_as_often_as_theory_says() -> None:
    accuracy = simulated(dict.fromkeys(REGULATED, 0.010))
    against = accuracy[:, GAINS, None] - accuracy[:, None, BESIDE]
    share = (above_all(against.mean(axis=-1), sign_flip_p(against))[:, 0] <= 0.05).mean()
    one = TTestPower().power(0.010 / (NOISE * math.sqrt(2)), SEEDS, 0.05)
    slack = 4 * math.sqrt(one * (1 - one) / STUDIES) + 0.02
    assert 1 - len(CONTROLS) * (1 - one) - slack <= share <= one + slack  # Bonferroni's inequality, and one alone


def test_an_effect_that_the_controls_have_too_is_a_gain_and_no_emotion_effect() -> None:
    gains, effects = judged(simulated(dict.fromkeys([*REGULATED, *CONTROLS], 0.010)))
    assert any_of(gains) > 0.95
    assert any_of(effects) <= stats.binom.ppf(0.9995, STUDIES, 0.05) / STUDIES


def test_one_control_that_has_the_effect_is_enough_to_explain_it() -> None:
    _, effects = judged(simulated(dict.fromkeys([*REGULATED, "ensemble"], 0.010)))
    assert any_of(effects) <= stats.binom.ppf(0.9995, STUDIES, 0.05) / STUDIES


def test_choosing_the_control_on_validation_images_never_favours_the_arm() -> None:
    studies = 4000
    draw = np.random.default_rng(1)
    accuracy = simulated({}, studies, seeds=3)
    controls, arm = accuracy[:, BESIDE].mean(axis=-1), accuracy[:, GAINS[0]].mean(axis=-1)

    def size(validation: NDArray[np.float64]) -> float:
        chosen = validation.argmax(axis=1)
        return float((arm - controls[np.arange(studies), chosen]).mean())

    error = (arm - controls[:, 0]).std() / math.sqrt(studies)
    luck = size(draw.normal(size=controls.shape))  # where validation and test images share nothing but the arm
    shared = size(controls + draw.normal(0, NOISE / math.sqrt(3), controls.shape))  # where a run is good on both
    assert abs(luck) < 4 * error
    assert size(controls) < shared < luck + 4 * error
