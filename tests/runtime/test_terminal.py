from __future__ import annotations

import io
import os
import sys

import pytest
from rich.text import Text

from emoreg.runtime.terminal import Table, show, size_of, two_columns

PATH = "photos/holidays-2026/a-name-without-any-blank-in-it.jpeg"
WIDTHS = (1, 5, 20, 40, 79, 80, 200)


def table() -> Table:
    made = Table("image", "class", "felt\nvalence", title="Predictions of a run", caption="felt: read by a head")
    made.add_row(PATH, "golden retriever 0.93", "+0.71")
    made.add_row("b.png", "[red]cat[/red] 0.51", "−0.20")
    return made


def printed(*parts: Table | Text | str, columns: str | None, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        if columns is not None:
            patch.setenv("COLUMNS", columns)
        show(*parts)
    return capsys.readouterr().out


class Pseudo(io.StringIO):
    """A terminal that does not report its size."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", WIDTHS)
def test_no_value_is_cut_at_any_width(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(table(), columns=str(width), capsys=capsys)
    for word in (PATH, "golden", "retriever", "0.93", "+0.71", "[red]cat[/red]", "0.51", "−0.20", "Predictions"):
        assert word in shown
    assert "…" not in shown


def test_what_does_not_fit_is_printed_as_records(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(table(), columns="40", capsys=capsys)
    assert shown.splitlines() == [
        "Predictions of a run",
        f"image: {PATH}",
        "class: golden retriever 0.93",
        "felt valence: +0.71",
        "",
        "image: b.png",
        "class: [red]cat[/red] 0.51",
        "felt valence: −0.20",
        "",
        "felt: read by a head",
    ]


def test_cells_are_wrapped_between_words_before_a_table_becomes_records(capsys: pytest.CaptureFixture[str]) -> None:
    made = Table("arm", "experiences", box=None)
    made.add_row("Learn-E-Reg", "oasis, emoset, procedural")
    assert len(printed(made, columns="200", capsys=capsys).splitlines()) == 2
    narrow = printed(made, columns="26", capsys=capsys).splitlines()
    assert len(narrow) > 2 and "arm:" not in "".join(narrow) and max(map(len, narrow)) <= 26
    assert printed(made, columns="19", capsys=capsys) == "Learn-E-Reg: oasis, emoset, procedural\n"


def test_records_of_a_table_with_two_columns_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    made = two_columns("metric", "value", [("accuracy_non_emotional", "0.9123"), ("images", "10,000")], "test split")
    shown = printed(made, columns="20", capsys=capsys)
    assert shown.splitlines() == ["test split", "accuracy_non_emotional: 0.9123", "images: 10,000"]


def test_headings_and_empty_cells_of_a_record_have_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    made = Table("arm", "accuracy", "λ at\nend")
    made.add_row(Text("references"))
    made.add_row("Backbone", "91.23\n90.10 to 92.36", "")
    shown = printed(made, columns="10", capsys=capsys)
    assert shown.splitlines() == ["references", "arm: Backbone", "accuracy: 91.23; 90.10 to 92.36", ""]


@pytest.mark.parametrize("columns", ["0", "", "abc", "-5", "1.5", "²", "9" * 30])
def test_an_invalid_width_is_80_in_a_terminal(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert size_of(Pseudo())[0] == 80


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs pseudo-terminals")
def test_a_terminal_of_width_0_counts_as_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl
    import struct
    import termios

    monkeypatch.delenv("COLUMNS", raising=False)
    ours, theirs = os.openpty()
    try:
        with open(theirs, "w", closefd=False) as terminal:
            for said, meant in ((0, 80), (40, 40), (132, 132)):
                fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 0, said, 0, 0))
                assert size_of(terminal)[0] == meant
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("columns", [None, "0", "abc"])
def test_a_pipe_gets_whole_lines(columns: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    sentence = "a sentence of many words " * 20
    shown = printed(table(), sentence, columns=columns, capsys=capsys)
    assert any(PATH in line and "golden retriever 0.93" in line and "+0.71" in line for line in shown.splitlines())
    assert sentence in shown


def test_lines_are_wrapped_between_words_in_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    text = Text(f"  one two\nthree four {PATH}\n\nfive", "bold")
    lines = printed(text, columns="11", capsys=capsys).splitlines()
    assert lines == ["  one two", "three four", PATH, "", "five"]
    whole = printed(table(), columns="12", capsys=capsys)
    assert "Predictions\nof a run\n" in whole and "felt: read\nby a head\n" in whole


def test_lines_are_printed_without_markup(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed("[bold]a[/bold] [/x]", columns="80", capsys=capsys) == "[bold]a[/bold] [/x]\n"


def test_columns_are_aligned_when_letters_are_printed_as_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii", errors="emoreg.escapes"))
    made = Table("class", "change", box=None)
    made.add_row("猫", "−0.1")
    made.add_row("dog", "+0.1")
    show(made)
    _, cat, dog = raw.getvalue().decode().splitlines()
    assert cat.index("-0.1") == dog.index("+0.1") and "\\u732b" in cat
