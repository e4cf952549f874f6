"""Files of an image set in a folder, or in a zip, which is read in place and never unpacked.

Zips come from strangers. Nothing is ever written to a path that a zip names. An archive is refused in one line if it is
encrypted, names a file twice or outside itself, holds links, or exceeds the limits below once unpacked. The limits are
far above any published image set and far below what harms a machine.
"""

from __future__ import annotations

import functools
import io
import os
import stat
import struct
import threading
import weakref
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from emoreg.errors import UserError, printable, shortened
from emoreg.runtime.safe_io import read_bounded

# Formats that are decoded, whatever the file's name. Image sets are published in these, and decoding them starts no
# other program (EPS starts Ghostscript). JPEG includes the MPO files of phones; GTSRB is in PPM.
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_FILE_BYTES = 256 * 2**20  # per file, unpacked: far above any photograph
MAX_ENTRIES = 5_000_000  # per zip: three times ImageNet; each costs about a kilobyte of memory
MAX_EXPANDED_BYTES = 2**40  # per zip, all files unpacked: six times ImageNet
# Photographs hardly shrink in a zip, drawings as BMP tenfold or more, a bomb of deflated zeros a thousandfold.
# There is no ratio limit for small archives.
MAX_EXPANSION, FREE_EXPANSION_BYTES = 200, 2**30
MAX_OPEN_ZIPS = 8  # the most recently used stay open
NO_ENTRIES = b"PK\5\6" + bytes(18)  # a zip without files
ARRAYS = (".npy", ".npz")  # of NumPy; the second is a zip

_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# A RuntimeError, or a subclass of it, is zipfile's for archives that are encrypted or of a later version of the format.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, RuntimeError)


@functools.cache
def image_suffixes() -> tuple[str, ...]:
    """The suffixes that Pillow registers for `IMAGE_FORMATS`, sorted, in lower case."""
    from PIL import Image  # imported late, because `registered_extensions` loads a plug-in for every format

    # Pillow registers MPO, the two-picture JPEG of phones, as a separate format, which its JPEG plug-in reads. Pixels
    # of PFM are floats, whose range is not known (see `decode.as_rgb`).
    formats = (*IMAGE_FORMATS, "MPO")
    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in formats}
    return tuple(sorted(suffixes - {".pfm"}))


def is_image(name: str) -> bool:
    """Whether a file of this name is read as an image, judged by its suffix in any case."""
    return name.lower().endswith(image_suffixes())


def not_read(root: Path | str, files: Iterable[File]) -> tuple[str, ...]:
    """A line about files that are not read as images, see `count_not_read`; empty if all are read."""
    counted = count_not_read(files)
    return (f"{printable(Path(root).name)}: {counted}",) if counted else ()


def count_not_read(files: Iterable[File]) -> str:
    """Count the files that are not read as images, by suffix, and name the suffixes that are; "" if all are read."""
    others = [PurePosixPath(file.name).suffix.lower() for file in files if not is_image(file.name)]
    if not others:
        return ""
    suffixes = Counter(suffix or "without a suffix" for suffix in others)
    counts = ", ".join(f"{count:,} {printable(suffix)}" for suffix, count in suffixes.most_common())
    return f"left out {shortened(counts)}: only {', '.join(image_suffixes())} are read as images"


@dataclass(frozen=True)
class File:
    """A file in a folder or in a zip."""

    name: str  # relative to the root, with forward slashes
    root: Path

    def __str__(self) -> str:
        return printable(f"{self.root}/{self.name}")

    @property
    def path(self) -> str:
        """Absolute path, in a zip that of the zip and the name; the same from whichever folder the file is named."""
        return os.path.normpath(self.root.absolute() / self.name)

    def read(self) -> bytes:
        """Read the content.

        Raises:
            UserError: the file cannot be read, or is larger than MAX_FILE_BYTES.
        """
        try:
            if self.root.is_dir():
                path = self.root / self.name
                self._check_size(path.stat().st_size)
                return read_bounded(path, MAX_FILE_BYTES)
            return self._read_from_zip()
        except (OSError, ValueError, KeyError, EOFError, *_ZIP_ERRORS) as error:
            raise UserError(f"cannot read {self}: {_reason(error)}") from None

    def size(self) -> int:
        """Size of the content in bytes; UserError if the file cannot be accessed."""
        try:
            if self.root.is_dir():
                return (self.root / self.name).stat().st_size
            return _list_zip(self.root).entries[self.name].file_size
        except (OSError, ValueError, KeyError, *_ZIP_ERRORS) as error:
            raise UserError(f"cannot read {self}: {_reason(error)}") from None

    def _read_from_zip(self) -> bytes:
        entry = _list_zip(self.root).entries[self.name]
        self._check_size(entry.file_size)
        archive = _open_zip(self.root)
        # Threads share one ZipFile. Its count of open entries needs the lock; unpacking, which takes most of the time,
        # does not.
        with archive.lock:
            opened = archive.zip.open(entry)
        try:
            # With an explicit size, zipfile never unpacks more than the directory promised, however much there is.
            # The checksum is then wrong, and zipfile raises.
            return opened.read(entry.file_size) if entry.file_size else b""
        finally:
            with archive.lock:
                opened.close()

    def _check_size(self, size: int) -> None:
        if size > MAX_FILE_BYTES:
            raise UserError(f"{self} is {size:,} bytes; the limit for one file is {MAX_FILE_BYTES:,}")


