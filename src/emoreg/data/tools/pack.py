"""Pack an image set: decode and resize it once, into files that open in milliseconds (`images.packed`).

Pixels are written as they are decoded, so memory does not grow with the size of the set. Progress is recorded
regularly, and an interrupted pack resumes from there.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from emoreg import __version__
from emoreg.config.schema import Fit
from emoreg.data.images.decode import square, upright
from emoreg.data.images.files import File
from emoreg.data.images.packed import (
    FORMAT,
    NAMES,
    PACK,
    PIXELS,
    SPLITS,
    UNFINISHED,
    is_pack,
    labels_file,
    read_about,
)
from emoreg.data.images.threads import in_threads
from emoreg.data.tools.catalogue import Collection, Kind, read_set
from emoreg.errors import UserError
from emoreg.runtime.lock import hold, is_trace
from emoreg.runtime.progress import Progress
from emoreg.runtime.safe_io import read_json, write_json

NOTED_EVERY_BYTES = 64 * 2**20  # pixels between two records of progress, the most to decode again after a kill
SPARE_BYTES = 64 * 2**20  # to leave free on the disk
FILES = "files"  # key of a checksum of the sizes and times of files, by which replaced images are noticed


@dataclass(frozen=True)
class Packed:
    """A finished pack.

    Args:
        folder: folder of the pack.
        images: number of images in it.
        bytes: size of its files.
        left_out: "name" and "reason" of each unreadable image.
        decoded: number of images that this call decoded; fewer than `images` if it resumed a pack.
        source_bytes: bytes of source images that this call read.
        seconds: duration of this call; None if the pack had been finished before.
    """

    folder: Path
    images: int
    bytes: int
    left_out: list[dict[str, Any]]
    decoded: int = 0
    source_bytes: int = 0
    seconds: float | None = None


def pack(
    name: str,
    root: str | None,
    image_size: int,
    out: Path | None,
    skip_unreadable: bool,
    progress: Progress,
    kind: Kind | None = None,
    fit: Fit = "crop",
) -> Packed:
    """Pack a set, or resume an interrupted pack.

    Args:
        name: name of a stimulus set or target.
        root: see `catalogue.find`.
        image_size: side S of the packed images in pixels.
        out: folder of the pack; None for data/<name>-<S>px.
        skip_unreadable: skip images that cannot be decoded or are missing, and list them in pack.json.
        progress: shows how many images have been packed.
        kind: kind of the set; None for `kind_of(name)`.
        fit: how images are made square, see `decode.square`.

    Raises:
        UserError: the set cannot be read; an image cannot be decoded; no space or no permission; `out` holds
            something else, or another process is writing to it.
    """
    if image_size < 8:
        raise UserError(f"--image-size is {image_size}; it must be at least 8 pixels")
    if name == "procedural":
        raise UserError("procedural images are drawn when needed, at any size: there is nothing to pack")
    if root is not None and is_pack(root):
        raise UserError(f"{root} is a pack already: give the folder or zip that it was made from")
    folder = out or Path("data") / f"{re.sub(r'[^a-z0-9_.]+', '-', name.lower())}-{image_size}px"
    collection = read_set(name, root, kind=kind)
    progress.report_notes(collection.notes, collection.left_out)
    if collection.missing and not skip_unreadable:
        first, count = collection.missing[0], len(collection.missing)
        raise UserError(f"{first}: the image is missing, as in {count} rows in total (--skip-unreadable skips them)")
    return pack_collection(collection, image_size, folder, skip_unreadable, progress, fit)


def pack_collection(
    collection: Collection, size: int, folder: Path, skip_unreadable: bool, progress: Progress, fit: Fit = "crop"
) -> Packed:
    """Pack a set that was read already; the arguments and errors are those of `pack`."""
    try:
        return _pack(collection, size, folder, skip_unreadable, progress, fit)
    except OSError as error:
        reason = f"{error.strerror or error}; run the same command again to resume"
        if isinstance(error, FileNotFoundError) and not folder.is_dir():
            reason = "its folder is gone; run the same command again to start over"
        raise UserError(f"cannot write the pack {folder}: {reason}") from None


def _pack(
    collection: Collection, size: int, folder: Path, skip_unreadable: bool, progress: Progress, fit: Fit
) -> Packed:
    names = np.array([collection.name_of(row) for row in range(len(collection.images))])
    stamps = _stamps(collection)
    identity = _identity(collection, names, stamps, size, fit)
    finished = _finished(folder, identity)
    if finished is not None:
        return finished
    is_ours = (folder / UNFINISHED).is_file() or (folder.is_dir() and all(map(is_trace, folder.iterdir())))
    if folder.exists() and not is_ours:
        raise UserError(f"{folder} is not empty and holds no pack: choose another folder")
    store = _Store(folder, identity, stamps, skip_unreadable)
    _require_space(store, names, collection)
    folder.mkdir(parents=True, exist_ok=True)
    with hold(folder):  # another process that held the lock may have made some or all of the pack
        store = _Store(folder, identity, stamps, skip_unreadable)
        return _finished(folder, identity) or _fill(store, collection, names, progress)


def _finished(folder: Path, identity: dict[str, Any]) -> Packed | None:
    """The pack in `folder`, None if it is not finished. UserError if it is a different pack."""
    if not (folder / PACK).is_file():
        return None
    about = read_about(folder)
    stored: Any = about.get("identity")
    if not _is_same_set(stored, identity):
        raise UserError(f"{folder} holds another pack: choose another folder, or delete that one")
    if stored.get(FILES, identity.get(FILES)) != identity.get(FILES):
        raise UserError(
            f"{folder} is a pack of these images, but the sizes or times of some files are no longer the same: if "
            "they were only copied, use that pack; else choose another folder, or delete that one"
        )
    with contextlib.suppress(OSError):  # left behind if the process was killed right after finishing
        (folder / UNFINISHED).unlink()
    return Packed(folder, about["images"], _bytes_in(folder), about["unreadable"])


def _fill(store: _Store, collection: Collection, names: NDArray[np.str_], progress: Progress) -> Packed:
    start = time.perf_counter()
    store.open()
    resumed_at, read_before = store.done, store.bytes_read

    def work(rows: range) -> list[tuple[NDArray[np.uint8] | UserError, int]]:
        return [_decode(collection.images[row], store.size, store.fit) for row in rows]

    try:
        with progress.task(f"pack {collection.name}", len(names), "images", resumed_at) as advance:
            for rows, results in in_threads(work, range(resumed_at, len(names)), 16):
                for row, (result, length) in zip(rows, results, strict=True):
                    if not isinstance(result, UserError):
                        store.add(result)
                    elif store.skip_unreadable:
                        store.leave_out(row, str(names[row]), str(result))
                    else:
                        raise UserError(
                            f"{result} (--skip-unreadable skips such images, in Python skip_unreadable=True; "
                            "run the command again to resume)"
                        )
                    store.bytes_read += length
                store.note()
                advance(len(rows))
    finally:
        store.close()
    about = _finish(store, collection, names)
    size, decoded, read = _bytes_in(store.folder), len(names) - resumed_at, store.bytes_read - read_before
    seconds = time.perf_counter() - start
    return Packed(store.folder, about["images"], size, about["unreadable"], decoded, read, seconds)


def _decode(image: Any, size: int, fit: Fit) -> tuple[NDArray[np.uint8] | UserError, int]:
    """The pixels (S, S, 3), or the error if they cannot be decoded; and the number of bytes read."""
    length = 0
    try:
        content = image.read() if isinstance(image, File) else None
        length = len(content) if content is not None else getattr(image, "nbytes", 0)
        whole = Image.fromarray(image) if isinstance(image, np.ndarray) else upright(image, content, at_least=size)
        return square(whole, size, fit), length
    except UserError as error:
        return error, length


def _stamps(collection: Collection) -> NDArray[np.int64]:
    """Size in bytes and time of the last change in nanoseconds of each image's file (N, 2); 0 if not in a folder."""
    stamps = np.zeros((len(collection.images), 2), np.int64)
    for row, image in enumerate(collection.images):
        if isinstance(image, File):
            with contextlib.suppress(OSError):  # in a zip, or missing, which is reported when it is read
                stat = (image.root / image.name).stat()
                stamps[row] = stat.st_size, stat.st_mtime_ns
    return stamps


