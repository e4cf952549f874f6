from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from emoreg.report.contrast_plan import between_looks
from emoreg.report.read_runs import read_runs
from emoreg.study.results_table import read_results
from report.study_rows import arms, study

FIRST_EDITION = Path(__file__).parents[1] / "first_edition" / "results.parquet"
STANDS = " (those of the look at 2 stand)"


def planned(
    seeds: int, looks: tuple[int, ...] = (2, 4), purpose: str = "confirmation", target: str = "a"
) -> pd.DataFrame:
    """A study in which these seeds are finished."""
    frame = study(arms(0.9, 0.9), 6, stage=2, target=target, purpose=purpose, planned_seeds=looks[-1])
    frame["looks"] = [list(looks)] * len(frame)
    return frame.assign(status=["finished" if seed < seeds else "waiting" for seed in frame["seed"]])


@pytest.mark.parametrize(
    ("seeds", "looks", "message"),
    [
        (0, (2, 4), "0 of 4 planned seeds are complete: verdicts wait for the look at 2"),
        (1, (2, 4), "1 of 4 planned seeds are complete: verdicts wait for the look at 2"),
        (2, (2, 4), None),
        (3, (2, 4), f"3 of 4 planned seeds are complete: verdicts wait for the look at 4{STANDS}"),
        (4, (2, 4), None),
        (5, (2, 4), None),
        (3, (4,), "3 of 4 planned seeds are complete: verdicts wait for the look at 4"),
    ],
)
def test_between_looks_a_message_says_that_verdicts_wait(
    seeds: int, looks: tuple[int, ...], message: str | None
) -> None:
    assert between_looks(read_runs(planned(seeds, looks))) == message


def test_a_run_that_diverged_counts_for_a_look() -> None:
    frame = planned(4)
    frame.loc[(frame["mode"] == "none") & (frame["seed"] == 3), ["status", "accuracy"]] = "diverged", math.nan
    assert between_looks(read_runs(frame)) is None


def test_a_run_that_failed_hides_no_verdicts_of_other_arms_and_cells() -> None:
    frame = pd.concat([planned(4, target="a"), planned(4, target="b")], ignore_index=True)
    frame.loc[(frame["target"] == "b") & (frame["seed"] == 0), "status"] = "failed"
    assert between_looks(read_runs(frame)) is None


def test_references_alone_wait_for_the_end() -> None:
    frame = planned(3)
    references = frame[frame["mode"] == "none"]
    message = "3 of 4 planned seeds are complete: verdicts wait for the look at 4"
    assert between_looks(read_runs(references)) == message


def test_verdicts_wait_for_a_missing_first_seed() -> None:
    frame = planned(4)
    frame.loc[frame["seed"] == 0, "status"] = "failed"
    message = "3 of 4 planned seeds are complete: verdicts wait for the look at 2"
    assert between_looks(read_runs(frame)) == message


def test_an_exploration_and_a_table_of_the_first_edition_have_no_looks_to_wait_for() -> None:
    assert between_looks(read_runs(planned(1, purpose="exploration"))) is None
    old = read_results(FIRST_EDITION)
    assert old["planned_seeds"].isna().all() and between_looks(read_runs(old)) is None
