from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from emoreg.report.statistics import (
    estimate,
    holm,
    image_variance,
    interval,
    p_above,
    smallest_tail,
)

NAN = math.nan


def test_an_interval_is_the_mean_and_its_student_t_quantile() -> None:
    got = interval([1.0, 2.0, 2.0, 3.0])
    half = 3.182446 * math.sqrt(2 / 3) / 2  # t(0.975, 3) = 3.182446, variance 2/3
    assert (got.mean, got.n, got.values) == (2.0, 4, (1.0, 2.0, 2.0, 3.0))
    assert (got.low, got.high) == pytest.approx((2 - half, 2 + half), abs=1e-6)


def test_an_interval_ends_at_what_is_possible() -> None:
    got = interval([0.9, 0.99, 1.0, 1.0], 0.0, 1.0)
    assert got.high == 1.0 and 0 < got.low < got.mean
    assert interval([0.0, 0.0, 0.01, 0.1], 0.0, 1.0).low == 0.0


def test_an_interval_agrees_with_scipy() -> None:
    values = [0.91, 0.93, 0.925, 0.90]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (interval(values).low, interval(values).high) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("values", [[0.5, 0.5, 0.5, 0.5], [0.3 - 0.2, 0.1, 0.1, 0.9 - 0.8]])
def test_identical_values_give_an_interval_of_no_width(values: list[float]) -> None:
    got = interval(values)
    assert got.low == got.mean == got.high


@pytest.mark.parametrize("values", [[0.7], [0.7, 0.7], [0.6, 0.7, 0.8]])
def test_below_four_seeds_there_is_no_interval(values: list[float]) -> None:
    got = interval(values)
    assert got.mean == pytest.approx(0.7)
    assert math.isnan(got.low)
    assert math.isnan(got.high)


def test_no_value_gives_no_mean() -> None:
    assert math.isnan(interval([]).mean)
    assert interval([]).n == 0


