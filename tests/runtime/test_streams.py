from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from emoreg.runtime.streams import ESCAPES, print_line, spelled


class Gone(io.StringIO):
    """A terminal that was closed."""

    def write(self, _text: str) -> int:
        raise OSError(5, "Input/output error")

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [None, Gone()], ids=["none", "gone"])
def test_a_line_that_cannot_be_printed_raises_nothing(
    stream: io.StringIO | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    print_line("a line")
    assert capsys.readouterr().out == ""


def test_own_signs_have_a_spelling_in_every_encoding_and_names_become_json_escapes() -> None:
    assert spelled("λ −0.20 ≤ 1…", "ascii") == "lambda -0.20 <= 1..."
    assert spelled("−0.20 ± 1", "latin-1") == "-0.20 ± 1"
    names = ["猫", "café", "😀", "कुत्ता", "كلب"]
    assert [json.loads(f'"{spelled(name, "ascii")}"') for name in names] == names
    assert all(spelled(name, "utf-8") == name for name in names)
    assert "\udc80".encode("utf-8", ESCAPES) == b"\\udc80"  # from a file name that is not text


CLOSED = """\
import os
for number in {closed}:
    os.close(number)
os.execv({python!r}, [{python!r}, "-c", {program!r}])
"""
PROGRAM = """\
from emoreg.runtime.streams import close_streams, open_streams
open_streams()
import os, sys
print("to nobody")
print("to nobody", file=sys.stderr)
assert sys.stdin.read() == ""
mine = os.open({file!r}, os.O_CREAT | os.O_WRONLY)
os.write(mine, b"mine")
os.write(1, b"what a library in C prints")
assert mine > 2
close_streams()
"""


@pytest.mark.skipif(os.name != "posix", reason="closes streams as a shell does")
@pytest.mark.parametrize("closed", [(1,), (0, 1, 2), (0, 1)])
def test_closed_streams_are_opened_on_the_null_device(closed: tuple[int, ...], tmp_path: Path) -> None:
    file = tmp_path / "file"
    program = CLOSED.format(closed=closed, python=sys.executable, program=PROGRAM.format(file=str(file)))
    ended = subprocess.run([sys.executable, "-c", program], check=False, stdin=subprocess.DEVNULL)
    assert ended.returncode == 0
    assert file.read_text() == "mine"
