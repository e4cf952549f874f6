"""Files of an image set, alike from a folder and from a zip that is read in place and never unpacked.

Zips come from strangers. Nothing is ever written to a path that a zip names; an archive that is encrypted, that
names a file twice or outside itself, that holds links, or that is larger inside than the limits below is
refused in one line. The limits are far above any published image set and far below what harms a machine.
"""

from __future__ import annotations

import functools
import os
import stat
import struct
import threading
import zipfile
import zlib
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from emoreg.errors import UserError, printable, shortened
from emoreg.runtime.safe_io import read_bounded

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


@functools.cache
def image_suffixes() -> tuple[str, ...]:
    """The suffixes that Pillow registers for `IMAGE_FORMATS`, in lower case and in order."""
    from PIL import Image  # here, as it imports a plug-in for each format that there is

    # Pillow reads MPO, the two-picture JPEG of phones, with JPEG, and calls it by a format of its own. Pixels of PFM
    # are floats, whose range is not known (`decode`).
    found = {suffix for suffix, form in Image.registered_extensions().items() if form in (*IMAGE_FORMATS, "MPO")}
    return tuple(sorted(found - {".pfm"}))


def is_image(name: str) -> bool:
    """Whether a file of this name is read as an image, by its suffix in any case."""
    return name.lower().endswith(image_suffixes())


def not_read(root: Path | str, files: Iterable[File]) -> tuple[str, ...]:
    """A line on the files that are not read as images, see `count_not_read`; nothing if all are."""
    counted = count_not_read(files)
    return (f"{printable(Path(root).name)}: {counted}",) if counted else ()


def count_not_read(files: Iterable[File]) -> str:
    """How many files of each suffix are not read as images, and which suffixes are; empty if all are read."""
    others = (PurePosixPath(file.name).suffix.lower() for file in files if not is_image(file.name))
    suffixes = Counter(suffix or "without a suffix" for suffix in others)
    if not suffixes:
        return ""
    counts = ", ".join(f"{count:,} {printable(suffix)}" for suffix, count in suffixes.most_common())
    read = ", ".join(image_suffixes())
    return f"left out {shortened(counts)}: only {read} are read as images"


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


def list_folders(root: Path | str) -> set[PurePosixPath]:
    """All folders below a folder or in a zip that are not hidden, those without files too; relative to the root."""
    root = Path(root)
    if root.is_dir():
        names = {Path(above, name).relative_to(root).as_posix() for above, below, _ in os.walk(root) for name in below}
    else:
        names = set(_open_zip(root).folders)
    return {PurePosixPath(name) for name in names if not _is_hidden(name)}


def guessed_names(root: Path | str) -> tuple[str, ...]:
    """A line on a zip that does not say in which encoding its names are, and they are no UTF-8; nothing for others."""
    if Path(root).is_dir() or not (guessed := _open_zip(Path(root)).guessed):
        return ()
    return (
        f"{printable(Path(root).name)}: its names are no UTF-8; {len(guessed):,} are read as code page 437, e.g. "
        f"'{printable(guessed[0])}'. If that looks wrong, unpack the zip in the encoding of its maker (unzip -O gbk, "
        "shift_jis, cp1252, ...), and give the folder",
    )


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
    folders: tuple[str, ...]
    guessed: tuple[str, ...]  # names whose encoding nothing tells
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
                _opened[key] = _Archive(archive, *_checked(path, archive), threading.Lock())
            except UserError:
                archive.close()
                raise
        _opened.move_to_end(key)
        while len(_opened) > MAX_OPEN_ZIPS:
            _, oldest = _opened.popitem(last=False)
            with oldest.lock:
                oldest.zip.close()  # an entry that is being read keeps the file open until it is done
        return _opened[key]


def _checked(
    path: Path, archive: zipfile.ZipFile
) -> tuple[dict[str, zipfile.ZipInfo], tuple[str, ...], tuple[str, ...]]:
    """The files of an archive by name, its folders, and guessed names. UserError for an archive that is refused."""
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
    folders, guessed = [], []
    for info, (written, is_guess) in zip(infos, _names(infos), strict=True):
        if not written:
            raise UserError(f"{shown} has an entry without a name; create the zip again")
        name = written.replace("\\", "/").removeprefix("./")  # some Windows programs write them so
        if info.is_dir() or name.endswith("/"):
            folders.append(name.rstrip("/"))
            continue
        if name.startswith("/") or name[1:2] == ":" or ".." in name.split("/"):
            raise UserError(f"{shown}: the entry '{printable(name)}' points outside the zip; create the zip again")
        if _is_hidden(name):
            continue
        if name in entries:
            raise UserError(f"{shown} holds '{printable(name)}' twice; create the zip again")
        _refuse_entry(shown, name, info)
        entries[name] = info
        if is_guess:
            guessed.append(name)
    return entries, tuple(folders), tuple(guessed)


def _refuse_entry(shown: str, name: str, info: zipfile.ZipInfo) -> None:
    if info.flag_bits & 1:
        raise UserError(f"{shown} is encrypted ('{printable(name)}'); unpack it, and give the folder")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise UserError(f"{shown}: the entry '{printable(name)}' is a link; zip the files themselves")
    if info.compress_type not in _COMPRESSIONS:
        raise UserError(f"{shown}: '{printable(name)}' is neither stored nor deflated; create the zip again")


def _names(infos: Sequence[zipfile.ZipInfo]) -> list[tuple[str, bool]]:
    """The name of each entry, and whether its encoding is guessed.

    A name is UTF-8 where flag 11 or Info-ZIP's field 0x7075 says so (APPNOTE.TXT 4.4.4 and 4.6.9). Else the format has
    code page 437, but programs write what their system speaks. All such names together are taken for UTF-8 if all can
    be: one that can be may be two letters of GBK.
    """
    told: list[str | None] = []
    raw: list[bytes] = []
    for info in infos:
        is_unicode = bool(info.flag_bits & 0x800)
        raw.append(b"" if is_unicode else info.orig_filename.encode("cp437"))  # as zipfile has decoded it
        told.append(info.filename if is_unicode else _unicode_name(info.extra, raw[-1]))
    untold = [name for name, known in zip(raw, told, strict=True) if known is None]
    try:
        b"".join(name + b"/" for name in untold).decode("utf-8")
        encoding = "utf-8"
    except UnicodeDecodeError:
        encoding = "cp437"

    def read(name: bytes) -> tuple[str, bool]:
        return name.decode(encoding).partition("\0")[0], encoding == "cp437" and not name.isascii()

    return [read(name) if known is None else (known, False) for name, known in zip(raw, told, strict=True)]


def _unicode_name(extra: bytes, raw: bytes) -> str | None:
    """The name in Info-ZIP's field 0x7075, if there is one and it belongs to the raw name."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if kind == 0x7075 and length > 5:
            version, checksum = struct.unpack_from("<BI", extra, 4)
            try:
                name = extra[9 : 4 + length].decode("utf-8")
            except UnicodeDecodeError:
                return None
            return name if version == 1 and checksum == zlib.crc32(raw) and "\0" not in name else None
        extra = extra[4 + length :]
    return None


def _forget_opened() -> None:
    """Reset in a forked child: a file position shared with the parent would mix up what both read."""
    global _opening  # noqa: PLW0603 (the lock may have been held by a thread that is not here)
    _opened.clear()
    _opening = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_opened)
