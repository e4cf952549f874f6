"""Disks that the tests make: small ones, which fill up, and read-only ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def mount() -> Iterator[Callable[..., Path]]:
    """Lays a disk in memory over a folder; called again for the same one it changes it, such as to "ro"."""
    mounted: list[Path] = []

    def call(folder: Path, options: str) -> Path:
        if sys.platform != "linux" or os.geteuid() != 0:
            pytest.skip("only root on Linux may mount a disk")
        folder.mkdir(parents=True, exist_ok=True)
        again = ["remount"] if folder in mounted else []
        command = ["mount", "-t", "tmpfs", "-o", ",".join([*again, options]), "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mounting a disk is not allowed here: {done.stderr.strip()}")
        mounted.extend([] if again else [folder])
        return folder

    yield call
    for folder in reversed(mounted):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def fill() -> Callable[[Path], Path]:
    """Fills the disk of a folder to the last byte; gives the file that does, to be deleted."""

    def call(folder: Path) -> Path:
        path = folder / ".filler"
        with path.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                return path

    return call
