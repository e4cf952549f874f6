from __future__ import annotations

import math

import pandas as pd
import pytest
from scipy import stats

from emoreg.summary import ArmSummary, best_control, difference, findings, interval, points

BACKBONE = (0.900, 0.910, 0.905)


def arm(
    name: str, accuracies: tuple[float, ...], backbone: tuple[float, ...] | None = BACKBONE, is_control: bool = False
) -> ArmSummary:
    gain = None if backbone is None else interval([a - b for a, b in zip(accuracies, backbone, strict=True)])
    return ArmSummary(name, name, is_control, interval(accuracies), gain, (0.5,) * len(accuracies), 1.0, pd.DataFrame())


def shifted(*gains: float) -> tuple[float, ...]:
    return tuple(b + gain for b, gain in zip(BACKBONE, gains, strict=True))


PLAIN = arm("Backbone", BACKBONE, None)
NOISE = arm("Noise", shifted(0.01, -0.01, 0.002))
BETTER = arm("Better", shifted(0.020, 0.021, 0.022))
WORSE = arm("Worse", shifted(-0.020, -0.021, -0.022))
CONTROL = arm("random_encoder", shifted(0.001, -0.001, 0.0005), is_control=True)
STRONG_CONTROL = arm("random_encoder", shifted(0.021, 0.020, 0.022), is_control=True)


def test_an_interval_is_the_mean_and_its_student_t_quantile() -> None:
    got = interval([1.0, 2.0, 3.0])
    half = 4.302653 / math.sqrt(3)  # t(0.975, 2) = 4.302653, standard deviation 1
    assert (got.mean, got.n, got.values) == (2.0, 3, (1.0, 2.0, 3.0))
    assert (got.low, got.high) == pytest.approx((2 - half, 2 + half), abs=1e-6)


def test_an_interval_agrees_with_scipy() -> None:
    values = [0.91, 0.93, 0.925, 0.90]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (interval(values).low, interval(values).high) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("values", [[0.5, 0.5, 0.5], [0.3 - 0.2, 0.1, 0.9 - 0.8]])
def test_identical_values_give_an_interval_of_no_width_and_no_evidence(values: list[float]) -> None:
    got = interval(values)
    assert got.low == got.mean == got.high
    assert got.sign == 0


def test_one_seed_gives_no_interval_and_no_evidence() -> None:
    got = interval([0.7])
    assert got.mean == 0.7
    assert math.isnan(got.low)
    assert math.isnan(got.high)
    assert got.sign == 0


def test_the_sign_is_that_of_the_whole_interval() -> None:
    assert [s.gain.sign for s in (BETTER, NOISE, WORSE) if s.gain] == [1, 0, -1]


def test_a_difference_is_paired_by_seed() -> None:
    one, other = interval([0.9, 0.5]), interval([0.8, 0.3])
    assert difference(one, other).values == pytest.approx((0.1, 0.2))
    with pytest.raises(ValueError, match="shorter"):
        difference(one, interval([0.9]))


def test_the_best_control_is_the_one_to_beat() -> None:
    assert best_control([PLAIN, CONTROL, BETTER, STRONG_CONTROL]) is STRONG_CONTROL
    assert best_control([PLAIN, BETTER]) is None


def test_points_carry_their_sign_and_zero_has_no_minus() -> None:
    assert [points(x) for x in (0.004, -0.004, -0.00001)] == ["+0.40", "−0.40", "+0.00"]


def test_a_null_is_told_as_a_null() -> None:
    first, largest = findings([PLAIN, NOISE, CONTROL])
    assert first == "No regulated arm's gain over Backbone is distinguishable from zero with 3 seeds."
    assert largest.startswith("The largest gain is Noise's: +0.07 points (95 % interval −2.4")


def test_a_gain_that_the_control_has_too_is_not_put_down_to_emotion() -> None:
    first, gain, own = findings([PLAIN, BETTER, STRONG_CONTROL])
    assert first == (
        "1 of 1 regulated arms is above Backbone with 3 seeds, but none is above the control random_encoder: "
        "nothing here shows that emotion does it."
    )
    assert gain.startswith("Better's gain over Backbone is +2.10 points (95 % interval +1.85 to +2.35), but it is not ")
    assert "not distinguishable from the control random_encoder: difference +0.00 points" in gain
    assert own.startswith("The control random_encoder's own gain over Backbone is +2.10 points")


def test_a_gain_above_the_control_is_told_with_what_it_leaves_open() -> None:
    first, gain, _, caution = findings([PLAIN, BETTER, CONTROL])
    assert first == (
        "1 of 1 regulated arms is above Backbone with 3 seeds; 1 is above the control random_encoder as well."
    )
    assert ", and it is above the control random_encoder: difference +2.08 points (95 % interval +" in gain
    assert "That emotion explains it is not shown" in caution


def test_a_gain_without_any_control_shows_nothing_about_emotion() -> None:
    first, gain = findings([PLAIN, BETTER])
    assert first.endswith("no control was run, so nothing here shows that emotion does it.")
    assert "control" not in gain


def test_a_loss_is_told_as_a_loss() -> None:
    first, loss, rest, _ = findings([PLAIN, NOISE, WORSE, CONTROL])
    assert first == "No regulated arm is above Backbone with 3 seeds; 1 of 2 is below it."
    assert loss.startswith("Worse is below Backbone: −2.10 points")
    assert rest == "Not distinguishable from Backbone: Noise."


def test_one_seed_claims_nothing() -> None:
    plain, better = arm("Backbone", (0.9,), None), arm("Better", (0.95,), (0.9,))
    assert findings([plain, better]) == [
        "One seed gives no interval, so nothing here can be told from chance.",
        "The largest gain is Better's: +5.00 points (one seed, no interval).",
    ]


@pytest.mark.parametrize("others", [[NOISE, arm("Noise 2", NOISE.accuracy.values)], [BETTER, NOISE], [BETTER, WORSE]])
def test_several_arms_are_always_said_to_be_uncorrected(others: list[ArmSummary]) -> None:
    assert findings([PLAIN, *others, CONTROL])[-1].startswith("The intervals are not corrected for comparing 2 arms")


@pytest.mark.parametrize("summaries", [[], [PLAIN], [PLAIN, CONTROL], [arm("Better", BACKBONE, None)]])
def test_nothing_to_compare_is_said(summaries: list[ArmSummary]) -> None:
    assert findings(summaries) == ["No regulated arm was run beside Backbone, so there is no gain to report."]
