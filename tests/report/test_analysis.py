from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from emoreg.report.analyse_table import analyse
from emoreg.report.analysis import Analysis, ArmResult
from emoreg.report.contrasts import analyse as contrast_frame
from emoreg.report.verdicts import Verdict
from refusing import refusal
from result_rows import TWINS, results, stage_1, stage_2

NAN = math.nan
PLAIN = (0.900, 0.910, 0.905)


def shifted(*gains: float) -> tuple[float, ...]:
    return tuple(b + gain for b, gain in zip(PLAIN, gains, strict=True))


def arm_of(analysis: Analysis, label: str, cell: int = 0) -> ArmResult:
    return next(arm for arm in analysis.cells[cell].arms if arm.label == label)


def test_references_come_first_and_then_each_mode_with_its_twins() -> None:
    twins = {f"learned {name}": PLAIN for name in TWINS}
    others = {"transfer": PLAIN, "wide": PLAIN, "fixed": PLAIN, "ensemble": PLAIN, "none": PLAIN}
    table = results(stage_2({**twins, "learned": PLAIN, **others}))
    (cell,) = analyse("a study", table.sample(frac=1, random_state=0)).cells
    assert [arm.label for arm in cell.references] == ["Backbone", "Ensemble", "Wide", "Transfer"]
    assert [family.title for family in cell.families] == ["E-Reg", "Learn-E-Reg"]
    assert [arm.role for arm in cell.families[1].arms] == ["affect", *TWINS]
    assert [arm.label for arm in cell.families[1].arms][:2] == ["Learn-E-Reg", "Learn-E-Reg, fresh"]


def test_contrasts_match_the_frame_and_hold_the_difference_of_each_seed() -> None:
    references = {"ensemble": shifted(0.01, 0.012, 0.011), "transfer": shifted(0.015, 0.02, 0.01)}
    accuracies = {"none": PLAIN, "learned": shifted(0.02, 0.021, 0.022), **references}
    table = results(stage_2(accuracies))
    analysis = analyse("a study", table)
    learned, plain = arm_of(analysis, "Learn-E-Reg"), arm_of(analysis, "Backbone")
    gain = learned.contrasts["gain"]
    assert gain.size.values == pytest.approx((0.02, 0.021, 0.022))
    rows = contrast_frame(table).to_dict("records")
    (row,) = [row for row in rows if (row["mode"], row["contrast"]) == ("learned", "gain")]
    assert gain.size.mean == pytest.approx(row["point"])
    assert gain.against == "none" and gain.verdict == row["verdict"]
    assert learned.contrasts["over_ensemble"].size.values == pytest.approx((0.01, 0.009, 0.011))
    assert learned.contrasts["over_transfer"].size.values == pytest.approx((0.005, 0.001, 0.012))
    assert learned.score.values == pytest.approx(shifted(0.02, 0.021, 0.022))
    assert list(plain.contrasts) == ["accuracy"]
    assert (learned.lam, learned.seconds, learned.parameters, learned.flops) == ((0.4,) * 3, 10.0, 1000, 5000)
    assert (analysis.planned, analysis.finished) == (12, 12)
    pd.testing.assert_frame_equal(analysis.contrasts.drop(columns="smallest_effect"), contrast_frame(table))


def test_the_hardest_twin_is_named_with_its_differences() -> None:
    accuracies = {"learned": shifted(0.02, 0.02, 0.02), "learned fresh": PLAIN, "learned moments": PLAIN}
    accuracies["learned shuffled"] = shifted(0.01, 0.012, 0.014)
    learned = arm_of(analyse("a study", results(stage_2(accuracies))), "Learn-E-Reg")
    label = learned.contrasts["label"]
    assert label.against == "shuffled"
    assert label.size.values == pytest.approx((0.01, 0.008, 0.006))
    assert [twin.against for twin in learned.twins] == ["fresh", "moments", "shuffled"]
    assert learned.contrasts["emotion"].missing == ("neutral", "rotation")
    assert learned.contrasts["emotion"].verdict is Verdict.MISSING_TWIN


