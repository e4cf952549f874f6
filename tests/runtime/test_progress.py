from __future__ import annotations

import errno
import io
import sys
import time
from collections.abc import Callable

import pytest

from emoreg.runtime.progress import Progress, about, in_words


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Not a fixture, since pytest restores its own stderr between fixtures and test."""
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


def test_notes_are_printed_once_and_left_out_images_even_if_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    for progress in (Progress(), Progress(quiet=True)):
        for _ in range(2):
            progress.report_notes(("val: validation",), ("left out 3 images",))
    assert capsys.readouterr() == ("", "val: validation\nleft out 3 images\nleft out 3 images\n")


def test_without_a_terminal_a_task_prints_lines_with_an_estimate_at_most_every_few_seconds(
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


def test_a_short_task_without_a_terminal_prints_nothing(
    capsys: pytest.CaptureFixture[str], pass_time: Callable[[float], None]
) -> None:
    with Progress(every=10).task("decode", 2, "images") as advance:
        pass_time(9)
        advance(1)
        pass_time(9)
        advance(1)  # complete, so nothing is left to estimate
    assert capsys.readouterr().err == ""


def test_long_estimates_are_in_hours(capsys: pytest.CaptureFixture[str], pass_time: Callable[[float], None]) -> None:
    with Progress(every=10).task("train", 100, "steps") as advance:
        pass_time(120)
        advance(1)
    assert capsys.readouterr().err == "train: 1/100 steps, about 3h18m left\n"


def test_earlier_units_are_shown_and_ignored_in_the_estimate(
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


def test_bars_stop_on_an_error_and_can_start_again(monkeypatch: pytest.MonkeyPatch) -> None:
    in_a_terminal(monkeypatch)
    progress = Progress()
    with pytest.raises(KeyboardInterrupt), progress.task("outer", 2, "steps"), progress.task("inner", 2, "steps"):
        raise KeyboardInterrupt
    assert progress._bars is None
    with progress.task("again", 1, "steps") as advance:
        advance(1)
    assert progress._bars is None


def test_brackets_are_printed_verbatim(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = in_a_terminal(monkeypatch)
    progress = Progress()
    with progress.task("decode [red] [/nothing] photos[1]", 2, "images") as advance:
        advance(1)
        progress.say("[bold]plain[/bold]")
    assert "decode [red] [/nothing] photos[1]" in terminal.getvalue()
    assert "[bold]plain[/bold]" in terminal.getvalue()


class Gone(Terminal):
    """A terminal, or a log, that can no longer be written."""

    def __init__(self, error: int) -> None:
        super().__init__()
        self.error, self.is_gone = error, False

    def write(self, text: str) -> int:
        if self.is_gone:
            raise OSError(self.error, "it is gone")
        return super().write(text)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EPIPE, errno.EIO])
def test_work_continues_when_its_terminal_is_closed(error: int, monkeypatch: pytest.MonkeyPatch) -> None:
    in_a_terminal(monkeypatch)
    gone = Gone(error)
    monkeypatch.setattr(sys, "stderr", gone)
    progress, done = Progress(), 0
    progress.say("a line")
    with progress.task("train", 4, "steps") as advance:
        for step in range(4):
            gone.is_gone = step > 1
            advance(1)
            progress.say("another")
            done += 1
    progress.say("and one at the end")
    assert done == 4 and "a line" in gone.getvalue()


@pytest.mark.parametrize("stream", ["none", "closed"])
def test_work_continues_without_stderr(
    stream: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", None if stream == "none" else closed)
    progress = Progress(every=0)
    with progress.task("train", 3, "steps") as advance:
        advance(1)
        progress.say("a line")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("columns", ["0", "abc", "²", "30", "40"])
def test_a_bar_shows_whole_numbers_at_any_width(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = in_a_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", columns)
    progress = Progress()
    with progress.task("train", 1200, "steps") as advance:
        advance(377)
        assert progress._bars is not None
        progress._bars.refresh()  # a thread draws it as well, a moment later
    shown = terminal.getvalue()
    assert "377/1200" in shown and "steps" in shown


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(
    monkeypatch: pytest.MonkeyPatch, pass_time: Callable[[float], None]
) -> None:
    terminal = in_a_terminal(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    with Progress(every=10).task("train", 100, "steps") as advance:
        pass_time(10)
        advance(10)
    assert terminal.getvalue() == "train: 10/100 steps, about 1m30s left\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (5, "a few seconds"),
        (45, "a minute"),
        (61, "a minute"),
        (90, "1.5 minutes"),
        (2400, "40 minutes"),
        (3600, "an hour"),
        (5400, "90 minutes"),
        (86_400, "a day"),
        (2.4 * 86_400, "2.4 days"),
        (17 * 365.25 * 86_400, "17 years"),
    ],
)
def test_a_long_duration_is_in_the_most_natural_unit(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
    assert about(seconds) == (words if words == "a few seconds" else f"about {words}")