def _identity(
    collection: Collection, names: NDArray[np.str_], stamps: NDArray[np.int64], size: int, fit: Fit
) -> dict[str, Any]:
    """The identity of a pack's content. An unfinished pack is resumed only if its identity is the same set's."""
    digest = hashlib.sha256(names.tobytes())
    for labels in collection.labels:
        digest.update(repr((labels.kind, labels.names)).encode())
        digest.update(np.ascontiguousarray(labels.values).data)
    digest.update(b"" if collection.splits is None else collection.splits.tobytes())
    digest.update(collection.checksum.encode())
    source = Path(collection.root).stat() if collection.root and Path(collection.root).is_file() else None
    return {
        "format": FORMAT,
        "set": collection.name,
        "image_size": size,
        "images": len(names),
        "sha256": digest.hexdigest(),  # of names, labels and splits; and of pixels that no file has
        "zip": source and [source.st_size, source.st_mtime_ns],
        **({} if fit == "crop" else {"fit": fit}),  # absent in packs made before there was a choice
        **({FILES: _digest(stamps)} if stamps.any() else {}),  # absent in earlier packs
    }


def _is_same_set(stored: Any, identity: dict[str, Any]) -> bool:
    """Whether a stored identity is that of the same set, whatever has happened to its files."""
    return isinstance(stored, dict) and {**stored, FILES: None} == {**identity, FILES: None}


