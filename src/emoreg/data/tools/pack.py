"""Packing: an image set decoded and resized once, into files that are opened in milliseconds (`images.packed`).

Pixels go to the disk as they come, a few hundred images behind the decoding threads, so memory does not grow
with the set. Progress is recorded regularly, and an interrupted pack resumes from there.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import io
import json
import os
import re
import shutil
import time
from dataclasses import dataclass, replace
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

NOTED_EVERY_BYTES = 64 * 2**20  # of pixels: at most this much is decoded again after a kill
SPARE_BYTES = 64 * 2**20  # left free on the disk


@dataclass(frozen=True)
class Packed:
    """A finished pack, and what making it took; `seconds` is None if it was there already.

    Args:
        folder: of the pack.
        images: in it.
        bytes: of its files.
        left_out: names of unreadable images, and the reasons.
        decoded: images by this call; fewer than `images` if an earlier one had been stopped.
        source_bytes: read by this call.
        seconds: that this call took.
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
        image_size: S, in pixels.
        out: folder of the pack; None for data/<name>-<S>px.
        skip_unreadable: skip images that cannot be decoded or are missing, and list them in pack.json.
        progress: shows how many images are packed.
        kind: of the set; None for that of its name.
        fit: how images that are not square become so; see `decode.square`.

    Raises:
        UserError: the set cannot be read; an image cannot be decoded; no space or no permission; `out` holds
            something else, or another process is writing to it.
    """
    if image_size < 8:
        raise UserError(f"--image-size is {image_size}; it must be at least 8 pixels")
    if name == "procedural":
        raise UserError("procedural is drawn when it is needed, at any size: there is nothing to pack")
    if root is not None and is_pack(root):
        raise UserError(f"{root} is a pack already: give the folder or zip that it was made from")
    folder = out or Path("data") / f"{re.sub(r'[^a-z0-9_.]+', '-', name.lower())}-{image_size}px"
    collection = read_set(name, root, kind=kind)
    progress.tell(collection.notes, collection.left_out)
    if collection.missing and not skip_unreadable:
        first, count = collection.missing[0], len(collection.missing)
        raise UserError(f"{first}: the image is missing, as in {count} rows in all (--skip-unreadable skips them)")
    try:
        return _pack(collection, image_size, folder, skip_unreadable, progress, fit)
    except OSError as error:
        reason = f"{error.strerror or error}; run the same command again to resume"
        if isinstance(error, FileNotFoundError) and not folder.is_dir():
            reason = "its folder is gone; run the same command again to start over"
        raise UserError(f"cannot write the pack {folder}: {reason}") from None


def _pack(
    collection: Collection, size: int, folder: Path, skip_unreadable: bool, progress: Progress, fit: Fit
) -> Packed:
    names = np.array([collection.name_of(row) for row in range(len(collection.images))])
    identity = _identity(collection, names, size, fit)
    if (there := _finished(folder, identity)) is not None:
        return there
    is_ours = (folder / UNFINISHED).is_file() or (folder.is_dir() and all(map(is_trace, folder.iterdir())))
    if folder.exists() and not is_ours:
        raise UserError(f"{folder} is not empty and holds no pack: choose another folder with --out")
    store = _Store(folder, identity, skip_unreadable)
    _require_space(store, names, collection)
    folder.mkdir(parents=True, exist_ok=True)
    with hold(folder):  # the process that was waited for may have done some of it, or all
        store = _Store(folder, identity, skip_unreadable)
        return _finished(folder, identity) or _fill(store, collection, names, progress)


def _finished(folder: Path, identity: dict[str, Any]) -> Packed | None:
    """The pack, if it is there already. UserError if it is another one."""
    if not (folder / PACK).is_file():
        return None
    about = read_about(folder)
    if about.get("identity") != identity:
        raise UserError(f"{folder} holds another pack: choose another folder with --out, or delete that one")
    with contextlib.suppress(OSError):  # the process that finished it may have been killed before
        (folder / UNFINISHED).unlink()
    return Packed(folder, about["images"], _bytes_in(folder), about["unreadable"])


def _fill(store: _Store, collection: Collection, names: NDArray[np.str_], progress: Progress) -> Packed:
    begun = time.perf_counter()
    store.open()
    already, read = store.done, 0

    def work(rows: range) -> list[tuple[NDArray[np.uint8] | UserError, int]]:
        return [_decode(collection.images[row], store.size, store.fit) for row in rows]

    try:
        with progress.task(f"pack {collection.name}", len(names), "images") as advance:
            advance(already)
            for rows, results in in_threads(work, range(already, len(names)), 16):
                for row, (result, length) in zip(rows, results, strict=True):
                    if isinstance(result, UserError) and not store.skip_unreadable:
                        raise UserError(
                            f"{result} (--skip-unreadable skips such images; run the command again to resume)"
                        )
                    if isinstance(result, UserError):
                        store.leave_out(row, str(names[row]), str(result))
                    else:
                        store.add(result)
                    read += length
                store.note(read)
                advance(len(rows))
    finally:
        store.close(read)
    about = _finish(store, collection, names)
    made = Packed(store.folder, about["images"], _bytes_in(store.folder), about["unreadable"])
    return replace(made, decoded=len(names) - already, source_bytes=read, seconds=time.perf_counter() - begun)


def _decode(image: Any, size: int, fit: Fit) -> tuple[NDArray[np.uint8] | UserError, int]:
    """(S, S, 3), or why not; and how many bytes were read."""
    length = 0
    try:
        content = image.read() if isinstance(image, File) else None
        length = len(content) if content is not None else getattr(image, "nbytes", 0)
        whole = Image.fromarray(image) if isinstance(image, np.ndarray) else upright(image, content, at_least=size)
        return square(whole, size, fit), length
    except UserError as error:
        return error, length


def _identity(collection: Collection, names: NDArray[np.str_], size: int, fit: Fit) -> dict[str, Any]:
    """Identity of a pack: an unfinished one is resumed only if it is the same."""
    digest = hashlib.sha256(names.tobytes())
    for labels in collection.labels:
        digest.update(repr((labels.kind, labels.names)).encode())
        digest.update(np.ascontiguousarray(labels.values).data)
    digest.update(b"" if collection.splits is None else collection.splits.tobytes())
    source = Path(collection.root).stat() if collection.root and Path(collection.root).is_file() else None
    return {
        "format": FORMAT,
        "set": collection.name,
        "image_size": size,
        "images": len(names),
        "sha256": digest.hexdigest(),  # of names, labels and splits
        "zip": source and [source.st_size, source.st_mtime_ns],
        **({} if fit == "crop" else {"fit": fit}),  # as packs were before there was a choice
    }


class _Store:
    """The pixels of a pack that is being made, and how far it is."""

    def __init__(self, folder: Path, identity: dict[str, Any], skip_unreadable: bool) -> None:
        count, self.size, self.fit = identity["images"], identity["image_size"], identity.get("fit", "crop")
        self.folder, self.identity, self.shape = folder, identity, (count, self.size, self.size, 3)
        self.skip_unreadable = skip_unreadable
        self.unreadable: list[dict[str, Any]] = []
        self.done = self.noted_bytes = self.unnoted = 0
        try:
            state = read_json(folder / UNFINISHED)
            # An image that an earlier call skipped, and this one may not skip, may have been repaired meanwhile.
            is_ours = state["identity"] == identity and (skip_unreadable or not state["unreadable"])
            is_ours = is_ours and type(state["done"]) is int and 0 <= state["done"] <= count
            if is_ours and (folder / PIXELS).is_file():
                self.done, self.noted_bytes = state["done"], state["bytes"]
                # An interrupt may have come between the two changes of `leave_out`.
                self.unreadable = [entry for entry in state["unreadable"] if entry["row"] < self.done]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # starts over

    def open(self) -> None:
        path = self.folder / PIXELS
        if not self.done:
            self._write_state(0)  # first of all: it marks the folder as ours
            path.unlink(missing_ok=True)
            np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=self.shape)
        # Written as a file, not through the map: a full disk is then an error, and no crash of the process, and
        # written pages do not count as this process's memory.
        self.file = path.open("r+b")
        np.lib.format.read_magic(self.file)
        np.lib.format.read_array_header_1_0(self.file)
        self.start = self.file.tell()
        self.file.seek(self.start + (self.done - len(self.unreadable)) * int(np.prod(self.shape[1:])))

    def add(self, pixels: NDArray[np.uint8]) -> None:
        self.file.write(np.ascontiguousarray(pixels).data)
        self.done += 1
        self.unnoted += pixels.nbytes

    def leave_out(self, row: int, name: str, reason: str) -> None:
        self.unreadable.append({"row": row, "name": name, "reason": reason})
        self.done += 1

    def note(self, read: int) -> None:
        """Flush what has been written to the disk, and record progress, at intervals."""
        if self.unnoted >= NOTED_EVERY_BYTES:
            self.file.flush()
            os.fsync(self.file.fileno())
            self._write_state(read)
            self.unnoted = 0

    def close(self, read: int) -> None:
        try:
            self.unnoted = NOTED_EVERY_BYTES
            self.note(read)
        finally:
            self.file.close()

    def _write_state(self, read: int) -> None:
        state = {
            "identity": self.identity,
            "done": self.done,
            "bytes": self.noted_bytes + read,
            "unreadable": self.unreadable,
        }
        write_json(self.folder / UNFINISHED, state)

    def cut(self, kept: int) -> None:
        """Shorten the file to the images that are in it."""
        shape = (kept, *self.shape[1:])
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
        # NumPy leaves room in headers for a first dimension of any length, so they are equally long.
        assert len(header.getvalue()) == self.start
        with (self.folder / PIXELS).open("r+b") as file:
            file.write(header.getvalue())
            file.truncate(self.start + int(np.prod(shape, dtype=np.int64)))
            file.flush()
            os.fsync(file.fileno())


def _require_space(store: _Store, names: NDArray[np.str_], collection: Collection) -> None:
    there = next(path for path in (store.folder, *store.folder.absolute().parents) if path.is_dir())
    needed = int(np.prod(store.shape, dtype=np.int64)) + names.nbytes + SPARE_BYTES
    needed += sum(labels.values.nbytes for labels in collection.labels)
    needed += 0 if collection.splits is None else collection.splits.nbytes
    needed -= store.done * int(np.prod(store.shape[1:]))
    free = shutil.disk_usage(there).free
    if needed > free:
        raise UserError(
            f"the pack {store.folder} needs {needed / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB are free there: "
            "choose another disk with --out, or a smaller --image-size"
        )


def _finish(store: _Store, collection: Collection, names: NDArray[np.str_]) -> dict[str, Any]:
    """Names, labels and splits; pack.json last, once all of them are on the disk."""
    kept = np.setdiff1d(np.arange(len(names)), [entry["row"] for entry in store.unreadable])
    if len(kept) == 0:
        raise UserError(
            f"{collection.name}: none of {len(names)} images can be decoded; {store.unreadable[0]['reason']}"
        )
    if len(kept) < len(names):
        store.cut(len(kept))
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
            "bytes": json.loads((folder / UNFINISHED).read_text(encoding="utf-8"))["bytes"],
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
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if not is_trace(path) and path.name != UNFINISHED)
