"""Malformed zips, images and packs."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from hostile.malformed import Content, Malformed
from pickles import Touches

RECIPE = {
    "recipe.yaml": "edition: 2\nbackbone: {name: resnet8}\ntraining: {epochs: 1, device: cpu, precision: 32-true}\n"
}
DEEP = 100_000  # levels of nesting


def pretrain(name: str, root: str) -> tuple[str, ...]:
    return "pretrain", "recipe.yaml", "--stimuli.name", name, "--stimuli.root", root, "--out", "run", "--quiet"


def train(root: str) -> tuple[str, ...]:
    return (
        *("train", "recipe.yaml", "--target.name", "folder", "--target.root", root, "--target.image_size", "8"),
        *("--out", "run", "--quiet"),
    )


def png(size: tuple[int, int] = (8, 8), seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def encoded(form: str, mode: str = "RGB", size: tuple[int, int] = (16, 16), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 50).convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


# Zips


def zipped(
    *entries: str | zipfile.ZipInfo, content: bytes | None = None, compression: int = zipfile.ZIP_STORED
) -> bytes:
    import warnings

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning about a duplicate name
        for number, entry in enumerate(entries):
            archive.writestr(entry, png(seed=number) if content is None else content)
    return buffer.getvalue()


def special(name: str, attributes: int = 0o100644, method: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr, info.compress_type = 3, attributes << 16, method
    return info


def patched(content: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    """Replace the bytes at an offset from the first occurrence of a signature."""
    start = content.index(signature) + offset
    return content[:start] + value + content[start + len(value) :]


NAMES = ("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png")
ENTRY, DIRECTORY, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"


def zips() -> Iterator[tuple[str, bytes, str]]:
    whole = zipped(*NAMES)
    yield "an empty file", b"", "set.zip"
    yield "text", b"not a zip", "set.zip"
    yield "the start of an entry alone", ENTRY + bytes(26), "set.zip"
    yield "no entries", zipped(), "set.zip"
    yield "cut in half", whole[: len(whole) // 2], "set.zip"
    yield "its end cut off", whole[:-10], "set.zip"
    yield "its beginning cut off", whole[100:], "set.zip"
    yield "a directory beyond the file", patched(whole, END, 16, b"\xff\xff\xff\x7f"), "set.zip"
    yield "a directory of another length", patched(whole, END, 12, b"\x07\0\0\0"), "set.zip"
    yield "entries of an unknown version", patched(whole, DIRECTORY, 6, b"\xff\0"), "set.zip"
    yield "nonsense for Zip64", patched(zipped(special64(NAMES[0])), DIRECTORY, 20, b"\xff" * 8), "set.zip"
    for what, name in (
        ("a name that leads outside", "../../evil.png"),
        ("a name that leads outside from within", "train/a/../../../evil.png"),
        ("an absolute name", "/tmp/evil.png"),
        ("a name with a drive", "C:\\evil.png"),
        ("a name that leads outside on Windows", "..\\..\\evil.png"),
    ):
        yield what, zipped(*NAMES, name), "evil.png"
    yield "a link", zipped(*NAMES, special("train/a/link.png", 0o120777)), "link.png"
    yield "a name twice", zipped(*NAMES, NAMES[0]), NAMES[0]
    yield "a name twice, on Windows too", zipped(*NAMES, NAMES[0].replace("/", "\\")), NAMES[0]
    yield "an encrypted entry", patched(patched(whole, ENTRY, 6, b"\x01"), DIRECTORY, 8, b"\x01"), NAMES[0]
    yield "an entry without a name", zipped(*NAMES, special("")), "set.zip"
    yield "a rare compression", zipped(special(NAMES[0], method=zipfile.ZIP_LZMA)), NAMES[0]
    yield "an unknown compression", patched(whole, DIRECTORY, 10, b"\x63\0"), NAMES[0]
    yield "a zip bomb by its declared size", patched(whole, DIRECTORY, 24, b"\xff\xff\xff\x7f"), "like a zip bomb"
    yield "a file over the limit", patched(whole, DIRECTORY, 24, (300 * 2**20).to_bytes(4, "little")), NAMES[0]
    yield "a size that is too small", patched(whole, DIRECTORY, 24, b"\x05\0\0\0"), NAMES[0]
    deflated = zipped(*NAMES, content=bytes(10**6), compression=zipfile.ZIP_DEFLATED)
    yield "a megabyte in an entry of ten declared bytes", patched(deflated, DIRECTORY, 24, b"\x0a\0\0\0"), NAMES[0]
    yield "a wrong checksum", patched(whole, DIRECTORY, 16, b"\1\2\3\4"), NAMES[0]
    yield "damaged content", patched(deflated, ENTRY, 60, bytes(20)), NAMES[0]
    yield "another name in the entry", patched(whole, ENTRY, 30, b"other"), NAMES[0]
    yield "zips within the zip", zipped("train/a/1.zip", "test/b/1.zip", content=whole), "set.zip"
    yield "folders alone", zipped("train/a/", "train/b/", content=b""), "set.zip"
    yield "a class for training alone", zipped("train/a/1.png", "train/b/1.png", "test/a/1.png"), "'b'"
    yield "one class", zipped("a/1.png", "a/2.png"), "'a'"
    yield (
        "a class with terminal codes",
        zipped(*(f"{c}/{n}.png" for c in ("a", "\x1b[31m") for n in range(5))),
        "[31m",
    )
    yield "no images", zipped("a/1.txt", "b/2.txt"), "set.zip"


def special64(name: str) -> zipfile.ZipInfo:
    info = special(name)
    info.extra = struct.pack("<HH", 1, 4) + b"\1\2\3\4"  # half a number
    return info


def zip_inputs() -> Iterator[Malformed]:
    for what, content, place in zips():
        yield Malformed("zip", what, RECIPE | {"set.zip": content}, train("set.zip"), place)
    outside = zipped("manifest.csv", content=b"path,emotion\n../../../etc/passwd,awe\n")
    yield Malformed(
        "zip",
        "a manifest that names a file outside",
        RECIPE | {"s.zip": outside},
        pretrain("manifest", "s.zip"),
        "row 2",
    )


# Images


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width: int, height: int, bits: int = 8, colour: int = 2, data: bytes = b"", more: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def images() -> Iterator[tuple[str, str, Content]]:
    whole = {form: encoded(form) for form in ("jpeg", "png", "gif", "webp", "bmp", "tiff")}
    yield "text", "x.jpg", b"not an image"
    yield "nothing", "x.png", b""
    yield "a web page", "x.png", b"<html><script>alert(1)</script></html>"
    yield "a drawing with a script", "x.png", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    yield "a pickle", "x.png", b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93."
    yield "a program in PostScript", "x.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nquit\n"
    yield "a zip", "x.png", zipped("a.png")
    for form, content in whole.items():
        suffix = {"jpeg": "jpg", "tiff": "tif"}.get(form, form)
        yield f"{form} cut in half", f"x.{suffix}", content[: len(content) // 2]
        yield f"{form}: the first bytes alone", f"x.{suffix}", content[:12]
        yield f"{form}: zeros behind the first bytes", f"x.{suffix}", content[:8] + bytes(200)
    yield "PNG of 60,000 x 60,000 pixels", "x.png", png_of(60_000, 60_000, data=zlib.compress(bytes(1000)))
    yield "PNG of 10,000 x 10,000 pixels", "x.png", png_of(10_000, 10_000, data=zlib.compress(bytes(1000)))
    yield "PNG of 2,000,000,000 x 1 pixels", "x.png", png_of(2_000_000_000, 1, data=zlib.compress(bytes(1000)))
    yield "PNG of 0 x 0 pixels", "x.png", png_of(0, 0, data=zlib.compress(b""))
    yield "PNG of an invalid colour type", "x.png", png_of(8, 8, colour=5, data=zlib.compress(bytes(300)))
    yield "PNG with 3 bits", "x.png", png_of(8, 8, bits=3, data=zlib.compress(bytes(300)))
    yield "PNG without pixels", "x.png", png_of(8, 8)
    yield "PNG with nonsense for pixels", "x.png", png_of(8, 8, data=b"nonsense" * 9)
    yield "PNG with a wrong checksum", "x.png", patched(whole["png"], b"IHDR", 13, b"\0\0\0\0")
    yield (
        "PNG with a text of 20 MB",
        "x.png",
        png_of(8, 8, data=zlib.compress(bytes(200)), more=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(20_000_000)))),
    )
    yield (
        "JPEG of 65,500 x 65,500 pixels",
        "x.jpg",
        patched(whole["jpeg"], b"\xff\xc0", 5, struct.pack(">HH", 65500, 65500)),
    )
    yield "GIF of 65,535 x 65,535 pixels", "x.gif", patched(whole["gif"], b"GIF8", 6, b"\xff\xff\xff\xff")
    yield (
        "BMP of 2,000,000,000 x 2,000,000,000 pixels",
        "x.bmp",
        patched(whole["bmp"], b"BM", 18, struct.pack("<ii", 2_000_000_000, 2_000_000_000)),
    )
    yield "BMP of -5 x 5 pixels", "x.bmp", patched(whole["bmp"], b"BM", 18, struct.pack("<ii", -5, 5))
    yield "TIFF whose directories form a circle", "x.tif", b"II*\0\x08\0\0\0\0\0\x08\0\0\0"
    yield "TIFF of 32-bit numbers", "x.tif", encoded("tiff", "F")
    yield "TIFF of 2,000,000,000 tags", "x.tif", b"II*\0\x08\0\0\0\xff\xff" + bytes(100)
    yield "a dead link", "x.png", lambda path: path.symlink_to("nowhere.png")
    yield "a link to itself", "x.png", lambda path: path.symlink_to(path.name)
    yield "a link to an endless file", "x.png", lambda path: path.symlink_to("/dev/zero")
    yield "a link to a pipe that nobody writes to", "x.png", _link_to_pipe


def _link_to_pipe(path: Path) -> None:
    os.mkfifo("pipe")
    path.symlink_to(Path("pipe").absolute())


def image_inputs() -> Iterator[Malformed]:
    good: dict[str, Content] = {f"set/{name}": png(seed=n) for n, name in enumerate(NAMES)}
    for what, name, content in images():
        files = RECIPE | good | {f"set/train/a/{name}": content}
        yield Malformed("image", what, files, (*train("set"), "--target.validation", "0"), f"set/train/a/{name}")


# Packs


def pack_into(path: Path) -> None:
    """Write a pack of four images of two classes, as `emoreg data pack folder` does."""
    path.mkdir()
    about = {
        "format": 1,
        "set": "folder",
        "title": "set",
        "kind": "target",
        "image_size": 8,
        "images": 4,
        "labels": [{"kind": "class", "names": ["a", "b"]}],
        "splits": True,
    }
    (path / "pack.json").write_text(json.dumps(about))
    np.save(path / "pixels.npy", np.zeros((4, 8, 8, 3), np.uint8))
    np.save(path / "names.npy", np.array(NAMES))
    np.save(path / "labels-class.npy", np.array([0, 1, 0, 1]))
    np.save(path / "splits.npy", np.array(["train", "train", "test", "test"]))


def saved(array: object, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=allow_pickle)
    return buffer.getvalue()


def about_with(**changes: object) -> Callable[[Path], bytes]:
    return lambda folder: json.dumps(json.loads((folder / "pack.json").read_text()) | changes).encode()


PACKS: tuple[tuple[str, str, bytes | Callable[[Path], bytes]], ...] = (
    ("text as description", "pack.json", b"pack"),
    ("an empty description", "pack.json", b""),
    ("a list for a description", "pack.json", b"[1, 2]"),
    ("a description nested deep", "pack.json", b'{"a": ' + b"[" * DEEP),
    ("a later format", "pack.json", about_with(format=2)),
    ("text for the format", "pack.json", about_with(format="1" * 5000)),
    ("no labels", "pack.json", about_with(labels=[])),
    ("labels of no known kind", "pack.json", about_with(labels=[{"kind": "../class", "names": ["a", "b"]}])),
    ("a number for the names", "pack.json", about_with(labels=[{"kind": "class", "names": 2}])),
    ("numbers for names", "pack.json", about_with(labels=[{"kind": "class", "names": [1, 2]}])),
    ("names with terminal codes", "pack.json", about_with(labels=[{"kind": "class", "names": ["a", "\x1b[2J"]}])),
    ("more images than there are", "pack.json", about_with(images=10**30)),
    ("a negative number of images", "pack.json", about_with(images=-4)),
    ("a size that is text", "pack.json", about_with(image_size="eight")),
    ("a size that is a list", "pack.json", about_with(image_size=[8])),
    ("pixels cut off", "pixels.npy", saved(np.zeros((4, 8, 8, 3), np.uint8))[:-50]),
    ("pixels of another type", "pixels.npy", saved(np.zeros((4, 8, 8, 3), np.float32))),
    ("pixels of another shape", "pixels.npy", saved(np.zeros((4, 8, 8), np.uint8))),
    ("pixels that are code", "pixels.npy", saved(np.array([Touches()] * 4), True)),
    ("pixels with code for a header", "pixels.npy", b"\x93NUMPY\x01\0\x10\0" + b"open('hacked','w')"),
    ("an endless header", "pixels.npy", b"\x93NUMPY\x02\0\xff\xff\xff\x7f" + bytes(100)),
    ("names that are code", "names.npy", saved(np.array([Touches()] * 4), True)),
    ("numbers for names of files", "names.npy", saved(np.zeros(4))),
    ("labels beyond the names", "labels-class.npy", saved(np.array([0, 1, 2, 9]))),
    ("labels below zero", "labels-class.npy", saved(np.array([0, 1, -7, 1]))),
    ("fractions for labels", "labels-class.npy", saved(np.array([0.0, 1.0, 0.5, np.nan]))),
    ("text for labels", "labels-class.npy", saved(np.array(["a", "b", "a", "b"]))),
    ("too few labels", "labels-class.npy", saved(np.array([0, 1]))),
    ("numbers for splits", "splits.npy", saved(np.zeros(4))),
)  # fmt: skip


def _pack_with(name: str, content: bytes | Callable[[Path], bytes]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        pack_into(path)
        (path / name).write_bytes(content(path) if callable(content) else content)

    return make


def pack_inputs() -> Iterator[Malformed]:
    for what, name, content in PACKS:
        yield Malformed("pack", what, RECIPE | {"set": _pack_with(name, content)}, train("set"), "set")


def set_inputs() -> Iterator[Malformed]:
    """All zips, images and packs."""
    yield from zip_inputs()
    yield from image_inputs()
    yield from pack_inputs()
