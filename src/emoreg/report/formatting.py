"""Formats of numbers in a report. A missing number (NaN) is written as a dash."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from emoreg.report.statistics import ENOUGH, Interval

NOTHING = "–"
WITHOUT_INTERVALS = "Below four seeds there are no intervals."
LISTED = 3  # maximum number of items listed in a sentence; the tables have all


def capital(words: str) -> str:
    """The words with a capital first letter; the other letters stay, unlike with `str.capitalize`."""
    return words[:1].upper() + words[1:]


def percent(fraction: float) -> str:
    """0.9512 is "95.12"."""
    return decimal(100 * fraction)


def points(fraction: float) -> str:
    """A difference in percentage points with its sign: 0.004 is "+0.40"."""
    return NOTHING if math.isnan(fraction) else f"{100 * fraction:+z.2f}".replace("-", "−")


def p_value(p: float) -> str:
    """Three decimals, or "<0.001"."""
    return "<0.001" if p < 0.001 else decimal(p, 3)


def decimal(value: float, digits: int = 2) -> str:
    """A plain number: −0.031 is "−0.03"."""
    return NOTHING if math.isnan(value) else f"{value:z.{digits}f}".replace("-", "−")


def seconds(duration: float) -> str:
    """A duration in whole seconds, or with one decimal below ten."""
    return NOTHING if math.isnan(duration) else f"{duration:,.{0 if duration >= 10 else 1}f}"


def scaled(number: float) -> str:
    """11,173,962 is "11.2 M"; zero means not measured and is a dash."""
    if not number > 0:
        return NOTHING
    scale, unit = next(((s, u) for s, u in ((1e9, " G"), (1e6, " M"), (1e3, " k")) if number >= s), (1.0, ""))
    return f"{number / scale:.1f}{unit}" if unit else f"{number:.0f}"


def count(n: int, noun: str) -> str:
    """ "one seed", "3 seeds"."""
    return f"one {noun}" if n == 1 else f"{n} {noun}s"


def seeds_in_words(seeds: Sequence[int]) -> str:
    """Ascending seeds: "0 to 7" if they are consecutive, else "1, 42, 1337"."""
    is_range = len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]} to {seeds[-1]}" if is_range else ", ".join(map(str, seeds))


def bounds(interval: Interval, number: Callable[[float], str], between: str = ", ") -> str:
    """The interval of a mean; empty with two or three seeds, for which the caption has `WITHOUT_INTERVALS`."""
    if interval.n == 1:
        return "one seed"
    if math.isnan(interval.low):
        return "no interval" if interval.n >= ENOUGH else ""
    return f"{number(interval.low)}{between}{number(interval.high)}"


def coverage(level: float) -> str:
    """The coverage of an interval with this one-sided level of its limits: 0.025 is "95 %"."""
    return f"{100 * (1 - 2 * level):.3g} %"


def all_of(parts: Sequence[str], word: str = "and") -> str:
    """A list in words: "a, b and c", or "a, b; c, d; and e, f" if parts contain commas."""
    if len(parts) == 1:
        return parts[0]
    between, last = ("; ", ";") if any(", " in part for part in parts) else (", ", "")
    return f"{between.join(parts[:-1])}{last} {word} {parts[-1]}"


def listed(parts: Sequence[str]) -> str:
    """The first three parts, and how many more there are."""
    more = [f"{len(parts) - LISTED} more"] if len(parts) > LISTED else []
    return "; ".join([*parts[:LISTED], *more])
