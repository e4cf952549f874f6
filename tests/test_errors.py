from __future__ import annotations

import pickle

import pytest

from emoreg.errors import MAX_LENGTH, SettingError, UserError, is_plain, printable, shortened


@pytest.mark.parametrize("message", ["a\nb", "a\r\nb", "a \n\n\t b\n"])
def test_a_message_of_several_lines_becomes_one_line(message: str) -> None:
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


def test_a_long_text_is_shortened_to_one_line() -> None:
    assert shortened("a\n  b") == "a b" and shortened("x" * 200) == "x" * 99 + "…"


def test_a_setting_error_names_file_line_key_and_reason() -> None:
    error = SettingError("epochs", "must be at least 1, not 0")
    assert str(error) == "epochs: must be at least 1, not 0"
    error = error.within("training")
    assert str(error) == "training.epochs: must be at least 1, not 0"
    assert str(error.at("my.yaml")) == "my.yaml: training.epochs: must be at least 1, not 0"
    assert str(error.at("my.yaml", 3)) == "my.yaml:3: training.epochs: must be at least 1, not 0"
    assert isinstance(error, UserError) and isinstance(error, ValueError)


def test_a_setting_error_without_a_key_is_its_reason() -> None:
    error = SettingError("", "nothing would be trained")
    assert str(error) == "nothing would be trained"
    assert error.within("loss").key == "loss"


def test_the_key_of_an_element_follows_its_list_without_a_dot() -> None:
    assert SettingError("name", "must be text, not 3").within("[1]").within("also").key == "also[1].name"
    assert SettingError("", "must be text, not 3").within("[0]").within("target.classes").key == "target.classes[0]"


@pytest.mark.parametrize("error", [UserError("a"), SettingError("a.b", "must be c", "d.yaml", 7)])
def test_errors_keep_their_fields_when_pickled(error: UserError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) and str(copy) == str(error) and vars(copy) == vars(error)
