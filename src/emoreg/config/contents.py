"""Checksums of the files that a setting names by a path; runs and studies compare these instead of the paths."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Contents:
    """Identifies the images at the root of a set independently of its path; see `emoreg.data.fingerprint`."""

    sha256: str | None = None
    """Checksum of names, sizes and labels; None if the name of the set alone determines its images."""
    files: int = 0
    """Number of files; the number of images for a pack, a manifest or images passed in Python."""
    bytes: int = 0
    """Total size of the files; for a pack, of the files it was made from; for arrays, of their pixels."""

    def __str__(self) -> str:
        return self.describe()

    def describe(self, unit: str = "files") -> str:
        """Return a short description; `unit` names what `files` counts."""
        return "the published set" if self.sha256 is None else f"{self.files:,} {unit} of {self.bytes:,} bytes"
