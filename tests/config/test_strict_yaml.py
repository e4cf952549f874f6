from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from emoreg.config.strict_yaml import MAX_BYTES, parse_yaml, read_yaml, whole_number
from emoreg.errors import SettingError, UserError

TEXT = """\
training:
  epochs: 3
also:
  - name: oasis
    classes: [a,
      b]
  - 5
"""


def test_every_key_and_element_has_its_line() -> None:
    values, lines = parse_yaml(TEXT)
    assert values == {"training": {"epochs": 3}, "also": [{"name": "oasis", "classes": ["a", "b"]}, 5]}
    assert lines == {
        "training": 1,
        "training.epochs": 2,
        "also": 3,
        "also[0]": 4,
        "also[0].name": 4,
        "also[0].classes": 5,
        "also[0].classes[0]": 5,
        "also[0].classes[1]": 6,
        "also[1]": 7,
    }


@pytest.mark.parametrize(
    ("text", "values"), [("", None), ("# a comment", None), ("7", 7), ("yes", True), ("[1e-3]", ["1e-3"])]
)
def test_any_plain_value_is_read(text: str, values: object) -> None:
    assert parse_yaml(text)[0] == values


@pytest.mark.parametrize(
    ("text", "key", "reason", "line"),
    [
        ("a: 1\nb: {c: 1,\n c: 2}", "b.c", "appears twice (first on line 2)", 3),
        ("a:\n  b.c: 1", "a.b.c", "write sections as mappings, not with dots", 2),
        ("a:\n- {1: 2}", "a[0]", "keys must be text, not 1", 2),
        ("? {a: b}\n: 2", "", "keys must be text, not a list or mapping", 1),
        ("\n<<: {a: 1}", "", "merge keys (<<) are not supported; write the settings out", 2),
        ("a: 1\nb: !mine 3", "", "tags (!) are not supported; write the plain value, or put it in quotes", 2),
        ("[" * 33, "", "nested more than 32 deep", 1),
        ("a: 1\nb: \0", "", "a character that YAML does not allow, U+0000; remove it, or save the file as UTF-8", 2),
        ('a: {"b ": 1}', "a.b ", "has a blank (space) at an end; remove it", 1),
        ("a:\n\u00a0\u00a0b: 1", "\u00a0\u00a0b", "has a blank (no-break space) at an end; remove it", 2),
        ("a\u3000: 1", "a\u3000", "has a blank (ideographic space) at an end; remove it", 1),
    ],
)
def test_the_error_has_the_key_the_reason_and_the_line(text: str, key: str, reason: str, line: int | None) -> None:
    with pytest.raises(SettingError) as caught:
        parse_yaml(text)
    assert (caught.value.key, caught.value.reason, caught.value.line) == (key, reason, line)


@pytest.mark.parametrize(
    "text", ["010", "08", "-00", "1:30", "1:30.5", "1_000", "0x10", "0b11", "0o17", "010.5", "1e3"]
)
def test_values_that_versions_of_yaml_read_differently_stay_text(text: str) -> None:
    assert parse_yaml(f"a: {text}")[0] == {"a": text} and parse_yaml(f"[{text}]")[0] == [text]
    assert whole_number(text) is None


@pytest.mark.parametrize("text", ["2024-01-02", "2024-02-31", "2024-01-02 10:00:00", "=", "y", "9" * 5000])
def test_dates_and_very_long_numbers_stay_text(text: str) -> None:
    assert parse_yaml(f"a: {text}")[0] == {"a": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("0", 0), ("-0", 0), ("+12", 12), ("-7", -7), ("1.", 1.0), (".5", 0.5), ("-1.5e+3", -1500.0), ("0.0", 0.0)),
        *(("null", None), ("~", None), ("NULL", None), ("on", True), ("No", False)),
    ],
)
def test_plain_numbers_booleans_and_null_are_read_as_in_any_yaml(text: str, value: object) -> None:
    assert parse_yaml(f"a: {text}")[0] == {"a": value}


@pytest.mark.parametrize(
    "value", [0.1, 1e-05, 5e-324, 1e300, -2.5, 12, -1, True, None, "010", "1e3", "no", "2024-01-02"]
)
def test_what_pyyaml_writes_is_read_back(value: object) -> None:
    assert parse_yaml(yaml.safe_dump({"a": value}))[0] in ({"a": value}, {"a": str(value)})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_files_of_any_editor_are_read(encoding: str, end: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(f"a: naïve{end}b: 1{end}".encode(encoding))
    assert read_yaml(tmp_path / "a.yaml")[0] == {"a": "naïve", "b": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1\nb: é".encode("latin-1"), "a.yaml:2: not text in UTF-8; save it as UTF-8"),
        ("a: 1".encode("utf-16")[:-1], "a.yaml:1: not text in UTF-16; save it as UTF-8"),
        ("a: 1".encode("utf-16-le"), "a.yaml:1: a character that YAML does not allow, U+0000; remove it, or save the"),
        (
            b"a:\n\tb: 1",
            "a.yaml:2: not valid YAML: found character '\\t' that cannot start any token; indent with spaces",
        ),
        (b"a: 1\n---\na: 2", "a.yaml:2: not valid YAML: but found another document"),
    ],
)
def test_other_files_are_refused_in_one_line_with_the_line_number(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(SettingError) as caught:
        read_yaml(tmp_path / "a.yaml")
    assert message in str(caught.value)


def test_an_error_in_a_file_has_the_path_too(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: 1\na: 2\n")
    with pytest.raises(SettingError) as caught:
        read_yaml(path)
    assert (caught.value.path, caught.value.line) == (path, 2)
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(UserError, match="larger than 1,048,576 bytes"):
        read_yaml(path)
