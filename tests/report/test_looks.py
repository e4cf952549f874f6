"""How much of the level planned looks may spend."""

from __future__ import annotations

import itertools
from statistics import NormalDist

import numpy as np
import pytest

from emoreg.report.looks import nominal_levels, possible_looks


def test_five_looks_have_the_published_bounds() -> None:
    # Two-sided 0.05, O'Brien-Fleming type, as printed by ldbounds and gsDesign.
    bounds = [-NormalDist().inv_cdf(level) for level in nominal_levels((1, 2, 3, 4, 5), 0.025)]
    assert bounds == pytest.approx([4.8769, 3.3570, 2.6803, 2.2898, 2.0310], abs=2e-4)


def test_one_look_has_the_whole_level() -> None:
    assert nominal_levels((8,), 0.025) == (0.025,)


@pytest.mark.parametrize(("looks", "level"), [((4, 8), 0.025), ((4, 8, 12), 0.025), ((2, 3, 10), 0.01)])
def test_all_looks_together_err_with_the_level(looks: tuple[int, ...], level: float) -> None:
    steps = np.random.default_rng(0).normal(size=(400_000, looks[-1])).cumsum(axis=1)
    z = steps[:, np.array(looks) - 1] / np.sqrt(looks)
    bounds = [-NormalDist().inv_cdf(one) for one in nominal_levels(looks, level)]
    assert (z > bounds).any(axis=1).mean() == pytest.approx(level, abs=4 * np.sqrt(level / 400_000))


def test_many_looks_still_leave_something_for_the_last() -> None:
    levels = nominal_levels(tuple(range(2, 31)), 0.025)
    assert all(one < after for one, after in itertools.pairwise(levels))
    assert 0.015 < levels[-1] < 0.025


@pytest.mark.parametrize(
    ("looks", "arms", "possible"),
    [
        ((3,), 1, ()),
        ((4,), 1, (4,)),
        ((4,), 8, ()),  # 1 / 256 for eight arms
        ((4, 6, 8), 1, (6, 8)),
        ((5, 13), 1, (5, 13)),  # the level is 0.00030, between the smallest p of 5 seeds and 1 / 5^5
        ((10, 16), 1, (10, 16)),
        ((10, 16), 16, (16,)),  # no p is below 1 / 10,000
        ((12,), 300, ()),
    ],
)
def test_a_look_is_possible_if_some_p_of_its_seeds_is_within_its_level(
    looks: tuple[int, ...], arms: int, possible: tuple[int, ...]
) -> None:
    assert possible_looks(looks, arms) == possible