def test_holm_multiplies_in_steps() -> None:
    assert holm([0.03, 0.01, 0.04]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


# The studentised bootstrap


def test_the_bootstrap_agrees_with_one_written_plainly() -> None:
    values = np.random.default_rng(0).normal(0.4, 1, 6)
    rng = np.random.default_rng(1)
    resamples = values[rng.integers(0, 6, (200_000, 6))]
    with np.errstate(divide="ignore"):
        t = (resamples.mean(axis=1) - values.mean()) / (resamples.std(axis=1, ddof=1) / math.sqrt(6))
    se = values.std(ddof=1) / math.sqrt(6)
    got = estimate(values)
    assert got.p_above[0] == pytest.approx((t >= values.mean() / se).mean(), abs=0.006)
    assert got.p_below[0] == pytest.approx((t <= values.mean() / se).mean(), abs=0.006)
    low, high = values.mean() - np.quantile(t, [0.975, 0.025]) * se
    assert (got.low[0], got.high[0]) == pytest.approx((low, high), abs=0.15)


def test_normal_differences_have_nearly_the_t_interval() -> None:
    values = stats.norm.ppf((np.arange(40) + 0.5) / 40)
    got, t = estimate(values), interval(list(values))
    assert (got.low[0], got.high[0]) == pytest.approx((t.low, t.high), abs=0.02)


@pytest.mark.parametrize("v", [0.0, 0.05, 5.0])
def test_limits_exclude_zero_exactly_where_the_test_passes(v: float) -> None:
    differences = np.random.default_rng(2).normal(0.6, 1, (400, 8))
    for level in (0.025, 0.0015, 0.2):
        got = estimate(differences, v, level)
        assert ((got.low > 0) == (got.p_above <= level)).all()
        assert ((got.high < 0) == (got.p_below <= level)).all()
        assert (got.p_above == p_above(differences, v)).all()
        mirrored = estimate(-differences, v, level)
        assert mirrored.low == pytest.approx(-got.high, rel=0.2, abs=0.1)


@pytest.mark.parametrize("v", [0.0, 0.1])
def test_at_an_early_look_students_t_must_agree(v: float) -> None:
    differences = np.random.default_rng(6).normal(1.0, 1, (300, 6))
    level = 0.0015
    early, last = estimate(differences, v, level, is_early=True), estimate(differences, v, level)
    assert ((early.low > 0) == (early.p_above <= level)).all() and ((early.high < 0) == (early.p_below <= level)).all()
    assert (early.low <= last.low).all() and (early.high >= last.high).all() and (early.p_above >= last.p_above).all()
    assert (early.p_above == p_above(differences, v, is_early=True)).all()
    if v == 0:
        t = stats.ttest_1samp(differences, 0, axis=1, alternative="greater")
        assert early.p_above == pytest.approx(np.maximum(last.p_above, t.pvalue))
        assert early.low == pytest.approx(np.minimum(last.low, t.confidence_interval(1 - level).low))
    with_two = estimate(differences, v, level, np.full((300, 2), level), is_early=True)
    assert (with_two.high == early.high[:, None]).all()


def test_where_images_dominate_the_interval_is_the_normal_one() -> None:
    got = estimate([0.0, 0.001, -0.001, 0.0005, -0.0005], 1.0)
    assert (got.low[0], got.high[0]) == pytest.approx((-1.96, 1.96), abs=0.01)


def test_each_pair_is_estimated_as_if_alone() -> None:
    differences = np.random.default_rng(3).normal(0.3, 1, (11, 7))
    v = np.linspace(0, 0.1, 11)
    together = estimate(differences, v, 0.025, np.array([[0.025, 0.005]] * 11))
    for place in (0, 4, 10):
        alone = estimate(differences[place], v[place])
        assert (together.p_above[place], together.low[place]) == (alone.p_above[0], alone.low[0])
        assert together.high[place, 0] == alone.high[0]
        assert together.high[place, 1] > together.high[place, 0]


def test_differences_without_spread_are_no_evidence() -> None:
    got = estimate([[0.3 - 0.2, 0.1, 0.9 - 0.8, 0.1], [0.0] * 4])
    assert got.p_above.tolist() == got.p_below.tolist() == [1, 1]
    assert got.low.tolist() == [-math.inf] * 2 and got.high.tolist() == [math.inf] * 2


@pytest.mark.parametrize("seeds", [0, 1])
def test_fewer_than_two_seeds_have_no_test(seeds: int) -> None:
    got = estimate(np.ones((2, seeds)))
    assert np.isnan([got.p_above, got.p_below, got.low, got.high]).all()


def test_a_tail_that_no_resample_reaches_has_no_limit() -> None:
    values = np.array([0.1, 0.2, 0.15])  # one resample in nine repeats a single seed
    got = estimate(values)
    assert got.low[0] == -math.inf
    assert got.p_above[0] > 0.025
    assert smallest_tail(3) > 0.025 > smallest_tail(4)
    assert estimate(np.arange(9.0), 0.0, 0.00001).low[0] == -math.inf


@pytest.mark.parametrize("seeds", [2, 3, 4, 5, 6, 8])
def test_no_differences_have_a_smaller_p_than_the_smallest_tail_and_some_have_it(seeds: int) -> None:
    one_above = 1 + 0.001 * np.eye(seeds)
    skewed = 1 + 0.01 * np.random.default_rng(0).exponential(1, (300, seeds)) ** 3
    assert estimate(one_above).p_above.min() == smallest_tail(seeds) <= estimate(skewed).p_above.min()


def test_the_variance_of_images_is_found_in_a_two_way_table() -> None:
    rng = np.random.default_rng(4)
    seeds, images = 12, 4000
    table = rng.normal(0, 2, images) + rng.normal(0, 0.5, (seeds, 1)) + rng.normal(0, 3, (seeds, images))
    got = image_variance(table.sum(axis=0), float((table**2).sum()), table.mean(axis=1))
    assert got == pytest.approx(4 / images, rel=0.1)
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    s2_rest = (rest**2).sum() / ((seeds - 1) * (images - 1))
    assert got == pytest.approx(table.mean(axis=0).var(ddof=1) / images - s2_rest / (seeds * images))


def test_images_of_equal_difficulty_add_no_variance() -> None:
    table = np.random.default_rng(7).normal(0, 1, (4, 3)) * 0 + np.eye(4, 3)
    assert image_variance(table.sum(axis=0), float((table**2).sum()), table.mean(axis=1)) == 0


@pytest.mark.parametrize("seeds", [8, 12])
def test_error_rate_and_coverage_are_nominal(seeds: int) -> None:
    got = estimate(np.random.default_rng(seeds).normal(size=(8000, seeds)))
    assert (got.p_above <= 0.025).mean() == pytest.approx(0.025, abs=0.005)
    assert ((got.low <= 0) & (got.high >= 0)).mean() == pytest.approx(0.95, abs=0.01)


def test_skewed_differences_mislead_the_bootstrap_less_than_a_t_test() -> None:
    skewed = 1 - np.random.default_rng(5).exponential(size=(8000, 12))
    found = (p_above(skewed) <= 0.025).mean()
    assert found < 0.055 < (stats.ttest_1samp(skewed, 0, axis=1, alternative="greater").pvalue <= 0.025).mean()