def test_limits_match_the_frame_and_are_missing_where_seeds_do_not_determine_them() -> None:
    four = results(stage_2({"none": (0.9, 0.91, 0.905, 0.9), "learned": (0.92, 0.931, 0.927, 0.925)}))
    (row,) = [row for row in contrast_frame(four).to_dict("records") if row["contrast"] == "gain"]
    gain = arm_of(analyse("a study", four), "Learn-E-Reg").contrasts["gain"]
    assert (gain.size.low, gain.size.high) == pytest.approx((row["low"], row["high"]))
    assert (gain.over_seeds.low, gain.over_seeds.high) == pytest.approx((row["low_seeds"], row["high_seeds"]))
    table = results(stage_2({"none": (0.9, 0.91), "learned": (0.92, 0.935)}))
    learned = arm_of(analyse("a study", table), "Learn-E-Reg")
    for contrast in (learned.contrasts["gain"], learned.contrasts["accuracy"]):
        assert contrast.size.n == 2
        assert math.isnan(contrast.size.low) and math.isnan(contrast.size.high)


def test_a_twin_needs_the_mode_variant_and_stimuli_of_its_arm() -> None:
    table = results(
        stage_2({"learned": PLAIN, "fixed shuffled": PLAIN}),
        stage_2({"learned shuffled": PLAIN}, variant="mixture"),
        stage_2({"learned shuffled": PLAIN}, stimuli="oasis"),
    )
    learned = arm_of(analyse("a study", table), "Learn-E-Reg (procedural)")
    assert learned.twins == ()


def test_a_fresh_twin_serves_the_arms_of_all_stimuli() -> None:
    shared = stage_2({"none": PLAIN, "learned fresh": PLAIN})
    own = {"learned": shifted(0.02, 0.021, 0.022), "learned shuffled": shifted(0.01, 0.01, 0.01)}
    analysis = analyse("a study", results(shared, stage_2(own, stimuli="oasis"), stage_2(own, stimuli="emoset")))
    families = analysis.cells[0].families
    assert [family.title for family in families] == ["Learn-E-Reg (oasis)", "Learn-E-Reg (emoset)"]
    assert all([arm.role for arm in family.arms] == ["affect", "fresh", "shuffled"] for family in families)
    assert [twin.against for twin in arm_of(analysis, "Learn-E-Reg (emoset)").twins] == ["fresh", "shuffled"]


def test_variants_are_separate_families_and_share_the_references() -> None:
    table = results(stage_2({"none": PLAIN, "learned": PLAIN}), stage_2({"learned": PLAIN}, variant="mixture"))
    (cell,) = analyse("a study", table).cells
    assert [arm.label for arm in cell.arms] == ["Backbone", "Learn-E-Reg", "Learn-E-Reg, mixture"]
    assert all("gain" in arm.contrasts for arm in cell.arms[1:])


def test_a_run_that_variants_share_is_counted_once_and_reported() -> None:
    arms = {"learned": PLAIN, "unregulated": PLAIN}
    table = results(*(stage_2(arms, variant=name) for name in ("own", "mixture")))
    is_shared = table["mode"] == "unregulated"
    table.loc[is_shared, "id"] = table["run"]
    table.loc[is_shared & (table["seed"] == 2), "status"] = "diverged"
    found = analyse("a study", table)
    assert (found.planned, found.finished, len(found.diverged)) == (9, 8, 1)
    fact = "Unregulated, own; and Unregulated, mixture: their recipes are the same"
    assert dict(found.facts)["The same runs"] == fact and dict(found.facts)["Training"].endswith(" in 8 runs")
    assert "The same runs" not in dict(analyse("a study", results(stage_2(arms, variant="own"))).facts)


def test_arms_that_share_their_runs_are_reported() -> None:
    table = results(stage_2({"none": PLAIN, "ensemble": PLAIN, "fixed": PLAIN}))
    is_shared = table["mode"].isin(("ensemble", "fixed"))
    table.loc[is_shared, "id"] = table["seed"].map(str)
    assert dict(analyse("a study", table).facts)["The same runs"] == "Ensemble and E-Reg: their recipes are the same"


def test_the_next_look_is_the_first_that_is_not_complete() -> None:
    plan: dict[str, Any] = {"purpose": "confirmation", "planned_seeds": 8, "looks": [4, 8]}
    six = [0.9 + 0.001 * seed for seed in range(6)]
    rows = stage_2({"none": six, "learned": [value + 0.01 for value in six]}, **plan)
    gain = arm_of(analyse("a study", results(rows)), "Learn-E-Reg").contrasts["gain"]
    assert gain.next_look == 8
    assert len(gain.size.values) == gain.size.n == 4  # the seeds of the last complete look
    moved = [row | {"seed": row["seed"] + 100, "first_seed": 100} for row in rows]
    early = [row | {"seed": 7} for row in moved if row["seed"] == 105]  # not in the plan
    again = arm_of(analyse("a study", results(moved, early)), "Learn-E-Reg").contrasts["gain"]
    assert (again.next_look, again.size.values) == (8, gain.size.values)


