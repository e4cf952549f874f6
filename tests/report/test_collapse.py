"""How often runs collapse and branches starve."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from emoreg.report.collapse import frequencies
from emoreg.report.read_runs import collapse_threshold
from report.study_rows import study


@pytest.mark.parametrize(("classes", "threshold"), [(2, 0.6), (5, 0.3), (10, 0.2), (100, 0.02)])
def test_the_threshold_is_twice_chance_or_less_for_few_classes(classes: int, threshold: float) -> None:
    assert collapse_threshold(classes) == pytest.approx(threshold)


def test_collapsed_runs_are_counted_with_an_exact_interval() -> None:
    frame = study({("learned", "affect"): 0.8, ("none", None): 0.8}, seeds=8, classes=10)
    frame.loc[[1, 3], "accuracy"] = 0.15
    frame.loc[4, "accuracy"] = math.nan
    regulated, plain = frequencies(frame).to_dict("records")
    assert (regulated["runs"], regulated["collapsed"], plain["collapsed"]) == (8, 3, 0)
    assert regulated["collapsed_low"] == pytest.approx(stats.beta.ppf(0.025, 3, 6))
    assert regulated["collapsed_high"] == pytest.approx(stats.beta.ppf(0.975, 4, 5))
    assert plain["collapsed_low"] == 0
    assert plain["collapsed_high"] == pytest.approx(1 - 0.025 ** (1 / 8))


def test_a_loss_that_is_not_finite_is_a_collapse() -> None:
    frame = study({("learned", "affect"): 0.8}, seeds=3, test_loss=0.4)
    frame.loc[0, "test_loss"] = math.inf
    assert frequencies(frame)["collapsed"].tolist() == [1]


def test_a_branch_under_half_of_the_other_has_starved() -> None:
    frame = study({("learned", "affect"): 0.8, ("none", None): 0.8}, seeds=3, train_accuracy_non_emotional=0.9)
    frame["train_accuracy_emotional"] = [0.44, 0.46, 0.95, *[math.nan] * 3]
    regulated, plain = frequencies(frame).to_dict("records")
    assert (regulated["measured"], regulated["starved"]) == (3, 1)
    assert (regulated["starved_emotional"], regulated["starved_non_emotional"]) == (1, 0)
    assert plain["measured"] == 0
    assert math.isnan(plain["starved_low"])


def test_a_frame_without_runs_has_no_frequencies() -> None:
    assert frequencies(study({("none", None): 0.8}, seeds=1).iloc[:0]).empty


def test_a_run_that_diverged_in_a_study_counts_as_collapsed() -> None:
    frame = study({("learned", "affect"): 0.8}, seeds=8)
    frame["status"] = [*["finished"] * 2, "diverged", "failed", *["finished"] * 4]
    frame.loc[[2, 3], "accuracy"] = math.nan
    (counted,) = frequencies(frame).to_dict("records")
    assert (counted["runs"], counted["collapsed"]) == (7, 1)
