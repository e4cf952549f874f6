from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from emoreg.report.power import needed_seeds, seeds_for_power, seeds_for_width, training_hours
from refusing import refusal
from result_rows import results, stage_1, stage_2

PLAIN = (0.900, 0.910, 0.905, 0.890, 0.900)
PILOT = stage_2(
    {
        "backbone": PLAIN,
        "learned": (0.911, 0.914, 0.918, 0.897, 0.912),
        "fixed": (0.903, 0.908, 0.909, 0.896, 0.899),
        "random_encoder": (0.901, 0.909, 0.904, 0.890, 0.902),
        "ensemble": (0.905, 0.912, 0.908, 0.895, 0.908),
    }
)


@pytest.mark.parametrize(("sd", "half_width"), [(1.0, 0.5), (0.3, 0.2), (2.0, 0.1)])
def test_the_interval_is_as_narrow_as_asked_and_with_one_seed_less_is_not(sd: float, half_width: float) -> None:
    def half(n: int) -> float:
        return float(stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n))

    n = seeds_for_width(sd, half_width)
    assert half(n) <= half_width < half(n - 1)


def test_seeds_for_power_agree_with_statsmodels() -> None:
    assert seeds_for_power(1.0, 0.5, 0.8, 0.05) == math.ceil(TTestPower().solve_power(0.5, alpha=0.05, power=0.8))


def test_differences_that_are_seen_at_once_need_few_seeds_whatever_the_numerics() -> None:
    assert seeds_for_power(0.0, 0.5, 0.8, 0.05) <= 3
    assert seeds_for_width(0.0, 0.5) == 2
    assert seeds_for_power(0.01, 0.5, 0.8, 0.05 / 32) <= 5


def test_a_million_seeds_are_refused() -> None:
    assert "more than a million seeds" in refusal(lambda: seeds_for_width(5.0, 0.001))


def test_each_regulated_arm_is_planned_against_backbone_and_the_best_control() -> None:
    needs = needed_seeds(results(PILOT), points=0.5)
    assert [(need.arm, need.against) for need in needs] == [
        ("E-Reg (procedural)", "Backbone"),
        ("E-Reg (procedural)", "ensemble"),
        ("Learn-E-Reg (procedural)", "Backbone"),
        ("Learn-E-Reg (procedural)", "ensemble"),
    ]
    learned = needs[2]
    differences = 100 * (np.array([0.911, 0.914, 0.918, 0.897, 0.912]) - PLAIN)
    assert (learned.pilot, learned.mean, learned.sd) == pytest.approx((5, differences.mean(), differences.std(ddof=1)))
    assert learned.sd_safe == pytest.approx(learned.sd * math.sqrt(4 / stats.chi2.ppf(0.2, 4)))
    assert learned.width == seeds_for_width(learned.sd, 0.5)
    assert learned.power == seeds_for_power(learned.sd, 0.5, 0.8, 0.025)
    assert learned.exact == 7  # 2^-6 · 2 gains
    assert learned.width <= learned.width_safe <= learned.seeds
    assert learned.power <= learned.power_safe <= learned.seeds


def test_the_upper_limit_of_the_spread_holds_in_four_pilots_of_five() -> None:
    draws = np.random.default_rng(0).normal(0, 1, (4000, 5)).std(axis=1, ddof=1)
    share = (draws * math.sqrt(4 / stats.chi2.ppf(0.2, 4)) >= 1).mean()
    assert share == pytest.approx(0.8, abs=0.03)


def test_training_hours_count_both_stages_and_every_arm_once_a_seed() -> None:
    table = results(PILOT, stage_1("affect", (0.8, 0.9)))
    table.loc[table["seed"] == 4, "status"] = "waiting"  # the mean of what is finished stands for it
    assert training_hours(table, seeds=36) == pytest.approx(36 * (5 * 10.0 + 5.0) / 3600)


def test_a_pilot_of_one_seed_is_refused_with_what_to_run() -> None:
    table = results(stage_2({"backbone": (0.9,), "learned": (0.91,)}))
    assert "emoreg study STUDY.yaml --seeds 5" in refusal(lambda: needed_seeds(table, points=0.5))


def test_a_pilot_without_a_pair_is_refused() -> None:
    table = results(stage_2({"backbone": PLAIN}))
    assert "no finished regulated arm" in refusal(lambda: needed_seeds(table, points=0.5))
