from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from emoreg.runtime.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Not a fixture: pytest puts its own stderr back between fixtures and test."""
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def let(seconds: float) -> None:
        now[0] += seconds

    return let


def test_quiet_shows_nothing_anywhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    terminal = in_a_terminal(monkeypatch)
    progress = Progress(quiet=True, every=0)
    progress.say("said")
    progress.detail("told")
    with progress.task("outer", 2, "steps") as advance, progress.task("inner", 2, "steps") as inner:
        advance(1)
        inner(1)
    assert terminal.getvalue() == "" and capsys.readouterr().out == ""


def test_lines_go_to_stderr_and_details_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    Progress().say("said")
    Progress(details=False).detail("left out")
    Progress(details=False).say("said again")
    assert capsys.readouterr() == ("", "said\nsaid again\n")


def test_what_was_read_is_told_once_and_what_was_left_out_even_if_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    for progress in (Progress(), Progress(quiet=True)):
        for _ in range(2):
            progress.tell(("val: validation",), ("left out 3 images",))
    assert capsys.readouterr() == ("", "val: validation\nleft out 3 images\nleft out 3 images\n")


def test_without_a_terminal_a_task_tells_a_line_with_an_estimate_at_most_every_so_often(
    capsys: pytest.CaptureFixture[str], pass_time: Callable[[float], None]
) -> None:
    with Progress(every=10).task("train", 100, "steps") as advance:
        for _ in range(100):
            pass_time(1)
            advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 9
    assert lines[0] == "train: 10/100 steps, about 1m30s left"
    assert lines[-1] == "train: 90/100 steps, about 0m10s left"


def test_a_short_task_without_a_terminal_tells_nothing(
    capsys: pytest.CaptureFixture[str], pass_time: Callable[[float], None]
) -> None:
    with Progress(every=10).task("decode", 2, "images") as advance:
        pass_time(9)
        advance(1)
        pass_time(9)
        advance(1)  # done: nothing is left to estimate
    assert capsys.readouterr().err == ""


def test_long_estimates_are_told_in_hours(
    capsys: pytest.CaptureFixture[str], pass_time: Callable[[float], None]
) -> None:
    with Progress(every=10).task("train", 100, "steps") as advance:
        pass_time(120)
        advance(1)
    assert capsys.readouterr().err == "train: 1/100 steps, about 3h18m left\n"


def test_what_was_done_before_is_shown_and_takes_no_part_in_the_estimate(
    capsys: pytest.CaptureFixture[str], pass_time: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Progress(every=10).task("train", 100, "steps", done=90) as advance:
        pass_time(10)
        advance(1)
    assert capsys.readouterr().err == "train: 91/100 steps, about 1m30s left\n"
    in_a_terminal(monkeypatch)
    progress = Progress()
    with progress.task("train", 100, "steps", done=90):
        assert progress._bars is not None and progress._bars.tasks[0].completed == 90


def test_bars_nest_and_stop_with_the_outermost(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = in_a_terminal(monkeypatch)
    progress = Progress()
    with progress.task("all runs", 2, "runs") as advance:
        bars = progress._bars
        assert bars is not None and bars.live.is_started
        with progress.task("train one", 4, "steps") as inner:
            assert progress._bars is bars  # one display for all
            inner(3)
            advance(1)
            outer_task, inner_task = bars.tasks
            assert (outer_task.description, inner_task.description) == ("all runs", "  train one")
            assert (outer_task.completed, inner_task.completed) == (1, 3)
        assert [task.description for task in bars.tasks] == ["all runs"]
        progress.say("a line above the bars")
    assert progress._bars is None and not bars.live.is_started
    assert "a line above the bars" in terminal.getvalue()


def test_bars_stop_when_something_goes_wrong_and_start_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    in_a_terminal(monkeypatch)
    progress = Progress()
    with pytest.raises(KeyboardInterrupt), progress.task("outer", 2, "steps"), progress.task("inner", 2, "steps"):
        raise KeyboardInterrupt
    assert progress._bars is None
    with progress.task("again", 1, "steps") as advance:
        advance(1)
    assert progress._bars is None


def test_brackets_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = in_a_terminal(monkeypatch)
    progress = Progress()
    with progress.task("decode [red] [/nothing] photos[1]", 2, "images") as advance:
        advance(1)
        progress.say("[bold]plain[/bold]")
    assert "decode [red] [/nothing] photos[1]" in terminal.getvalue()
    assert "[bold]plain[/bold]" in terminal.getvalue()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")
def test_a_log_on_a_full_disk_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Path("/dev/full").open("w")  # noqa: SIM115 (its end fails too)
    monkeypatch.setattr(sys, "stderr", log)
    Progress().say("a line")
    with contextlib.suppress(OSError):
        log.close()
