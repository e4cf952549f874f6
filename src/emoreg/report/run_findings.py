"""Findings about a study's runs: which collapsed, starved, ended at a limit of λ, or are not finished."""

from __future__ import annotations

import math

from emoreg.report.analysis import Analysis, ArmResult
from emoreg.report.collapse import Frequency, is_starved
from emoreg.report.formatting import count, listed, percent

STUCK = 0.02  # a mean λ this close to 0 or 1 balances nothing


def named(analysis: Analysis) -> list[tuple[str, ArmResult]]:
    """All arms with their names in sentences."""
    has_cells = len(analysis.cells) > 1
    return [
        (f"{arm.label} on {cell.title}" if has_cells else arm.label, arm)
        for cell in analysis.cells
        for arm in cell.arms
    ]


def collapsed(analysis: Analysis) -> list[str]:
    """Arms with runs that are not finite or hardly above chance."""
    each = [f"{name} {_share(arm.collapsed)}" for name, arm in named(analysis) if arm.collapsed.count]
    if not each:
        return []
    return [f"Collapsed (not finite, or hardly above chance): {listed(each)}."]


def starved(analysis: Analysis) -> list[str]:
    """Networks in which one branch hardly learned; it may be a different branch in each seed."""
    on_training = [f"{name} {_share(arm.starved)}" for name, arm in named(analysis) if arm.starved.count]
    on_test = []
    for name, arm in named(analysis):
        if arm.responses is not None and not arm.starved.runs:
            pairs = list(zip(*(response.values for response in arm.responses), strict=True))
            weaker, stronger = (math.fsum(map(pick, pairs)) / len(pairs) for pick in (min, max))
            if is_starved(weaker, stronger):
                unit = f" {arm.outcome.unit}"
                on_test.append(f"{name}, {percent(stronger)}{unit} and {percent(weaker)}{unit}")
    sentences = []
    if on_training:
        sentences.append(
            "One branch starved (alone, less than half as good as the other on training images at the end): "
            f"{listed(on_training)}."
        )
    if on_test:
        sentences.append(
            f"One response decides almost alone (test result of each without the other): {listed(on_test)}."
        )
    if sentences:
        sentences[-1] += " λ then says which branch won, not that emotion is useful."
    return sentences


def _share(frequency: Frequency) -> str:
    """ "in 2 of 8 runs (exact 95 % interval 3 to 65 %)"."""
    low, high = f"{100 * frequency.low:.0f}", f"{100 * frequency.high:.0f}"
    return f"in {frequency.count} of {count(frequency.runs, 'run')} (exact 95 % interval {low} to {high} %)"


def stuck_lambdas(analysis: Analysis) -> list[str]:
    """Arms in which λ ended near 0 or 1."""
    each = [
        f"{name} (near {limit} in {stuck} of {count(len(arm.lam), 'seed')})"
        for name, arm in named(analysis)
        for limit in (0, 1)
        if (stuck := sum(abs(lam - limit) < STUCK for lam in arm.lam))
    ]
    return [f"λ ended at a limit, where only one response counts: {listed(each)}."] if each else []


def unlike_networks(analysis: Analysis) -> list[str]:
    """Arms whose runs trained networks of different sizes, for example because the code of a backbone changed."""
    each = [f"{name} ({min(arm.unlike):,} to {max(arm.unlike):,})" for name, arm in named(analysis) if arm.unlike]
    if not each:
        return []
    return [
        f"Networks of one arm differ in their number of parameters: {listed(each)}. Their mean describes no single "
        "network: repeat the runs with one."
    ]


def unfinished(analysis: Analysis) -> list[str]:
    """How many runs are missing."""
    left = analysis.planned - analysis.finished - len(analysis.diverged)
    if not left:
        return []
    failed = f" ({len(analysis.failures)} failed)" if analysis.failures else ""
    return [f"{left} of {analysis.planned} runs are not finished{failed} and are left out; these findings may change."]
