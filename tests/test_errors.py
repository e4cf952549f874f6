from __future__ import annotations

import pytest

from emoreg.errors import MAX_LENGTH, UserError, is_plain, printable, shortened


@pytest.mark.parametrize("message", ["a\nb", "a\r\nb", "a \n\n\t b\n"])
def test_a_message_of_many_lines_is_told_in_one(message: str) -> None:
    assert str(UserError(message)) == "a b"


def test_a_message_cannot_control_a_terminal() -> None:
    assert str(UserError("a\x1b[2J\x07\u202eb\udcff")) == r"a\x1b[2J\x07\u202eb\udcff"


def test_a_message_keeps_its_beginning_and_its_end_however_long_it_is() -> None:
    line = str(UserError(f"recipe.yaml:3: {'x' * 10**6}; leave it out"))
    assert line.startswith("recipe.yaml:3: x") and line.endswith("x; leave it out") and len(line) < MAX_LENGTH + 10


def test_letters_of_any_script_are_printed_as_they_are() -> None:
    assert printable("Gemütlich 猫 λ") == "Gemütlich 猫 λ"


@pytest.mark.parametrize(
    ("name", "plain"), [("猫 (1)", True), ("ice\u00a0cream", True), ("a\x1b", False), ("\udcff", False)]
)
def test_names_with_control_characters_or_broken_unicode_are_not_plain(name: str, plain: bool) -> None:
    assert is_plain(name) is plain


def test_a_long_text_of_another_library_is_cut() -> None:
    assert shortened("a\n  b") == "a b" and shortened("x" * 200) == "x" * 99 + "…"
