"""How often runs collapse and branches starve."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from scipy import stats

from emoreg.report.collapse import Frequency, collapsed, is_starved, starved
from emoreg.report.read_runs import collapse_threshold, read_runs
from report.study_rows import study


@pytest.mark.parametrize(("classes", "threshold"), [(2, 0.6), (5, 0.3), (10, 0.2), (100, 0.02)])
def test_the_threshold_is_twice_chance_or_less_for_few_classes(classes: int, threshold: float) -> None:
    assert collapse_threshold(classes) == pytest.approx(threshold)


def frequencies(frame: pd.DataFrame) -> list[tuple[Frequency, Frequency]]:
    """The frequencies of collapsed and starved runs of each arm."""
    runs = read_runs(frame)
    (of_cell,) = runs.cells.values()
    return [(collapsed(runs, arm.values()), starved(runs, arm.values())) for arm in of_cell.values()]


def test_collapsed_runs_are_counted_with_an_exact_interval() -> None:
    frame = study({("learned", "affect"): 0.8, ("none", None): 0.8}, seeds=8, classes=10)
    frame.loc[[1, 3], "accuracy"] = 0.15
    frame.loc[4, "accuracy"] = math.nan
    (regulated, _), (plain, _) = frequencies(frame)
    assert (regulated.runs, regulated.count, plain.count) == (8, 3, 0)
    assert regulated.low == pytest.approx(stats.beta.ppf(0.025, 3, 6))
    assert regulated.high == pytest.approx(stats.beta.ppf(0.975, 4, 5))
    assert plain.low == 0
    assert plain.high == pytest.approx(1 - 0.025 ** (1 / 8))


def test_a_loss_that_is_not_finite_is_a_collapse() -> None:
    frame = study({("learned", "affect"): 0.8}, seeds=3, test_loss=0.4)
    frame.loc[0, "test_loss"] = math.inf
    assert frequencies(frame)[0][0].count == 1


def test_a_branch_under_half_of_the_other_has_starved() -> None:
    frame = study({("learned", "affect"): 0.8, ("none", None): 0.8}, seeds=3, train_accuracy_non_emotional=0.9)
    frame["train_accuracy_emotional"] = [0.44, 0.46, 0.95, *[math.nan] * 3]
    (_, regulated), (_, plain) = frequencies(frame)
    assert (regulated.runs, regulated.count) == (3, 1)
    assert plain.runs == 0
    assert math.isnan(plain.low)


@pytest.mark.parametrize(
    ("weaker", "stronger", "has_starved"), [(0.2, 0.5, True), (-0.1, 0.2, True), (-0.03, -0.02, False), (0, 0, False)]
)
def test_without_a_branch_that_learned_something_none_has_starved(
    weaker: float, stronger: float, has_starved: bool
) -> None:
    assert is_starved(weaker, stronger) == has_starved


def test_a_run_that_diverged_in_a_study_counts_as_collapsed() -> None:
    frame = study({("learned", "affect"): 0.8}, seeds=8)
    frame["status"] = [*["finished"] * 2, "diverged", "failed", *["finished"] * 4]
    frame.loc[[2, 3], "accuracy"] = math.nan
    ((counted, _),) = frequencies(frame)
    assert (counted.runs, counted.count) == (7, 1)
