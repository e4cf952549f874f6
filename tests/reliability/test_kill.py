"""A few of the kills of kill.py, at least one of each case."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reliability.kill import CASES, HALF, IN_PLACE, Moment, differences, run

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(sys.platform != "linux", reason="dying.py needs /proc"),
]
KILLS = {
    "stage 2": [Moment(file="checkpoint.pt", when=HALF, number=3)],
    "stage 1": [Moment(file="model.safetensors", when=IN_PLACE)],
    # Before the folder has any file of the pack, then with half of a file under its final name.
    "pack": [Moment(file="unfinished.json", when=HALF), Moment(file="names.npy", when=HALF)],
}


def test_every_case_of_kill_py_is_tested_here() -> None:
    assert {*KILLS, "study"} == set(CASES)


@pytest.mark.parametrize("name", KILLS)
def test_a_command_killed_in_the_middle_of_a_write_resumes_to_the_same_result(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    with ThreadPoolExecutor(1) as pool:
        whole = pool.submit(run, case, tmp_path / "whole")
        for moment in KILLS[name]:
            assert run(case, tmp_path / "killed", moment), moment
        assert not run(case, tmp_path / "killed") and not whole.result()
    assert differences(case, tmp_path / "killed", case.outcome(tmp_path / "whole" / case.output)) == []


@pytest.mark.slow
def test_a_study_killed_while_its_table_is_written_trains_nothing_again(tmp_path: Path) -> None:
    case, folder = CASES["study"], tmp_path / "killed"
    assert not run(case, tmp_path / "whole")
    for moment in (Moment(file="results.parquet", when=HALF), Moment(file="results.parquet", when=IN_PLACE)):
        assert run(case, folder, moment), moment
        table, runs = folder / "study" / "results.parquet", folder / "study" / "runs"
        assert table.exists() == (moment.when == IN_PLACE)
        done = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    assert done == {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    assert len(list(runs.glob("*/final.json"))) == 3 and not list(table.parent.glob(".*.part"))
    assert not run(case, folder) and differences(case, folder, case.outcome(tmp_path / "whole" / case.output)) == []