def test_results_of_an_arm_use_only_the_planned_seeds() -> None:
    plan: dict[str, Any] = {"purpose": "confirmation", "planned_seeds": 4, "looks": [4]}
    six = [0.9 + 0.001 * seed for seed in range(6)]
    table = results(stage_2({"none": six, "learned": six}, classes=[str(k) for k in range(10)], **plan))
    of_learned = table["mode"] == "learned"
    beyond = table["seed"] >= 4
    table.loc[of_learned, "lambda"] = np.where(beyond, 0.9, 0.4)[of_learned]
    table.loc[of_learned, ["test_accuracy_non_emotional", "test_accuracy_emotional"]] = 0.8
    table["test_ece"] = np.where(beyond, 0.5, 0.1)
    table.loc[of_learned & beyond, "test_accuracy"] = 0.1
    learned = arm_of(analyse("a study", table), "Learn-E-Reg")
    assert learned.score.values == pytest.approx(six[:4])
    assert (learned.lam, learned.ece.values) == ((0.4,) * 4, (0.1,) * 4)
    assert learned.responses is not None and learned.responses[0].n == 4
    assert (learned.collapsed.count, learned.collapsed.runs) == (0, 4)


def test_an_exploration_shows_measurements_on_validation_images() -> None:
    measured: dict[str, Any] = {"purpose": "exploration", "validation_ece": 0.07, "validation_lambda": 0.3}
    rows = stage_2({"none": (NAN,), "learned": (0.5,)}, first_seed=1000, **measured)
    rows += stage_2({"none": (0.5,)}, first_seed=1000, **measured)
    for row in rows:
        if "test_accuracy" in row:
            row |= {"validation_accuracy": 0.7 if row["mode"] == "none" else 0.8, "test_accuracy": NAN}
    (cell,) = analyse("a study", results(rows)).cells
    plain, learned = cell.arms
    assert cell.title == "digits, resnet8, exploration"
    assert (plain.score.values, learned.score.values) == ((0.7,), (0.8,))
    assert (learned.ece.values, learned.lam) == ((0.07,), (0.3,))
    assert learned.contrasts["gain"].verdict is Verdict.EXPLORATION


def test_responses_alone_use_the_seeds_that_have_both() -> None:
    table = results(stage_2({"none": PLAIN, "learned": PLAIN}))
    assert arm_of(analyse("a study", table), "Learn-E-Reg").responses is None
    of_learned = table["mode"] == "learned"
    table.loc[of_learned, "test_accuracy_non_emotional"] = [0.2, 0.3, NAN]
    table.loc[of_learned, "test_accuracy_emotional"] = [0.8, 0.9, 0.7]
    analysis = analyse("a study", table)
    assert arm_of(analysis, "Backbone").responses is None
    responses = arm_of(analysis, "Learn-E-Reg").responses
    assert responses is not None
    assert [response.values for response in responses] == [(0.2, 0.3), (0.8, 0.9)]


def test_collapsed_runs_and_starved_branches_are_counted() -> None:
    table = results(stage_2({"none": PLAIN, "learned": (0.1, 0.91, 0.905)}, classes=[str(k) for k in range(10)]))
    of_learned = table["mode"] == "learned"
    table.loc[of_learned, "train_accuracy_non_emotional"] = [0.9, 0.3, NAN]
    table.loc[of_learned, "train_accuracy_emotional"] = [0.8, 0.9, NAN]
    learned = arm_of(analyse("a study", table), "Learn-E-Reg")
    assert (learned.collapsed.count, learned.collapsed.runs) == (1, 3)
    assert (learned.starved.count, learned.starved.runs) == (1, 2)
    assert learned.collapsed.low == pytest.approx(0.0084, abs=1e-4)  # Clopper-Pearson of 1 in 3
    assert learned.contrasts["gain"].verdict is Verdict.COLLAPSED


