"""Checksums of image sets, which do not depend on where a set is stored.

A folder and a zip of it have the same checksum. It covers the names and sizes of all files that are not hidden, and the
content of tables, which hold labels. Images are not opened, so 50,000 files take about a second; replacing an image by
one of the same size goes unnoticed. Pixels that are given in Python are in memory, or memory-mapped, and are hashed
completely.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from emoreg.config.contents import Contents
from emoreg.config.schema import StimuliSettings, TargetSettings
from emoreg.data.embedded import EMBEDDED
from emoreg.data.images.files import MAX_FILE_BYTES, File, list_files
from emoreg.data.images.layout import split_name
from emoreg.data.images.names import composed
from emoreg.data.images.packed import PACK, is_pack, read_about
from emoreg.data.images.table import Item, Table
from emoreg.errors import UserError

MANIFESTS = ("manifest", "diffused_emod")
FOLDERS = ("folder", "emotion_folder")  # user-supplied
TABLES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet")
# Sets whose labels may be in a MATLAB file. In a user's own folder such a file holds no labels.
WITH_MATRIX = ("emod",)
MAX_HASHED = 2**30  # bytes of images that `checksum_of_images` reads, which takes about a second
WINDOWS_FILES = ("thumbs.db", "desktop.ini")  # hidden files of its file manager

Stamp = tuple[int, int]  # time of the last change in ns, and size in bytes

_known: dict[tuple[str, Path], tuple[dict[Path, Stamp | None], Contents]] = {}


def contents_of(settings: StimuliSettings | TargetSettings) -> Contents | None:
    """Fingerprint the files at the root of a set; None if they do not exist or cannot be listed.

    The result is cached until a folder, zip or table changes, so that a study does this once. An image that is
    replaced in place is noticed by the next process.
    """
    name = settings.name.lower()
    if settings.root is None or name in EMBEDDED:
        return Contents()
    root = Path(settings.root).absolute()
    try:
        if (name, root) in _known:
            stamps, contents = _known[name, root]
            if all(_stamp(path) == stamp for path, stamp in stamps.items()):
                return contents
        if not root.exists():
            return None
        contents, paths = _fingerprint(name, root)
        _known[name, root] = {path: _stamp(path) for path in paths}, contents
    except (OSError, ValueError, UserError):  # ValueError: a path with a null byte
        return None
    return contents


def contents_of_tables(tables: Sequence[Table | None], label_names: Sequence[str]) -> Contents | None:
    """Fingerprint user-supplied tables, in their order: labels, pixels, and files by name and size.

    None if there are items of a library's data set, which would have to be decoded.

    Args:
        tables: the parts of the set; None for a part that it does not have.
        label_names: kind of the labels, followed by the names that they stand for.
    """
    if any(isinstance(image, Item) for table in tables if table is not None for image in table.images):
        return None
    digest, count, total = hashlib.sha256(_encode(repr(tuple(label_names)))), 0, 0
    for table in tables:
        if table is None:
            digest.update(b"none\n")
            continue
        digest.update(f"{len(table)} {table.labels.dtype} {table.labels.shape}\n".encode())
        digest.update(table.labels.tobytes())
        names_and_sizes = _names_and_sizes([image for image in table.images if isinstance(image, File)])
        for image in table.images:
            if isinstance(image, np.ndarray):
                digest.update(f"{image.shape}\n".encode())
                digest.update(image.tobytes())
                total += image.nbytes
            else:
                name, size = next(names_and_sizes)
                digest.update(_encode(f"{name}\0{size}\n"))
                total += max(size, 0)
        count += len(table)
    return Contents(digest.hexdigest(), count, total)


def checksum_of_images(table: Table) -> str | None:
    """SHA-256 of a table's images, regardless of their order, names and labels.

    Files are hashed by content, because differently damaged copies of the same photographs may have the same names and
    sizes; unreadable files are left out. None for items of a library's data set, and for more than MAX_HASHED bytes.
    """
    images = [image for image in table.images if not isinstance(image, Item)]
    if len(images) < len(table):
        return None
    sizes = _sizes([image for image in images if isinstance(image, File)])
    if sum(sizes) + sum(image.nbytes for image in images if isinstance(image, np.ndarray)) > MAX_HASHED:
        return None
    digests = []
    for image in images:
        with contextlib.suppress(UserError):
            content = image.read() if isinstance(image, File) else f"{image.shape}\n".encode() + image.tobytes()
            digests.append(hashlib.sha256(content).digest())
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def checksums_of_pixels(images: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint64]:
    """Return the 64-bit BLAKE2b checksum of each image's pixels (S, S, 3), in order, uint64 (N,).

    Among a million different images, two share a checksum with a probability of 3e-8.
    """
    digests = b"".join(hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).digest() for image in images)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def _fingerprint(name: str, root: Path) -> tuple[Contents, Iterable[Path]]:
    """Fingerprint an existing root; also return the paths that change when it changes."""
    if is_pack(root):
        return _of_pack(root), [root / PACK]
    if name in MANIFESTS:
        return _of_manifest(name, root)
    if _is_published(name, root):
        return Contents(), [root]
    files = list_files(root)
    tables = (*TABLES, ".mat") if name in WITH_MATRIX else TABLES
    contents = _of_files(files, tables)
    if not root.is_dir():
        return contents, [root]
    folders = {PurePosixPath(name) for name in {file.name.rpartition("/")[0] for file in files}}
    above = {root / each for folder in folders for each in (folder, *folder.parents)}
    return contents, [*{root, *above}, *(root / file.name for file in files if file.name.lower().endswith(tables))]


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _is_published(name: str, root: Path) -> bool:
    """Whether the root is the download folder of a published set, whose files are checked when they are read."""
    if name in FOLDERS:
        return False  # does not need the imports below
    from emoreg.data.targets import cifar, torchvision_sets

    if name in cifar.SIZES:
        return not zipfile.is_zipfile(root) and not cifar.holds_image_folders(name, root)
    return name in torchvision_sets.SETS


def _of_files(files: Sequence[File], tables: tuple[str, ...]) -> Contents:
    digest, count, total = hashlib.sha256(), 0, 0
    for (name, size), file in sorted(zip(_names_and_sizes(files), files, strict=True), key=lambda each: each[0]):
        if name.rpartition("/")[2].lower() in WINDOWS_FILES:
            continue
        is_read = name.lower().endswith(tables) and 0 <= size <= MAX_FILE_BYTES
        content = hashlib.sha256(file.read()).hexdigest() if is_read else ""
        digest.update(_encode(f"{name}\0{size}\0{content}\n"))
        count, total = count + 1, total + max(size, 0)
    return Contents(digest.hexdigest(), count, total)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _names_and_sizes(files: Sequence[File]) -> Iterator[tuple[str, int]]:
    names = _without_wrappers([composed(file.name) for file in files])
    return zip(names, _sizes(files), strict=True)


def _sizes(files: Sequence[File]) -> list[int]:
    """Size of each file in bytes; -1 for one that cannot be read, such as a dead link."""
    folders = {root: root.is_dir() for root in {file.root for file in files}}
    sizes = []
    for file in files:
        try:
            sizes.append((file.root / file.name).stat().st_size if folders[file.root] else file.size())
        except (OSError, UserError):
            sizes.append(-1)
    return sizes


def _without_wrappers(names: list[str]) -> list[str]:
    """Names without leading folders that all of them share: a zip often has one more than the unpacked folder.

    A folder that names a split is kept.
    """
    while names and "/" in names[0]:
        folder = names[0][: names[0].index("/") + 1]
        if split_name(folder[:-1]) is not None or not all(name.startswith(folder) for name in names):
            break
        names = [name[len(folder) :] for name in names]
    return names


def _of_pack(root: Path) -> Contents:
    """Fingerprint a pack's description instead of its pixels, which may differ between versions of Pillow."""
    about = read_about(root)
    try:
        facts = [about[key] for key in ("set", "image_size", "images", "splits")]
        facts += [about["identity"]["sha256"], about["source"]["bytes"]]
        facts.append([entry["name"] for entry in about["unreadable"]])
        digest = hashlib.sha256(json.dumps(facts).encode())
        return Contents(digest.hexdigest(), int(about["images"]), int(about["source"]["bytes"]))
    except (KeyError, TypeError):
        raise UserError(f"{root} is a damaged pack: delete it and pack again") from None


def _of_manifest(name: str, root: Path) -> tuple[Contents, list[Path]]:
    """Fingerprint the images that a manifest lists, with their labels and splits, but without their folders."""
    from emoreg.data.stimuli import read_stimuli

    stimuli = read_stimuli(StimuliSettings(name, str(root), skip_unreadable=True), seed=0)
    files = [image for image in stimuli.images if isinstance(image, File)]
    sizes, digest = _sizes(files), hashlib.sha256()
    for file, size in zip(files, sizes, strict=True):
        base = composed(file.name.rpartition("/")[2])
        digest.update(_encode(f"{base}\0{size}\n"))
    for labels in stimuli.labels:
        digest.update(repr((labels.space.kind, labels.space.names)).encode())
        digest.update(labels.values.tobytes())
    digest.update(repr((stimuli.splits and list(stimuli.splits), len(stimuli.missing))).encode())
    contents = Contents(digest.hexdigest(), len(files), sum(max(size, 0) for size in sizes))
    folders = {file.root if file.root.is_file() else (file.root / file.name).parent for file in files}
    return contents, [root, *folders]