def list_files(root: Path | str) -> list[File]:
    """All files below a folder or in a zip, sorted by name; hidden ones (".x", "__MACOSX") are skipped.

    Links below a folder are followed, except for links to a folder above them.

    Raises:
        UserError: `root` is missing, neither a folder nor a readable zip, or a zip that is refused (see above).
    """
    root = Path(root)
    try:
        if root.is_dir():
            return [File(name, root) for name in sorted(_walk(root))]
        if not root.is_file():
            raise UserError(f"{printable(str(root))} does not exist; give a folder or a zip")
        if root.suffix.lower() in ARRAYS:
            raise UserError(
                f"{printable(str(root))} holds arrays, not image files: load them in Python and write them as a pack "
                "with emoreg.write_pack"
            )
    except OSError as error:
        raise UserError(f"cannot list {printable(str(error.filename or root))}: {_reason(error)}") from None
    try:
        return [File(name, root) for name in sorted(_list_zip(root).entries)]
    except (OSError, ValueError, *_ZIP_ERRORS) as error:
        reason = _reason(error)
        raise UserError(f"{printable(str(root))} is neither a folder nor a readable zip: {reason}") from None


def list_folders(root: Path | str) -> set[PurePosixPath]:
    """All folders below a folder or in a zip, empty ones too, relative to the root; hidden ones are skipped."""
    root = Path(root)
    if root.is_dir():
        names = {Path(above, name).relative_to(root).as_posix() for above, below, _ in os.walk(root) for name in below}
    else:
        names = set(_list_zip(root).folders)
    return {PurePosixPath(name) for name in names if not _is_hidden(name)}


def guessed_names(root: Path | str) -> tuple[str, ...]:
    """A line about a zip whose names are not UTF-8 and of unknown encoding; empty for other zips and for folders."""
    root = Path(root)
    guessed = () if root.is_dir() else _list_zip(root).guessed
    if not guessed:
        return ()
    return (
        f"{printable(root.name)}: its names are not UTF-8; {len(guessed):,} are read as code page 437, such as "
        f"'{printable(guessed[0])}'. If that looks wrong, unpack the zip with the encoding that it was made with "
        "(unzip -O gbk, shift_jis, cp1252, ...), and give the folder",
    )


def _walk(root: Path) -> Iterator[str]:
    """Yield the names of the files below `root`; OSError for a folder that cannot be listed."""
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
                elif entry.is_file() or entry.is_symlink():  # reading a dead link raises an error that names it
                    yield folder + entry.name


def _leads_back(link: Path) -> bool:
    folder = link.parent.resolve()
    return link.resolve() in (folder, *folder.parents)


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def _reason(error: Exception) -> str:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return shortened(printable(reason), 300)


@dataclass(frozen=True)
class _Directory:
    """The checked directory of an archive."""

    entries: dict[str, zipfile.ZipInfo]  # files by name
    folders: tuple[str, ...]
    guessed: tuple[str, ...]  # file names of unknown encoding


@dataclass(frozen=True)
class _Archive:
    """An opened archive; entries of its `_Directory` are read from it."""

    zip: zipfile.ZipFile
    lock: threading.Lock = field(default_factory=threading.Lock)


_opening = threading.Lock()


def _list_zip(path: Path) -> _Directory:
    """Return the checked directory of an archive, shared by all threads; read it again if the file has changed."""
    changed_ns = path.stat().st_mtime_ns
    with _opening:  # else each of several threads would read the directory, which may be large
        return _listed(path, changed_ns)


@functools.lru_cache(MAX_OPEN_ZIPS)
def _listed(path: Path, _changed_ns: int) -> _Directory:
    with zipfile.ZipFile(path) as zip_file:  # closed at once: else a refused one could not be replaced on Windows
        return _check_archive(path, zip_file)


def _open_zip(path: Path) -> _Archive:
    """Return the opened archive, shared by all threads; reopen it if the file has changed."""
    changed_ns = path.stat().st_mtime_ns
    with _opening:
        return _opened(path, changed_ns)