def test_unfinished_runs_are_ignored() -> None:
    assert analyse("a study", results(stage_2({"none": (NAN, NAN), "learned": (NAN,)}))).cells == ()
    table = results(stage_2({"none": PLAIN, "learned": (NAN, NAN, NAN), "fixed": shifted(0.01, 0, 0.02)}))
    table.loc[table["mode"] == "learned", ["status", "error"]] = ["failed", "out of memory"]
    analysis = analyse("a study", table)
    assert [arm.label for arm in analysis.cells[0].arms] == ["Backbone", "E-Reg"]
    assert analysis.failures[0] == ("digits-resnet8-learned-affect-procedural-seed0", "out of memory")
    assert len(analysis.failures) == 3


def test_only_diverged_runs_of_stage_2_count_as_collapsed() -> None:
    table = results(stage_1("affect", (0.5,)), stage_2({"none": PLAIN, "learned": shifted(0.01, 0, 0.02)}))
    table.loc[[0, 1], ["status", "error"]] = ["diverged", "the loss is not finite"]
    analysis = analyse("a study", table)
    assert [run for run, _ in analysis.failures] == [table["run"][0]]
    assert [run for run, _ in analysis.diverged] == [table["run"][1]]


@pytest.mark.parametrize(
    ("name", "classes", "benchmark"),
    [("cifar10", 10, "cifar10"), ("cifar10", 5, None), ("cifar100", 100, "cifar100"), ("digits", 10, None)],
)
def test_targets_of_the_paper_are_recognised_by_name_and_number_of_classes(
    name: str, classes: int, benchmark: str | None
) -> None:
    more: dict[str, Any] = {"recipe.target.name": name, "classes": [str(k) for k in range(classes)]}
    (cell,) = analyse("a study", results(stage_2({"none": PLAIN}, images_train=50, **more))).cells
    assert (cell.benchmark, cell.images) == (benchmark, 50)


def test_classes_without_images_and_bins_without_images_stay_empty() -> None:
    lists: dict[str, Any] = {
        "classes": ["0", "1"],
        "test_per_class": [0.5, NAN],
        "test_reliability_confidence": [NAN, 0.9],
        "test_reliability_accuracy": [NAN, 0.8],
        "test_reliability_count": [0, 10],
    }
    table = results(stage_2({"none": PLAIN, "learned": PLAIN}, **lists))
    analysis = analyse("a study", table)
    learned = arm_of(analysis, "Learn-E-Reg")
    assert analysis.cells[0].classes == ("0", "1")
    assert [i.n for i in learned.per_class_gain] == [3, 0]
    assert [i.mean for i in learned.per_class_gain] == pytest.approx([0.0, NAN], nan_ok=True)
    assert arm_of(analysis, "Backbone").per_class_gain == ()
    assert learned.reliability[1] == pytest.approx((0.9, 0.8, 30))
    assert math.isnan(learned.reliability[0][0])
    assert learned.reliability[0][2] == 0


def test_reliability_is_pooled_by_images_not_by_seeds() -> None:
    rows = stage_2({"none": (0.9, 0.9)})
    for row, (confidence, accuracy, count) in zip(rows, [(0.6, 0.5, 10), (0.9, 1.0, 30)], strict=True):
        row |= {"test_reliability_confidence": [confidence], "test_reliability_accuracy": [accuracy]}
        row |= {"test_reliability_count": [count]}
    ((confidence, accuracy, count),) = arm_of(analyse("a study", results(rows)), "Backbone").reliability
    assert (confidence, accuracy, count) == pytest.approx((0.825, 0.875, 40))


def test_a_table_read_from_a_file_gives_the_same_analysis(tmp_path: Path) -> None:
    lists: dict[str, Any] = {"classes": ["0", "1"], "test_per_class": [0.5, 0.9], "test_reliability_count": [1, 2]}
    lists |= {"test_reliability_confidence": [0.5, 0.9], "test_reliability_accuracy": [0.5, 0.9]}
    accuracies = {"none": PLAIN, "learned": shifted(0.02, 0.021, 0.022), "ensemble": PLAIN}
    table = results(stage_1("affect", (0.5, 0.6, 0.7)), stage_2(accuracies, **lists))
    table.to_parquet(tmp_path / "results.parquet")
    one, other = analyse("a study", table), analyse("a study", pd.read_parquet(tmp_path / "results.parquet"))
    assert repr(one) == repr(other)


