"""The simulated figures in docs/method.md agree with the last run of benchmarks/simulations.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = " ".join((ROOT / "docs" / "method.md").read_text(encoding="utf-8").split())
SEEN = json.loads((ROOT / "benchmarks" / "seen" / "simulations.json").read_text(encoding="utf-8"))
VALUES = {(row["table"], row["setting"], row["contrast"], row["seeds"]): 100 * row["value"] for row in SEEN["rows"]}
WORTH = "mode worth a point, {} of {} twins as good as the arm"
EXPONENTIAL, DROPS = "exponential, left-skewed", "one in ten drops by six deviations"
HEAVY, FEW = "t of 3 degrees of freedom", "half a point, few seeds"
SKEWED, HARD, SOON = "gamma of shape 4, left-skewed", "images that one arm finds hard", "5, 6, 7, 8, 9, 10, 11, 12"


def value(table: str, setting: str, contrast: str = "gain", seeds: str = "8") -> float:
    """A simulated figure in percent."""
    return float(VALUES[table, setting, contrast, seeds])


@pytest.mark.parametrize(
    ("start", "cells"),
    [
        (
            "mode worth a point, one twin as good as the arm | 8",
            [
                f"{value('level', 'normal'):.1f} %",
                f"{value('level', WORTH.format(1, 3), 'label'):.1f} %",
                f"{value('level', WORTH.format(1, 5), 'emotion'):.1f} %",
            ],
        ),
        ("(gamma of shape 4) | 12", [f"{value('level', SKEWED, seeds='12'):.1f} %"]),
        ("(exponential) | 8", [f"{value('level', EXPONENTIAL):.1f} %"]),
        ("lower by six deviations | 8", [f"{value('level', DROPS):.1f} %"]),
        (
            "all twins as good as the arm | 8",
            [
                f"{value('coverage', 'normal'):.1f} %",
                f"{value('coverage', WORTH.format(3, 3), 'label'):.1f} %",
                f"{value('coverage', WORTH.format(5, 5), 'emotion'):.1f} %",
            ],
        ),
        *(
            (start, [f"{value('power', 'half a point', name, seeds):.0f} %" for name in ("gain", "label", "emotion")])
            for start, seeds in (("| | 8", "8"), ("| | 12", "12"))
        ),
        *(
            (start, [f"{value('power', how, name, seeds):.0f} %" for name in ("gain", "label", "emotion")])
            for start, how, seeds in (
                ("all twins equal | 5", FEW, "5"),
                ("| | 6", FEW, "6"),
                ("| | 7", FEW, "7"),
                ("which is not done | 5", f"{FEW}, by a paired t test", "5"),
                ("| | 8", f"{FEW}, by a paired t test", "8"),
            )
        ),
    ],
)
def test_the_table_of_simulations_agrees_with_the_last_run(start: str, cells: list[str]) -> None:
    assert f"{start} | {' | '.join(cells)} |" in PAGE


def test_the_text_around_the_table_agrees_with_the_last_run() -> None:
    alone = value("coverage", f"{HARD}, by an interval over seeds alone")
    assert f"covers {alone:.0f} % with 8 seeds, and one over seeds and images {value('coverage', HARD):.0f} %" in PAGE
    often = value("level", "nothing differs, looks at the full level", seeds=SOON)
    planned = value("level", "nothing differs, planned looks", seeds=SOON)
    assert f"find {often:.1f} % of effects that are not there, planned ones {planned:.1f} %" in PAGE
    few, more, many = (f"{value('level', DROPS, seeds=seeds):.1f} %" for seeds in ("5", "8", "12"))
    assert f"{few} of effects that are not there are then found with 5 seeds, {more} with 8 and {many} with 12" in PAGE
    skewed, much = value("level", SKEWED), value("level", EXPONENTIAL, seeds="5")
    assert f"{skewed:.1f} % for the gamma with 8 seeds, {much:.1f} % for the exponential with 5" in PAGE
    levels, coverages = (
        [value(table, HEAVY, seeds=seeds) for seeds in ("5", "8", "12")] for table in ("level", "coverage")
    )
    covered = f"{min(coverages):.0f} to {max(coverages):.0f} %"
    assert f"{min(levels):.1f} to {max(levels):.1f} %, and intervals that cover {covered}" in PAGE
    assert f"{SEEN['studies']:,} studies" in PAGE
