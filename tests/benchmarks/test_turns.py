from __future__ import annotations

import multiprocessing
from functools import partial

import pytest
from turns import Arm, take_turns

RIGHT: Arm = partial, (float, "2")


@pytest.mark.parametrize("wrong", [(int, ("nothing",)), (partial, (int, "nothing"))], ids=["made", "first round"])
def test_an_arm_that_fails_ends_the_benchmark_and_the_other_arms(wrong: Arm, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="the arm wrong has failed"):
        take_turns({"right": RIGHT, "wrong": wrong}, rounds=1)
    assert not multiprocessing.active_children()
    assert "ValueError" in capfd.readouterr().err


def test_warm_up_rounds_do_not_count() -> None:
    figures = take_turns({"one": RIGHT, "other": (partial, (float, "1"))}, rounds=2)
    assert figures.rounds == {"one": [2.0, 2.0], "other": [1.0, 1.0]} and figures.ratio("one", "other")[0] == 2