def test_curves_come_from_the_runs_that_recorded_them() -> None:
    rows = stage_2({"none": (0.9, 0.91)})
    rows[1] |= {"epochs.epoch": [1, 2], "epochs.val_accuracy": [0.5, 0.6]}
    curves = arm_of(analyse("a study", results(rows)), "Backbone").curves
    assert curves.to_dict("list") == {"epoch": [1, 2], "val_accuracy": [0.5, 0.6], "seed": [1, 1]}


def gated() -> pd.DataFrame:
    """A study whose Learn-E-Reg has one λ per image: 0.4 at features of zero, 0.001 as the mean over test images."""
    table = results(stage_2({"none": PLAIN, "learned": PLAIN, "fixed": PLAIN}))
    of_learned = table["mode"] == "learned"
    table["recipe.regulation.granularity"] = np.where(of_learned, "per_sample", "scalar")
    table["test_lambda"] = np.where(of_learned, 0.001, NAN)
    table["epochs.epoch"] = pd.Series([[1, 2]] * len(table))
    table["epochs.lambda"] = pd.Series([[0.5, 0.4] if mode != "none" else None for mode in table["mode"]])
    return table


def test_lambda_at_the_end_is_the_mean_over_test_images_if_it_was_measured() -> None:
    analysis = analyse("a study", gated())
    assert arm_of(analysis, "Learn-E-Reg").lam == (0.001,) * 3
    assert arm_of(analysis, "E-Reg").lam == (0.4,) * 3
    assert arm_of(analysis, "Backbone").lam == ()


@pytest.mark.parametrize(("recorded", "is_omitted"), [(0.4, True), (0.001, False)])
def test_a_lambda_curve_at_features_of_zero_is_left_out(recorded: float, is_omitted: bool) -> None:
    table = gated()
    table.loc[table["mode"] == "learned", "lambda"] = recorded
    analysis = analyse("a study", table)
    learned, fixed = arm_of(analysis, "Learn-E-Reg"), arm_of(analysis, "E-Reg")
    assert ("lambda" in learned.curves, learned.omits_lambda_curve) == (not is_omitted, is_omitted)
    assert fixed.curves["lambda"].to_list() == [0.5, 0.4] * 3 and not fixed.omits_lambda_curve


def test_results_of_stage_1_are_grouped_by_experience() -> None:
    table = results(stage_1("affect", (0.5, 0.7)), stage_1("shuffled", (0.0, 0.1)), stage_2({"none": PLAIN}))
    affect, shuffled = analyse("a study", table).stage_1
    assert (affect.stimuli, affect.experience, affect.backbone, affect.seconds) == (
        "procedural",
        "affect",
        "resnet8",
        5.0,
    )
    assert dict(affect.metrics)["ccc"].mean == pytest.approx(0.6)
    assert [name for name, _ in shuffled.metrics] == ["ccc", "loss"]


def test_a_run_that_occurs_twice_is_refused() -> None:
    table = results(stage_2({"none": PLAIN}), stage_2({"none": PLAIN}))
    assert "Backbone, seed 0 twice" in refusal(lambda: analyse("a study", table))


def test_facts_on_machines_list_every_value() -> None:
    first = stage_2({"none": PLAIN}, images_train=1500.0, images_test=360.0)
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


def test_targets_from_one_set_have_its_name_and_differ_by_their_part() -> None:
    def of(label: str, **settings: Any) -> list[dict[str, Any]]:
        more = {"recipe.target.name": "digits", **{f"recipe.target.{name}": value for name, value in settings.items()}}
        return stage_2({"none": [0.5, 0.6], "learned": [0.6, 0.7]}, label, **more)

    noisy = {"label_noise": "symmetric", "noise_share": 0.4}
    rows = of("digits, label_noise none", label_noise="none") + of("digits, noise_share 0.4", **noisy)
    assert [cell.title for cell in analyse("A study", results(rows)).cells] == [
        "digits, label_noise none, resnet8",
        "digits (symmetric label noise of 40 %), resnet8",
    ]
    rows = of("digits, fit crop", **noisy) + of("digits, fit pad", **noisy)
    assert [cell.title for cell in analyse("A study", results(rows)).cells] == [
        "digits, fit crop (symmetric label noise of 40 %), resnet8",
        "digits, fit pad (symmetric label noise of 40 %), resnet8",
    ]
