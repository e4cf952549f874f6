from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from emoreg.data.images.files import File
from emoreg.data.stimuli.placeholders import MAX_COPIES, find_placeholders


def write(root: Path, name: str, content: bytes) -> File:
    (root / name).write_bytes(content)
    return File(name, root)


def test_a_file_with_more_copies_than_there_are_emotions_is_a_placeholder(tmp_path: Path) -> None:
    """A photograph that people disagree on appears at most once with each emotion."""
    copies = [write(tmp_path, f"{n}.jpg", b"gone") for n in range(MAX_COPIES + 1)]
    labels = [n % 3 for n in range(len(copies))]
    assert find_placeholders(copies, labels) == [list(range(9))]
    assert find_placeholders(copies[:-1], labels[:-1]) == []
    assert find_placeholders(copies, [0] * 9) == []  # copies with a single label may be intended


def test_two_placeholders_of_one_size_are_distinguished(tmp_path: Path) -> None:
    contents = [b"flickr"] * 10 + [b"instag"] * 12 + [b"photo%d" % n for n in range(10)] + [b"pair12"] * 2
    images = [write(tmp_path, f"{n}.jpg", content) for n, content in enumerate(contents)]
    assert find_placeholders(images, list(range(len(images)))) == [list(range(10)), list(range(10, 22))]


def test_empty_and_missing_files_are_not_placeholders(tmp_path: Path) -> None:
    empty = [write(tmp_path, f"{n}.jpg", b"") for n in range(10)]
    missing = [File(f"missing {n}.jpg", tmp_path) for n in range(10)]
    assert find_placeholders([*empty, *missing], list(range(20))) == []


def test_only_files_whose_size_many_share_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: Counter[str] = Counter()

    def read(file: File) -> bytes:
        opened[file.name] += 1
        return (tmp_path / file.name).read_bytes()

    images = [write(tmp_path, f"{n}.jpg", b"x" * n) for n in range(100)]
    images += [write(tmp_path, f"gone {n}.jpg", b"gone away") for n in range(9)]
    monkeypatch.setattr(File, "read", read)
    assert find_placeholders(images, list(range(109))) == [list(range(100, 109))]
    assert opened == Counter(f"gone {n}.jpg" for n in range(9)) + Counter(["9.jpg"])
