from __future__ import annotations

from pathlib import Path

import pytest

from emoreg.config.strict_yaml import MAX_BYTES, parse_yaml, read_yaml
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
        ("\n<<: {a: 1}", "", "keys must be text, not <<", 2),
        ("a: 1\nb: !mine 3", "", "tags (!) are not supported; write the plain value, or put it in quotes", 2),
        ("[" * 33, "", "nested more than 32 deep", 1),
        ("a: 2024-02-31", "", "not valid YAML: day is out of range for month", None),
    ],
)
def test_the_error_has_the_key_the_reason_and_the_line(text: str, key: str, reason: str, line: int | None) -> None:
    with pytest.raises(SettingError) as caught:
        parse_yaml(text)
    assert (caught.value.key, caught.value.reason, caught.value.line) == (key, reason, line)


def test_an_error_in_a_file_has_the_path_too(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: 1\na: 2\n")
    with pytest.raises(SettingError) as caught:
        read_yaml(path)
    assert (caught.value.path, caught.value.line) == (path, 2)
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(UserError, match="larger than 1,048,576 bytes"):
        read_yaml(path)