@functools.lru_cache(MAX_OPEN_ZIPS)  # one that is dropped closes itself when no entry of it is being read
def _opened(path: Path, _changed_ns: int) -> _Archive:
    # A ZipFile of no entries that is given the file: the directory of a million files takes many seconds to read, and a
    # gigabyte of memory, which every forked process would spend again.
    zip_file, file = zipfile.ZipFile(io.BytesIO(NO_ENTRIES)), path.open("rb")
    zip_file.fp = file
    weakref.finalize(zip_file, file.close)
    return _Archive(zip_file)


def _forget_opened() -> None:
    """Reset the cache in a forked child, which would otherwise share file positions with its parent."""
    _opened.cache_clear()
    _opening.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_forget_opened)


def _check_archive(path: Path, zip_file: zipfile.ZipFile) -> _Directory:
    """List the files and folders of an archive. UserError if it is refused."""
    shown, infos = printable(str(path)), zip_file.infolist()
    _check_limits(shown, infos, max(path.stat().st_size, 1))
    entries: dict[str, zipfile.ZipInfo] = {}
    folders, guessed = [], []
    for info, (stored_name, is_guess) in zip(infos, _names(infos), strict=True):
        if not stored_name:
            raise UserError(f"{shown} has an entry without a name; create the zip again")
        name = stored_name.replace("\\", "/").removeprefix("./")  # as some Windows programs write them
        if info.is_dir() or name.endswith("/"):
            folders.append(name.rstrip("/"))
            continue
        if name.startswith("/") or name[1:2] == ":" or ".." in name.split("/"):
            raise UserError(f"{shown}: the entry '{printable(name)}' points outside the zip; create the zip again")
        if _is_hidden(name):
            continue
        if name in entries:
            raise UserError(f"{shown} holds '{printable(name)}' twice; create the zip again")
        _check_entry(shown, name, info)
        entries[name] = info
        if is_guess:
            guessed.append(name)
    return _Directory(entries, tuple(folders), tuple(guessed))


def _check_limits(shown: str, infos: Sequence[zipfile.ZipInfo], packed: int) -> None:
    if len(infos) > MAX_ENTRIES:
        raise UserError(f"{shown} has {len(infos):,} entries; the limit is {MAX_ENTRIES:,}")
    expanded = sum(info.file_size for info in infos)
    if expanded > MAX_EXPANDED_BYTES:
        raise UserError(f"{shown} would unpack to {expanded:,} bytes; the limit is {MAX_EXPANDED_BYTES:,}")
    if expanded > max(FREE_EXPANSION_BYTES, MAX_EXPANSION * packed):
        times = f"{expanded // packed:,} times its size, like a zip bomb"
        raise UserError(f"{shown} would unpack to {times}; the limit is {MAX_EXPANSION} times")


def _check_entry(shown: str, name: str, info: zipfile.ZipInfo) -> None:
    if info.flag_bits & 1:
        raise UserError(f"{shown} is encrypted ('{printable(name)}'); unpack it, and give the folder")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise UserError(f"{shown}: the entry '{printable(name)}' is a link; zip the files themselves")
    if info.compress_type not in _COMPRESSIONS:
        raise UserError(f"{shown}: '{printable(name)}' is neither stored nor deflated; create the zip again")


def _names(infos: Sequence[zipfile.ZipInfo]) -> list[tuple[str, bool]]:
    """The name of each entry, and whether its encoding is guessed.

    A name is UTF-8 if flag 11 or Info-ZIP's field 0x7075 says so (APPNOTE.TXT 4.4.4 and 4.6.9). Otherwise the format
    specifies code page 437, but programs write the encoding of their system. Such names are read as UTF-8 only if all
    of them are valid: a single one may be valid by chance, such as two characters of GBK.
    """
    names = [_declared_name(info) for info in infos]
    try:
        b"/".join(name for name in names if isinstance(name, bytes)).decode("utf-8")
        encoding = "utf-8"
    except UnicodeDecodeError:
        encoding = "cp437"

    def decode(name: str | bytes) -> tuple[str, bool]:
        if isinstance(name, str):
            return name, False
        return name.decode(encoding).partition("\0")[0], encoding == "cp437" and not name.isascii()

    return [decode(name) for name in names]


def _declared_name(info: zipfile.ZipInfo) -> str | bytes:
    """The name of an entry; as raw bytes if the entry does not declare their encoding."""
    if info.flag_bits & 0x800:
        return info.filename
    raw = info.orig_filename.encode("cp437")  # undoes zipfile's decoding
    return _unicode_name(info.extra, raw) or raw


def _unicode_name(extra: bytes, raw: bytes) -> str | None:
    """The name in Info-ZIP's field 0x7075; None if there is no such field, or it belongs to another raw name."""
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
