"""A handful of the kills that kill.py does by the dozen, at least one of each case, compared as it compares."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reliability.kill import CASES, HALF, IN_PLACE, Moment, differences, run

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(sys.platform != "linux", reason="dying.py asks /proc which file is written"),
]
KILLS = {
    "stage 2": [Moment(file="checkpoint.pt", when=HALF, number=3)],
    "stage 1": [Moment(file="model.safetensors", when=IN_PLACE)],
    # Before anything of its own is in the folder, then where half of a file lies under its final name.
    "pack": [Moment(file="unfinished.json", when=HALF), Moment(file="names.npy", when=HALF)],
}


def test_no_case_is_left_to_kill_py_alone() -> None:
    assert {*KILLS, "study"} == set(CASES)


@pytest.mark.parametrize("name", KILLS)
def test_a_command_that_is_killed_in_the_middle_of_a_write_ends_as_if_it_never_was(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    with ThreadPoolExecutor(1) as meanwhile:
        whole = meanwhile.submit(run, case, tmp_path / "whole")
        for moment in KILLS[name]:
            assert run(case, tmp_path / "killed", moment), moment
        assert not run(case, tmp_path / "killed") and not whole.result()
    assert differences(case, tmp_path / "killed", case.outcome(tmp_path / "whole" / case.made)) == []


@pytest.mark.slow
def test_a_study_that_is_killed_while_its_table_is_written_writes_it_and_trains_nothing_again(tmp_path: Path) -> None:
    case, folder = CASES["study"], tmp_path / "killed"
    assert not run(case, tmp_path / "whole")
    for moment in (Moment(file="results.parquet", when=HALF), Moment(file="results.parquet", when=IN_PLACE)):
        assert run(case, folder, moment), moment
        table, runs = folder / "study" / "results.parquet", folder / "study" / "runs"
        assert table.exists() == (moment.when == IN_PLACE)
        done = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    assert done == {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    assert len(list(runs.glob("*/final.json"))) == 3 and not list(table.parent.glob(".*.part"))
    assert not run(case, folder) and differences(case, folder, case.outcome(tmp_path / "whole" / case.made)) == []
