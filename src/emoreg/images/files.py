"""Files of an image set, alike from a folder and from a zip that is read in place and never unpacked."""

from __future__ import annotations

import os
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path

from emoreg.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
MAX_FILE_BYTES = 256 * 2**20  # of one file, unpacked: a guard against zip bombs, far above any photograph


@dataclass(frozen=True)
class File:
    """One file in a folder (`archive` is None) or in a zip."""

    name: str  # relative to the root, with forward slashes
    root: Path

    def __str__(self) -> str:
        return f"{self.root}/{self.name}"

    def read(self) -> bytes:
        """The content.

        Raises:
            UserError: the file cannot be read, or is larger than MAX_FILE_BYTES.
        """
        try:
            if self.root.is_dir():
                path = self.root / self.name
                self._check_size(path.stat().st_size)
                return path.read_bytes()
            archive = _open_zip(self.root)
            self._check_size(archive.getinfo(self.name).file_size)
            return archive.read(self.name)
        except (OSError, KeyError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise UserError(f"cannot read {self}: {error}") from None

    def _check_size(self, size: int) -> None:
        if size > MAX_FILE_BYTES:
            raise UserError(f"{self} is {size:,} bytes; the limit for one file is {MAX_FILE_BYTES:,}")


def list_files(root: Path | str) -> list[File]:
    """All files below a folder or in a zip, in order of name; hidden ones (".x", "__MACOSX") are left out.

    Raises:
        UserError: `root` is missing, or neither a folder nor a readable zip.
    """
    root = Path(root)
    if root.is_dir():
        names = [
            str((Path(folder) / name).relative_to(root).as_posix())
            for folder, _, files in os.walk(root, followlinks=True)
            for name in files
        ]
    elif root.is_file():
        try:
            names = [info.filename for info in _open_zip(root).infolist() if not info.is_dir()]
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(f"{root} is neither a folder nor a readable zip: {error}") from None
    else:
        raise UserError(f"{root} does not exist; give a folder or a zip")
    return [File(name, root) for name in sorted(names) if not _is_hidden(name)]


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


_opened = threading.local()


def _open_zip(path: Path) -> zipfile.ZipFile:
    """The opened archive, one a thread: a ZipFile shared by threads would serialise their reads."""
    archives: dict[tuple[Path, int], zipfile.ZipFile] = _opened.__dict__.setdefault("archives", {})
    key = (path, path.stat().st_mtime_ns)
    if key not in archives:
        archives[key] = zipfile.ZipFile(path)
    return archives[key]
