from __future__ import annotations

from pathlib import Path

import pytest

from emoreg.runtime.places import portable, without_folders, without_places


def test_a_portable_path_has_no_private_part(tmp_path: Path) -> None:
    assert portable(tmp_path / "study" / "runs" / "a", tmp_path / "study") == "runs/a"
    for path, told in {
        "data/oasis": "data/oasis",
        "/home/ann/oasis": "oasis",
        "~/oasis.zip": "oasis.zip",
        "~ann/oasis/": "oasis",
        "../../ann/oasis": "oasis",
        "C:\\Users\\Ann Lee\\oasis": "oasis",
        "\\\\server\\ann\\oasis": "oasis",
        "/": ".",
        "a\0b": "a\0b",
    }.items():
        assert portable(path, tmp_path) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/home/ann/x.png cannot be decoded", "x.png cannot be decoded"),
        ("no 'cat' in '/home/ann lee/my photos' (see /etc/a:3)", "no 'cat' in 'my photos' (see a:3)"),
        ("C:\\Users\\ann\\x.png, file:///home/ann/y", "x.png, y"),
        ("~ann/x and ~/y/", "x and y"),
        (
            "and/or, 3/4, data/oasis, https://host/a/b, hf:ann/set",
            "and/or, 3/4, data/oasis, https://host/a/b, hf:ann/set",
        ),
    ],
)
def test_paths_in_text_are_shortened_to_their_last_part(text: str, told: str) -> None:
    assert without_places(text) == told


def test_paths_inside_the_study_and_the_working_folder_become_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = f"{tmp_path}/study/runs/a and {tmp_path}/data/b and {tmp_path.parent}/c"
    assert without_places(text, Path("study")) == "runs/a and data/b and c"


def test_folders_are_removed_from_a_command() -> None:
    given = ["emoreg", "study", "/home/ann/pilot.yaml", "--out=../ann/runs/pilot/", "--jobs", "2", "hf:ann/set", "-q"]
    assert without_folders(given) == "emoreg study pilot.yaml --out=pilot --jobs 2 hf:ann/set -q"
    assert without_folders(["--also", "[{root: /home/ann/x, limit: 3}]"]) == "--also [{root: x, limit: 3}]"
