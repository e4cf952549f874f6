"""Fixtures that write small copies of published sets to disk and into zips."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from data.stimuli.layouts import LAYOUTS, file_of


@pytest.fixture
def build(tmp_path: Path, write_image: Callable[..., Path]) -> Callable[..., Path]:
    """Write a set below `tmp_path` or `where`, and return its folder."""

    def write(name: str, where: Path | None = None) -> Path:
        root = (where or tmp_path) / name
        for image in LAYOUTS[name].images:
            write_image(root / file_of(name, image))
        for sheet, text in LAYOUTS[name].sheets.items():
            (root / sheet).write_bytes(text.encode())
        return root

    return write


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., Path]:
    """Zip a folder, under its own name, with additional members."""

    def write(root: Path, more: Mapping[str, bytes] | None = None) -> Path:
        path = tmp_path / f"{root.name}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(root.rglob("*")):
                archive.write(file, f"{root.name}/{file.relative_to(root).as_posix()}")
            for name, content in (more or {}).items():
                archive.writestr(name, content)
        return path

    return write
