"""What stands at the root of an image set, as a checksum that no path enters: the same images have the same anywhere.

A folder and the zip of it have one checksum. It is of the names and sizes of all files that are not hidden, and of the
content of tables, which hold labels; images are not opened, so 50,000 files take about a second. An image that is
replaced by another one of as many bytes is therefore not noticed. Pixels that are given in Python are in memory, or
mapped into it, and are read whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from emoreg.config.contents import Contents
from emoreg.config.schema import StimuliSettings, TargetSettings
from emoreg.data.images.files import MAX_FILE_BYTES, File, list_files
from emoreg.data.images.layout import split_name
from emoreg.data.images.names import composed
from emoreg.data.images.packed import PACK, is_pack, read_about
from emoreg.data.images.table import Item, Table
from emoreg.errors import UserError

EMBEDDED = ("procedural", "digits")  # which have no root
MANIFESTS = ("manifest", "diffused_emod")
FOLDERS = ("folder", "emotion_folder")  # of anybody's own
PUBLISHED = ("cifar10", "cifar100")  # as an archive, or made into folders
TABLES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet")
# Whose labels may be in a MATLAB file; in a user's own folder such a file is none of its tables.
WITH_MATRIX = ("emod",)
MOST_READ = 2**30  # bytes of images that are read whole to know them again, which takes about a second
OF_WINDOWS = ("thumbs.db", "desktop.ini")  # written by its file manager, hidden there

Stamp = tuple[Path, int, int]  # time of the last change in ns, and bytes

_known: dict[tuple[str, Path], tuple[list[Stamp], Contents]] = {}


def contents_of(settings: StimuliSettings | TargetSettings) -> Contents | None:
    """What stands at the root of a set now; None if nothing is there, or it cannot be listed: reading it says why.

    What this process has looked at is looked at again only if a folder, zip or table has changed, so a study does it
    once; an image that is replaced in place is noticed by the next process.
    """
    name = settings.name.lower()
    if settings.root is None or name in EMBEDDED:
        return Contents()
    root = Path(settings.root).absolute()
    try:
        if (name, root) in _known:
            stamps, contents = _known[name, root]
            if all(map(_is_as_then, stamps)):
                return contents
        if not root.exists():
            return None
        contents, paths = _look(name, root)
        _known[name, root] = [_stamp(path) for path in paths], contents
    except (OSError, ValueError, UserError):  # ValueError: a path with a null byte
        return None
    return contents


def contents_of_tables(tables: Sequence[Table | None], label_names: Sequence[str]) -> Contents | None:
    """What a caller has given in Python, in its order: pixels, and files by name and size.

    None with a library's items, of which nothing is known before they are decoded.

    Args:
        tables: the parts of the set; None for a part that it does not have.
        label_names: what the labels stand for; first the kind of labels.
    """
    if any(isinstance(image, Item) for table in tables if table is not None for image in table.images):
        return None
    digest, count, total = hashlib.sha256(repr(tuple(label_names)).encode("utf-8", "surrogateescape")), 0, 0
    for table in tables:
        if table is None:
            digest.update(b"none\n")
            continue
        digest.update(f"{len(table)} {table.labels.dtype} {table.labels.shape}\n".encode())
        digest.update(table.labels.tobytes())
        files = [image for image in table.images if isinstance(image, File)]
        names = _without_wrapping([composed(file.name) for file in files])
        named = zip(names, _sizes(files), strict=True)
        for image in table.images:
            if isinstance(image, np.ndarray):
                digest.update(f"{image.shape}\n".encode())
                digest.update(image.tobytes())
                total += image.nbytes
                continue
            name, size = next(named)
            digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
            total += max(size, 0)
        count += len(table)
    return Contents(digest.hexdigest(), count, total)


def checksum_of_images(table: Table) -> str | None:
    """SHA-256 of images alone, in any order, under any names and with any labels.

    Of pixels, and of files by their content: the same photographs damaged in another way may have the same names and
    sizes. A file that cannot be read is left out. None with a library's items, which are not decoded, and for more
    than MOST_READ bytes.
    """
    images = [image for image in table.images if not isinstance(image, Item)]
    if len(images) < len(table):
        return None
    sizes = _sizes([image for image in images if isinstance(image, File)])
    if sum(sizes) + sum(image.nbytes for image in images if isinstance(image, np.ndarray)) > MOST_READ:
        return None
    digests = []
    for image in images:
        with contextlib.suppress(UserError):
            content = image.read() if isinstance(image, File) else f"{image.shape}\n".encode() + image.tobytes()
            digests.append(hashlib.sha256(content).digest())
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def _look(name: str, root: Path) -> tuple[Contents, Iterable[Path]]:
    """What stands at a root, and the paths whose change tells that it has changed."""
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
    folders = {PurePosixPath(folder) for folder in {file.name.rpartition("/")[0] for file in files}}
    above = {root / each for folder in folders for each in (folder, *folder.parents)}
    return contents, [*above, *(root / file.name for file in files if _is_table(file.name, tables))]


def _stamp(path: Path) -> Stamp:
    there = path.stat()
    return path, there.st_mtime_ns, there.st_size


def _is_as_then(stamp: Stamp) -> bool:
    try:
        return _stamp(stamp[0]) == stamp
    except OSError:
        return False


def _is_published(name: str, root: Path) -> bool:
    """Whether the root is the folder into which a published set is downloaded, where its files are checked."""
    if name in FOLDERS:
        return False  # without importing torch
    from emoreg.data.targets import cifar, torchvision_sets

    if name in PUBLISHED:
        return not zipfile.is_zipfile(root) and not cifar.holds_image_folders(root)
    return name in torchvision_sets.SETS


def _is_table(name: str, tables: tuple[str, ...]) -> bool:
    return name.lower().endswith(tables)


def _of_files(files: Sequence[File], tables: tuple[str, ...]) -> Contents:
    sizes = _sizes(files)
    names = _without_wrapping([composed(file.name) for file in files])
    digest, count, total = hashlib.sha256(), 0, 0
    for name, size, file in sorted(zip(names, sizes, files, strict=True), key=lambda each: each[:2]):
        if name.rpartition("/")[2].lower() in OF_WINDOWS:
            continue
        is_read = _is_table(name, tables) and 0 <= size <= MAX_FILE_BYTES
        content = hashlib.sha256(file.read()).hexdigest() if is_read else ""
        digest.update(f"{name}\0{size}\0{content}\n".encode("utf-8", "surrogateescape"))
        count, total = count + 1, total + max(size, 0)
    return Contents(digest.hexdigest(), count, total)


def _sizes(files: Sequence[File]) -> list[int]:
    """Bytes of each file; -1 for one that cannot be read, such as a dead link."""
    folders = {root: root.is_dir() for root in {file.root for file in files}}
    sizes = []
    for file in files:
        try:
            sizes.append((file.root / file.name).stat().st_size if folders[file.root] else file.size())
        except (OSError, UserError):
            sizes.append(-1)
    return sizes


def _without_wrapping(names: list[str]) -> list[str]:
    """Names without the folders that all of them are in: a zip mostly has one more than what is unpacked from it.

    A folder that says what the images are for stays.
    """
    while names and "/" in names[0]:
        folder = names[0][: names[0].index("/") + 1]
        if split_name(folder[:-1]) is not None or not all(name.startswith(folder) for name in names):
            break
        names = [name[len(folder) :] for name in names]
    return names


def _of_pack(root: Path) -> Contents:
    """Of names, labels and splits, and the bytes that were decoded: pixels may differ with the version of Pillow."""
    about = read_about(root)
    try:
        identity, source, left_out = about["identity"], about["source"], about["unreadable"]
        told = [about[key] for key in ("set", "image_size", "images", "splits")]
        told += [identity["sha256"], source["bytes"], [entry["name"] for entry in left_out]]
        return Contents(
            hashlib.sha256(json.dumps(told).encode()).hexdigest(), int(about["images"]), int(source["bytes"])
        )
    except (KeyError, TypeError):
        raise UserError(f"{root} is a damaged pack: delete it and pack again") from None


def _of_manifest(name: str, root: Path) -> tuple[Contents, list[Path]]:
    """Of the images that a manifest lists, in order, with their labels and splits: its paths may be written anew."""
    from emoreg.data.stimuli import read_stimuli

    stimuli = read_stimuli(StimuliSettings(name, str(root), skip_unreadable=True), seed=0)
    files = [image for image in stimuli.images if isinstance(image, File)]
    sizes, digest = _sizes(files), hashlib.sha256()
    for file, size in zip(files, sizes, strict=True):
        base = composed(file.name.rpartition("/")[2])
        digest.update(f"{base}\0{size}\n".encode("utf-8", "surrogateescape"))
    for labels in stimuli.labels:
        digest.update(repr((labels.space.kind, labels.space.names)).encode())
        digest.update(labels.values.tobytes())
    digest.update(repr((stimuli.splits and list(stimuli.splits), len(stimuli.missing))).encode())
    contents = Contents(digest.hexdigest(), len(files), sum(max(size, 0) for size in sizes))
    folders = {file.root if file.root.is_file() else (file.root / file.name).parent for file in files}
    return contents, [root, *folders]