def _digest(stamps: NDArray[np.int64]) -> str:
    return hashlib.sha256(stamps.tobytes()).hexdigest()


class _Store:
    """Pixels and progress of an unfinished pack."""

    def __init__(
        self, folder: Path, identity: dict[str, Any], stamps: NDArray[np.int64], skip_unreadable: bool
    ) -> None:
        self.folder, self.identity, self.stamps, self.skip_unreadable = folder, identity, stamps, skip_unreadable
        self.count, self.size, self.fit = identity["images"], identity["image_size"], identity.get("fit", "crop")
        self.image_bytes = self.size * self.size * 3
        self.unreadable: list[dict[str, Any]] = []
        self.done = self.bytes_read = self.unnoted = 0
        try:
            state = read_json(folder / UNFINISHED)
            # If images must not be skipped, those that an earlier call skipped are tried again: start over.
            is_same = _is_same_set(state["identity"], identity) and (skip_unreadable or not state["unreadable"])
            is_valid = type(state["done"]) is int and 0 <= state["done"] <= self.count
            # The files of the images that are left to pack may change: one that cannot be decoded is repaired.
            unchanged = _digest(stamps[: state["done"]]) if is_valid else ""
            is_same &= state.get(FILES, unchanged) == unchanged
            if is_same and is_valid and (folder / PIXELS).is_file() and not (folder / PIXELS).is_symlink():
                self.done, self.bytes_read = state["done"], state["bytes"]
                # `leave_out` may have been interrupted between its two changes.
                self.unreadable = [entry for entry in state["unreadable"] if entry["row"] < self.done]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # starts over

    def open(self) -> None:
        path = self.folder / PIXELS
        if not self.done:
            self._write_state()  # must come first: it marks the folder as an unfinished pack
            path.unlink(missing_ok=True)
        # Not a memory map: a full disk then raises an error instead of crashing the process, and written pages do not
        # count as this process's memory.
        self.file = path.open("r+b" if self.done else "xb")
        self._resize(self.count)
        self.file.seek((self.done - len(self.unreadable)) * self.image_bytes, os.SEEK_CUR)

    def _resize(self, count: int) -> None:
        """Write the header of an array of `count` images, which is equally long for any number; go to the pixels."""
        shape = (count, self.size, self.size, 3)
        self.file.seek(0)
        np.lib.format.write_array_header_1_0(self.file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        self.file.truncate(self.file.tell() + count * self.image_bytes)

    def add(self, pixels: NDArray[np.uint8]) -> None:
        self.file.write(np.ascontiguousarray(pixels).data)
        self.done += 1
        self.unnoted += pixels.nbytes

    def leave_out(self, row: int, name: str, reason: str) -> None:
        self.unreadable.append({"row": row, "name": name, "reason": reason})
        self.done += 1

    def note(self) -> None:
        """Flush pixels to the disk and record progress, every NOTED_EVERY_BYTES."""
        if self.unnoted >= NOTED_EVERY_BYTES:
            self._flush()
            self._write_state()
            self.unnoted = 0

    def close(self) -> None:
        with self.file:
            self._flush()
            self._write_state()

    def _flush(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())

    def _write_state(self) -> None:
        state = {
            "identity": self.identity,
            FILES: _digest(self.stamps[: self.done]),  # of the images that are packed
            "done": self.done,
            "bytes": self.bytes_read,
            "unreadable": self.unreadable,
        }
        write_json(self.folder / UNFINISHED, state)

    def truncate(self, kept: int) -> None:
        """Shorten the file to the images that were written."""
        with (self.folder / PIXELS).open("r+b") as self.file:
            self._resize(kept)
            self._flush()


def _require_space(store: _Store, names: NDArray[np.str_], collection: Collection) -> None:
    disk = next(path for path in (store.folder, *store.folder.absolute().parents) if path.is_dir())
    needed = (store.count - store.done) * store.image_bytes + names.nbytes + SPARE_BYTES
    needed += sum(labels.values.nbytes for labels in collection.labels)
    needed += 0 if collection.splits is None else collection.splits.nbytes
    free = shutil.disk_usage(disk).free
    if needed > free:
        raise UserError(
            f"the pack {store.folder} needs {needed / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB are free there: "
            "choose another disk, or a smaller image size"
        )


def _finish(store: _Store, collection: Collection, names: NDArray[np.str_]) -> dict[str, Any]:
    """Write names, labels and splits, then pack.json once all of them are on the disk; return the content of this."""
    kept = np.setdiff1d(np.arange(len(names)), [entry["row"] for entry in store.unreadable])
    if len(kept) == 0:
        raise UserError(
            f"{collection.name}: none of {len(names)} images can be decoded; {store.unreadable[0]['reason']}"
        )
    if collection.kind == "target" and collection.splits is not None:
        for split in np.setdiff1d(collection.splits, collection.splits[kept]):  # no run could read such a pack
            reason = store.unreadable[0]["reason"]
            raise UserError(f"{collection.name}: none of its {split} images can be decoded; {reason}")
    if len(kept) < len(names):
        store.truncate(len(kept))
    folder = store.folder
    _save(folder / NAMES, names[kept])
    for labels in collection.labels:
        _save(folder / labels_file(labels.kind), labels.values[kept])
    if collection.splits is not None:
        _save(folder / SPLITS, collection.splits[kept])
    about = {
        "format": FORMAT,
        "set": collection.name,
        "title": collection.title,
        "kind": collection.kind,
        "image_size": store.size,
        "fit": store.fit,
        "images": len(kept),
        "labels": [{"kind": labels.kind, "names": labels.names} for labels in collection.labels],
        "splits": collection.splits is not None,
        "source": {
            "root": collection.root,
            "images": len(names) + len(collection.missing),
            "bytes": store.bytes_read,
        },
        "unreadable": [{"name": entry["name"], "reason": entry["reason"]} for entry in store.unreadable],
        "missing": list(collection.missing),
        "versions": {"emoreg": __version__, "pillow": PIL.__version__},
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "identity": store.identity,
    }
    write_json(folder / PACK, about)
    (folder / UNFINISHED).unlink()
    return about


def _save(path: Path, array: NDArray[Any]) -> None:
    path.unlink(missing_ok=True)  # a link in the folder of an unfinished pack may lead anywhere
    with path.open("xb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if not is_trace(path) and path.name != UNFINISHED)
