"""What a set of runs says: each arm's mean, its interval, its gain over the plain backbone, and that in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided 95 % Student-t confidence interval over seeds.

    With one seed there is no interval: `low` and `high` are NaN.
    """

    mean: float
    low: float
    high: float
    values: tuple[float, ...]  # one a seed, in the order of the seeds

    @property
    def n(self) -> int:
        """How many seeds."""
        return len(self.values)

    @property
    def sign(self) -> int:
        """1 if the interval lies above zero, -1 if below, 0 if that cannot be told.

        Values that are the same in every seed count as 0: without any spread there is nothing to judge by.
        """
        if not self.low < self.high:  # NaN too
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


@dataclass(frozen=True)
class ArmSummary:
    """One row of the results table."""

    name: str  # as in the code, e.g. "learned"
    label: str  # as in reports, e.g. "Learn-E-Reg"
    is_control: bool
    accuracy: Interval  # on the test split, in [0, 1]
    gain: Interval | None  # accuracy minus the backbone's, paired by seed; None for the backbone
    lam: tuple[float, ...]  # λ at the end of training, one value a seed; empty without an emotional branch
    seconds: float  # mean training time of one run
    curves: pd.DataFrame  # columns seed, epoch, val_accuracy, train_loss, lambda: one row a seed and epoch


def interval(values: Sequence[float]) -> Interval:
    """Mean of `values` (one a seed) with its 95 % Student-t interval."""
    from scipy import stats

    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Interval(mean, math.nan, math.nan, tuple(values))
    if max(values) - min(values) < 1e-12:  # the same in every seed but for rounding; scipy would give NaN
        return Interval(mean, mean, mean, tuple(values))
    low, high = stats.t.interval(0.95, n - 1, loc=mean, scale=stats.sem(values))
    return Interval(mean, float(low), float(high), tuple(values))


def difference(one: Interval, other: Interval) -> Interval:
    """`one` minus `other`, paired by seed. ValueError if they have not the same number of seeds."""
    return interval([a - b for a, b in zip(one.values, other.values, strict=True)])


def best_control(summaries: Sequence[ArmSummary]) -> ArmSummary | None:
    """The control with the highest mean accuracy: an arm must pass it before emotion can be the reason."""
    return max((s for s in summaries if s.is_control), key=lambda s: s.accuracy.mean, default=None)


def findings(summaries: Sequence[ArmSummary]) -> list[str]:
    """What was found, in sentences, the most important first.

    The rule: a regulated arm is above the backbone if the 95 % interval of its gain lies above zero, and above
    the best control if the interval of the difference, paired by seed, does. Only what is above both may be due
    to more than the control has. One seed has no interval and shows nothing.
    """
    arms = [(s, s.gain) for s in summaries if s.gain is not None and not s.is_control]
    if not arms:
        return ["No regulated arm was run beside Backbone, so there is no gain to report."]
    best, highest = max(arms, key=lambda pair: pair[1].mean)
    largest = f"The largest gain is {best.label}'s: {told(highest)}."
    if highest.n == 1:
        return ["One seed gives no interval, so nothing here can be told from chance.", largest]

    control = best_control(summaries)
    above = [(s, gain) for s, gain in arms if gain.sign > 0]
    below = [(s, gain) for s, gain in arms if gain.sign < 0]
    passing = [s for s, _ in above if control and difference(s.accuracy, control.accuracy).sign > 0]
    sentences = [_headline(len(arms), len(above), len(below), len(passing), control, highest.n)]
    sentences += [f"{s.label}'s gain over Backbone is {told(gain)}{_over_control(s, control)}." for s, gain in above]
    sentences += [f"{s.label} is below Backbone: {told(gain)}." for s, gain in below]
    if not above and not below:
        sentences.append(largest)
    elif rest := [s.label for s, gain in arms if gain.sign == 0]:
        sentences.append(f"Not distinguishable from Backbone: {', '.join(rest)}.")
    if above and control and control.gain:
        sentences.append(f"The control {control.label}'s own gain over Backbone is {told(control.gain)}.")
    if passing and control:
        sentences.append(
            f"A gain above {control.label} is not explained by what that control has. That emotion explains it is not "
            "shown until the other explanations have their controls too."
        )
    if len(arms) > 1:
        sentences.append(
            f"The intervals are not corrected for comparing {len(arms)} arms: the more arms, the likelier it is that "
            "one of them stands out by chance."
        )
    return sentences


def _headline(arms: int, above: int, below: int, passing: int, control: ArmSummary | None, n: int) -> str:
    if not above and not below:
        return f"No regulated arm's gain over Backbone is distinguishable from zero with {n} seeds."
    if not above:
        return f"No regulated arm is above Backbone with {n} seeds; {below} of {arms} {_are(below)} below it."
    first = f"{above} of {arms} regulated arms {_are(above)} above Backbone with {n} seeds"
    if control is None:
        return f"{first}; no control was run, so nothing here shows that emotion does it."
    if not passing:
        return f"{first}, but none is above the control {control.label}: nothing here shows that emotion does it."
    return f"{first}; {passing} {_are(passing)} above the control {control.label} as well."


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _over_control(arm: ArmSummary, control: ArmSummary | None) -> str:
    if control is None:
        return ""
    effect = difference(arm.accuracy, control.accuracy)
    how = {1: "above", 0: "not distinguishable from", -1: "below"}[effect.sign]
    link = "and" if effect.sign > 0 else "but"
    return f", {link} it is {how} the control {control.label}: difference {told(effect)}"


def told(gain: Interval) -> str:
    """A gain in words: "+0.40 points (95 % interval +0.10 to +0.70)"."""
    if gain.n == 1:
        return f"{points(gain.mean)} points (one seed, no interval)"
    return f"{points(gain.mean)} points (95 % interval {points(gain.low)} to {points(gain.high)})"


def points(fraction: float) -> str:
    """A difference in percentage points with its sign: 0.004 is "+0.40"."""
    return f"{round(100 * fraction, 2) + 0.0:+.2f}".replace("-", "−")  # + 0.0 makes of -0.0 a plain zero
