from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from emoreg.report.contrasts import judged_contrasts
from emoreg.report.power import Spread, simulate_power, spreads_of
from emoreg.report.read_runs import read_runs
from emoreg.report.smallest_effect import _smallest, smallest_effects
from report.study_rows import arms, study


def by_contrast(table: pd.DataFrame) -> dict[str, float]:
    runs = read_runs(table)
    contrasts = judged_contrasts(runs)
    found = zip(contrasts, smallest_effects(runs, contrasts), strict=True)
    return {one.contrast.name: value for one, value in found if not math.isnan(value)}


def test_the_power_at_the_smallest_effect_is_four_fifths() -> None:
    smallest = _smallest(8, (8,), 1, 0.0)
    for others, name in ((1, "gain"), (3, "label"), (5, "emotion")):
        power, _ = simulate_power(Spread(1, 1), smallest[others], [8], studies=300)[0]
        assert getattr(power, name) == pytest.approx(0.8, abs=0.06)


def test_more_twins_more_arms_and_fewer_seeds_need_a_larger_effect() -> None:
    one, three, five = (_smallest(8, (8,), 1, 0.0)[others] for others in (1, 3, 5))
    assert one < three < five
    assert _smallest(8, (8,), 2, 0.0)[1] > one
    assert _smallest(5, (5,), 1, 0.0)[1] > one


def test_every_tested_contrast_has_a_smallest_effect_that_grows_with_the_spread() -> None:
    table = study(arms(0.9, 0.9))
    found = by_contrast(table)
    assert set(found) == {"gain", "over_ensemble", "label", "emotion"}
    assert found["gain"] == found["over_ensemble"] < found["label"] < found["emotion"]
    middle = table["accuracy"].mean()
    wider = by_contrast(table.assign(accuracy=middle + 2 * (table["accuracy"] - middle)))
    assert wider["label"] == pytest.approx(2 * found["label"])


def test_an_arm_without_planned_twins_is_not_in_the_family_of_the_label_effect() -> None:
    table = study({**arms(0.9, 0.9), ("fixed", "affect"): 0.9})
    found, (spread,) = by_contrast(table), spreads_of(table)
    assert found["gain"] == pytest.approx(spread.sd / 100 * _smallest(8, (8,), 2, 0.0)[1])
    assert found["label"] == pytest.approx(spread.sd / 100 * _smallest(8, (8,), 1, 0.0)[3])


@pytest.mark.parametrize("seeds", [1, 3])
def test_if_no_data_could_pass_there_is_no_smallest_effect(seeds: int) -> None:
    assert by_contrast(study(arms(0.9, 0.9), seeds)) == {}


def test_a_contrast_without_a_twin_or_spread_has_no_smallest_effect() -> None:
    table = study(arms(0.9, 0.9))
    assert "emotion" not in by_contrast(table[table["experience"] != "rotation"])
    for plain, other in ((0.8, 0.9), (0.9, 0.92)):  # the second has a spread of rounding errors
        assert by_contrast(table.assign(accuracy=np.where(table["mode"] == "none", plain, other))) == {}


@pytest.mark.parametrize("looks", [[6], [6, 12]])
def test_seeds_beyond_the_plan_and_between_looks_do_not_change_it(looks: list[int]) -> None:
    table = study(arms(0.95, 0.9), seeds=9)
    table = table.assign(planned_seeds=looks[-1], looks=pd.Series([looks] * len(table)))
    later = table["seed"] >= 6
    wild = table["accuracy"] + np.where(later, np.random.default_rng(3).normal(0, 0.002, len(table)), 0)
    found = by_contrast(table.assign(accuracy=wild))
    assert set(found) == {"gain", "over_ensemble", "label", "emotion"}
    assert found == by_contrast(table[~later])


def test_a_run_that_diverged_does_not_hide_what_other_contrasts_would_have_found() -> None:
    table = study(arms(0.9, 0.9))
    is_lost = (table["mode"] == "ensemble") | ((table["experience"] == "rotation") & (table["seed"] == 3))
    found = by_contrast(table.assign(accuracy=table["accuracy"].mask(is_lost)))
    assert set(found) == {"gain", "label"}
    assert found["gain"] == pytest.approx(by_contrast(table)["gain"], rel=0.2)
