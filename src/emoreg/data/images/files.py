"""Files of an image set, alike from a folder and from a zip that is read in place and never unpacked.

Zips come from strangers. Nothing is ever written to a path that a zip names; an archive that is encrypted, that
names a file twice or outside itself, that holds links, or that is larger inside than the limits below is
refused in one line. The limits are far above any published image set and far below what harms a machine.
"""

from __future__ import annotations

import os
import stat
import struct
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emoreg.errors import UserError, printable, shortened
from emoreg.runtime.safe_io import read_bounded

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
# What is decoded, whatever a file is called: of those that Pillow knows, these start no other program (EPS starts
# Ghostscript) and are what image sets are published in. JPEG: the MPO files of phones too; PPM: GTSRB.
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_FILE_BYTES = 256 * 2**20  # of one file, unpacked: far above any photograph
MAX_ENTRIES = 5_000_000  # of one zip: three times ImageNet; each costs about a kilobyte of memory
MAX_EXPANDED_BYTES = 2**40  # of all files of one zip together, unpacked: six times ImageNet
# Photographs hardly shrink in a zip, drawings as BMP tenfold or more, a bomb of deflated zeros a thousandfold.
# There is no ratio limit for small archives.
MAX_EXPANSION, FREE_EXPANSION_BYTES = 200, 2**30
MAX_OPEN_ZIPS = 8  # those used last stay open

_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class File:
    """One file in a folder or in a zip."""

    name: str  # relative to the root, with forward slashes
    root: Path

    def __str__(self) -> str:
        return printable(f"{self.root}/{self.name}")

    def read(self) -> bytes:
        """The content.

        Raises:
            UserError: the file cannot be read, or is larger than MAX_FILE_BYTES.
        """
        try:
            if self.root.is_dir():
                path = self.root / self.name
                self._check_size(path.stat().st_size)
                return read_bounded(path, MAX_FILE_BYTES)
            return self._read_from_zip()
        except (OSError, ValueError, KeyError, EOFError, RuntimeError, *_ZIP_ERRORS) as error:
            raise UserError(f"cannot read {self}: {_reason(error)}") from None

    def size(self) -> int:
        """Bytes of the content; UserError as `read`."""
        try:
            if self.root.is_dir():
                return (self.root / self.name).stat().st_size
            return _open_zip(self.root).entries[self.name].file_size
        except (OSError, ValueError, KeyError, *_ZIP_ERRORS) as error:
            raise UserError(f"cannot read {self}: {_reason(error)}") from None

    def _read_from_zip(self) -> bytes:
        archive = _open_zip(self.root)
        entry = archive.entries[self.name]
        self._check_size(entry.file_size)
        # The threads share one ZipFile, whose directory may be large. Its count of open entries needs the lock;
        # unpacking, which takes the time, does not.
        with archive.lock:
            opened = archive.zip.open(entry)
        try:
            # Asked for so much and no more, zipfile never unpacks further than the directory promised, however
            # much lies there; then the checksum is wrong, and it says so.
            return opened.read(entry.file_size) if entry.file_size else b""
        finally:
            with archive.lock:
                opened.close()

    def _check_size(self, size: int) -> None:
        if size > MAX_FILE_BYTES:
            raise UserError(f"{self} is {size:,} bytes; the limit for one file is {MAX_FILE_BYTES:,}")


def list_files(root: Path | str) -> list[File]:
    """All files below a folder or in a zip, in order of name; hidden ones (".x", "__MACOSX") are skipped.

    Links below a folder are followed, but for those that lead back to a folder above.

    Raises:
        UserError: `root` is missing, neither a folder nor a readable zip, or a zip that is refused (see above).
    """
    root = Path(root)
    try:
        if root.is_dir():
            return [File(name, root) for name in sorted(_walk(root))]
        if not root.is_file():
            raise UserError(f"{printable(str(root))} does not exist; give a folder or a zip")
    except OSError as error:
        raise UserError(f"cannot list {printable(str(error.filename or root))}: {_reason(error)}") from None
    try:
        return [File(name, root) for name in sorted(_open_zip(root).entries)]
    except (OSError, ValueError, *_ZIP_ERRORS) as error:
        reason = _reason(error)
        raise UserError(f"{printable(str(root))} is neither a folder nor a readable zip: {reason}") from None


