from __future__ import annotations

import math

import pytest

from emoreg.report.formatting import NOTHING, all_of, bounds, count, decimal, p_value, percent, points, scaled, seconds
from emoreg.report.statistics import Interval

NAN = math.nan


def test_points_carry_their_sign_and_zero_has_no_minus() -> None:
    assert [points(x) for x in (0.004, -0.004, -0.00001)] == ["+0.40", "−0.40", "+0.00"]


def test_plain_numbers_have_a_true_minus_and_zero_has_none() -> None:
    assert [decimal(-0.031), decimal(-0.001), decimal(0.25, 3), percent(0.9512)] == ["−0.03", "0.00", "0.250", "95.12"]


@pytest.mark.parametrize("write", [percent, points, p_value, decimal, seconds, scaled])
def test_a_missing_number_is_a_dash(write: object) -> None:
    assert callable(write) and write(NAN) == NOTHING


@pytest.mark.parametrize(
    ("number", "text"), [(0, NOTHING), (999, "999"), (272_474, "272.5 k"), (11_173_962, "11.2 M"), (1.1e9, "1.1 G")]
)
def test_large_numbers_are_short(number: float, text: str) -> None:
    assert scaled(number) == text


@pytest.mark.parametrize(("p", "text"), [(0.0004, "<0.001"), (0.03125, "0.031"), (1.0, "1.000")])
def test_a_p_has_three_decimals(p: float, text: str) -> None:
    assert p_value(p) == text


def test_durations_are_whole_seconds_from_ten_on() -> None:
    assert [seconds(x) for x in (0.06, 9.9, 10.4, 7200.0)] == ["0.1", "9.9", "10", "7,200"]


def test_a_count_has_a_singular() -> None:
    assert [count(n, "seed") for n in (0, 1, 2)] == ["0 seeds", "one seed", "2 seeds"]


def test_a_missing_interval_says_why() -> None:
    assert bounds(Interval(0.9, 0.89, 0.91, (0.9, 0.9)), percent) == "89.00, 91.00"
    assert bounds(Interval(0.9, NAN, NAN, (0.9,)), percent) == "one seed"
    assert bounds(Interval(0.9, NAN, NAN, (0.9, 0.9)), percent) == ""
    assert bounds(Interval(0.9, NAN, NAN, (0.9,) * 4), percent) == "no interval"
    assert bounds(Interval(NAN, NAN, NAN, ()), percent) == ""


def test_a_list_of_parts_with_commas_has_semicolons() -> None:
    assert [all_of(["a"]), all_of(["a", "b"]), all_of(["a", "b", "c"], "or")] == ["a", "a and b", "a, b or c"]
    assert all_of(["each of 1,000", "10,000 images"], "or") == "each of 1,000 or 10,000 images"
    assert all_of(["a, x", "b"]) == "a, x; and b" and all_of(["a", "b, x", "c"]) == "a; b, x; and c"
