"""What stands where a setting names a path: runs and studies compare this, and never the path."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Contents:
    """The images at the root of a set, whatever the root is called; see `emoreg.data.fingerprint`."""

    sha256: str | None = None
    """Of names, sizes and labels; null where the name of the set alone says which images they are."""
    files: int = 0
    """Number of files; of a pack, a manifest or images that are given in Python, of images."""
    bytes: int = 0
    """Of all files; of a pack, of those that it was made from; of arrays, of their pixels."""

    def __str__(self) -> str:
        return self.told()

    def told(self, what: str = "files") -> str:
        """In words, where `files` counts `what`."""
        return "the published set" if self.sha256 is None else f"{self.files:,} {what} of {self.bytes:,} bytes"