def _walk(root: Path) -> Iterator[str]:
    """Names of the files below `root`; OSError for a folder that cannot be listed."""
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if _is_hidden(entry.name):
                    continue
                if entry.is_dir():
                    if not (entry.is_symlink() and _leads_back(Path(entry.path))):
                        waiting.append(f"{folder}{entry.name}/")
                elif entry.is_file() or entry.is_symlink():  # a dead link is named when it is read
                    yield folder + entry.name


def _leads_back(link: Path) -> bool:
    target = link.resolve()
    return target in (folder := link.parent.resolve(), *folder.parents)


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


_ZIP_ERRORS = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, NotImplementedError)


def _reason(error: Exception) -> str:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return shortened(printable(reason), 300)


@dataclass(frozen=True)
class _Archive:
    zip: zipfile.ZipFile
    entries: dict[str, zipfile.ZipInfo]
    lock: threading.Lock


_opened: OrderedDict[tuple[Path, int], _Archive] = OrderedDict()
_opening = threading.Lock()


def _open_zip(path: Path) -> _Archive:
    """The opened and checked archive, shared by all threads; opened again when the file has changed."""
    key = (path, path.stat().st_mtime_ns)
    with _opening:
        if key not in _opened:
            archive = zipfile.ZipFile(path)
            try:
                _opened[key] = _Archive(archive, _checked(path, archive), threading.Lock())
            except UserError:
                archive.close()
                raise
        _opened.move_to_end(key)
        while len(_opened) > MAX_OPEN_ZIPS:
            _, oldest = _opened.popitem(last=False)
            with oldest.lock:
                oldest.zip.close()  # an entry that is being read keeps the file open until it is done
        return _opened[key]


def _checked(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by name. UserError for one that is refused."""
    shown, infos = printable(str(path)), archive.infolist()
    if len(infos) > MAX_ENTRIES:
        raise UserError(f"{shown} has {len(infos):,} entries; the limit is {MAX_ENTRIES:,}")
    expanded, packed = sum(info.file_size for info in infos), max(path.stat().st_size, 1)
    if expanded > MAX_EXPANDED_BYTES:
        raise UserError(f"{shown} would unpack to {expanded:,} bytes; the limit is {MAX_EXPANDED_BYTES:,}")
    if expanded > max(FREE_EXPANSION_BYTES, MAX_EXPANSION * packed):
        times = expanded // packed
        raise UserError(f"{shown} would unpack to {times:,} times its size, like a zip bomb; at most {MAX_EXPANSION}")
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        if not info.filename:
            raise UserError(f"{shown} has an entry without a name; create the zip again")
        name = info.filename.replace("\\", "/")  # some Windows programs write them so
        if info.is_dir() or name.endswith("/"):
            continue
        if name.startswith("/") or name[1:2] == ":" or ".." in name.split("/"):
            raise UserError(f"{shown}: the entry '{printable(name)}' points outside the zip; create the zip again")
        name = name.removeprefix("./")
        if _is_hidden(name):
            continue
        if name in entries:
            raise UserError(f"{shown} holds '{printable(name)}' twice; create the zip again")
        if info.flag_bits & 1:
            raise UserError(f"{shown} is encrypted ('{printable(name)}'); unpack it, and give the folder")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise UserError(f"{shown}: the entry '{printable(name)}' is a link; zip the files themselves")
        if info.compress_type not in _COMPRESSIONS:
            raise UserError(f"{shown}: '{printable(name)}' is neither stored nor deflated; create the zip again")
        entries[name] = info
    return entries


def _forget_opened() -> None:
    """Reset in a forked child: a file position shared with the parent would mix up what both read."""
    global _opening  # noqa: PLW0603 (the lock may have been held by a thread that is not here)
    _opened.clear()
    _opening = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_opened)
