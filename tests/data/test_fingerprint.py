from __future__ import annotations

import dataclasses
import json
import shutil
import unicodedata
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emoreg.config.contents import Contents
from emoreg.config.schema import StimuliSettings, TargetSettings
from emoreg.data import fingerprint
from emoreg.data.fingerprint import checksum_of_images, contents_of, contents_of_tables
from emoreg.data.images.files import File, list_files
from emoreg.data.images.packed import PackedImages
from emoreg.data.images.table import Item, Table
from emoreg.data.tools.pack import pack
from emoreg.runtime.progress import Progress

LABELS = "path,emotion\na.png,awe\nb.png,fear\n"


def of(root: Path | str, name: str = "folder") -> Contents:
    found = contents_of(TargetSettings(name, str(root)))
    assert found is not None
    return found


def zipped(folder: Path, path: Path, above: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*"), reverse=True):  # in another order
            if file.is_file():
                archive.write(file, f"{above}{file.relative_to(folder).as_posix()}")
    return path


def test_a_fingerprint_does_not_depend_on_the_place_of_a_set(
    image_folder: Path, image_zip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = of(image_folder)
    assert first.files == 32 and first.bytes == sum(path.stat().st_size for path in image_folder.rglob("*.png"))
    (tmp_path / "link").symlink_to(image_folder)
    shutil.copytree(image_folder, tmp_path / "elsewhere" / "copy")
    bare = zipped(image_folder, tmp_path / "bare.zip")
    wrapped = zipped(image_folder, tmp_path / "wrapped.zip", above="a/b/")
    for other in (image_zip, bare, wrapped, tmp_path / "link", tmp_path / "elsewhere" / "copy", f"{image_folder}/."):
        assert of(other) == first, other
    monkeypatch.chdir(image_folder.parent)
    assert of(image_folder.name) == of(f"./{image_folder.name}/") == first
    image_folder.rename(tmp_path / "renamed")
    assert of("renamed") == first and contents_of(TargetSettings("folder", str(image_folder))) is None


def test_a_fingerprint_does_not_depend_on_the_unicode_form_of_names(
    tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    for form in ("NFC", "NFD"):
        for name in ("Bär", "Zoë"):
            write_image(tmp_path / form / unicodedata.normalize(form, name) / "1.png", size=(8, 8)).write_bytes(b"one")
    assert of(tmp_path / "NFC") == of(tmp_path / "NFD")


def test_a_fingerprint_of_pixels_does_not_depend_on_their_memory_layout() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)
    labels = np.arange(6)
    first = contents_of_tables([Table("t", pixels, labels), None], ["a"])
    assert first is not None and (first.files, first.bytes) == (6, pixels.nbytes)
    strided = np.repeat(pixels, 2, axis=2)[:, :, ::2]
    packed = PackedImages(pixels[::-1], np.array(list("abcdef")), labels[::-1])
    for images in (strided, packed):
        assert contents_of_tables([Table("u", images, labels), None], ["a"]) == first
    others = [[Table("t", pixels[::-1], labels), None], [None, Table("t", pixels, labels)]]
    assert all(contents_of_tables(other, ["a"]) != first for other in others)
    assert contents_of_tables([Table("t", pixels, labels), None], ["b"]) != first


def test_items_of_a_library_have_no_fingerprint_and_are_not_decoded() -> None:
    def fetch(index: int) -> Image.Image:
        raise AssertionError(f"item {index} is decoded")

    items = Table("hub", [Item("hub", index, fetch) for index in range(2)], np.arange(2))
    pixels = Table("t", np.zeros((2, 4, 4, 3), np.uint8), np.arange(2))
    assert contents_of_tables([pixels, items], ["a"]) is None and checksum_of_images(items) is None


def test_the_checksum_of_images_ignores_order_and_labels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)
    first = checksum_of_images(Table("t", pixels, np.arange(6)))
    assert first == checksum_of_images(Table("u", pixels[::-1], np.zeros(6, np.int64))) is not None
    assert first != checksum_of_images(Table("t", pixels[:5], np.arange(5)))


def test_the_checksum_of_images_depends_on_the_content_of_files(tmp_path: Path) -> None:
    def checksum(folder: str, contents: Sequence[bytes | None]) -> str | None:
        root = tmp_path / folder
        root.mkdir()
        for number, content in enumerate(contents):
            if content is not None:
                (root / f"{number}.bmp").write_bytes(content)
        files = [File(f"{number}.bmp", root) for number in range(len(contents))]
        return checksum_of_images(Table("t", files, np.arange(len(files))))

    clean = checksum("clean", [b"one", b"two"])
    assert clean is not None and checksum("in another order", [b"two", b"one"]) == clean
    assert checksum("damaged", [b"one", b"TWO"]) != clean
    assert checksum("with a dead link", [b"one", b"two", None]) == clean


def test_too_many_bytes_have_no_checksum_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table("t", np.zeros((2, 4, 4, 3), np.uint8), np.arange(2))
    assert checksum_of_images(table) is not None
    monkeypatch.setattr(fingerprint, "MAX_HASHED", 2 * 48 - 1)
    assert checksum_of_images(table) is None


def test_a_fingerprint_of_given_files_does_not_depend_on_their_place(
    image_folder: Path, image_zip: Path, tmp_path: Path
) -> None:
    def given(root: Path) -> Contents:
        files = sorted((file for file in list_files(root) if file.name.endswith(".png")), key=lambda file: file.name)
        found = contents_of_tables([Table("t", files, np.arange(len(files)))], [])
        assert found is not None
        return found

    first = given(image_folder)
    assert first.files == 32 and given(image_zip) == first
    shutil.copytree(image_folder, tmp_path / "copy")
    assert given(tmp_path / "copy") == first
    image = next((tmp_path / "copy").rglob("*.png"))
    image.write_bytes(image.read_bytes() + b"more")
    assert given(tmp_path / "copy") != first


def test_hidden_files_do_not_change_a_fingerprint(image_folder: Path) -> None:
    first = of(image_folder)
    for name in (".DS_Store", "train/Thumbs.db", "train/red/.lock", "__MACOSX/train/._0000.png"):
        (image_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (image_folder / name).write_text("x")
    assert of(image_folder) == first


def change(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def replaced(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"another image")


@pytest.mark.parametrize(
    "edit",
    [
        lambda root: (root / "train" / "red" / "0003.png").unlink(),
        lambda root: change(root / "train" / "red" / "9999.png", b"x"),
        lambda root: replaced(root / "train" / "red" / "0003.png"),
        lambda root: (root / "train" / "red" / "0003.png").rename(root / "train" / "blue" / "9999.png"),
        lambda root: (root / "test").rename(root / "val"),
        lambda root: change(root / "labels.csv", LABELS.replace("awe", "joy").encode()),  # of as many bytes
    ],
    ids=["removed", "added", "replaced", "of another class", "of another split", "labelled otherwise"],
)
def test_a_change_is_noticed_by_a_process_that_has_cached_the_fingerprint(
    edit: Callable[[Path], None], image_folder: Path
) -> None:
    (image_folder / "labels.csv").write_text(LABELS)
    first = of(image_folder)
    edit(image_folder)
    assert of(image_folder).sha256 != first.sha256


def test_images_in_a_folder_that_was_empty_are_noticed(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    assert of(tmp_path).files == 0
    write_image(tmp_path / "red" / "1.png")
    assert of(tmp_path).files == 1


def test_a_new_class_folder_in_a_split_is_noticed(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "train" / "red" / "1.png")
    assert of(tmp_path).files == 1
    write_image(tmp_path / "train" / "blue" / "1.png")
    assert of(tmp_path).files == 2


def test_a_set_with_one_split_differs_from_the_split_itself(image_folder: Path) -> None:
    shutil.rmtree(image_folder / "test")
    assert of(image_folder) != of(image_folder / "train")


def manifest(folder: Path, text: str, name: str = "manifest.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_a_fingerprint_of_a_manifest_ignores_how_paths_are_written(
    tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "set" / name)
    settings = StimuliSettings("manifest", str(manifest(tmp_path / "set", LABELS)))
    first = contents_of(settings)
    assert first is not None and first.files == 2

    def again(text: str, name: str = "manifest.csv", folder: str = "set") -> Contents | None:
        path = manifest(tmp_path / folder, text, name)
        return contents_of(dataclasses.replace(settings, root=str(path)))

    assert contents_of(dataclasses.replace(settings, root=str(tmp_path / "set"))) == first
    assert again(LABELS, "labels.csv") == first
    (tmp_path / "lists").mkdir()
    assert again(LABELS.replace("a.png", "../set/a.png").replace("b.png", "../set/b.png"), folder="lists") == first
    assert again(LABELS.replace("a.png", str(tmp_path / "set" / "a.png")), "absolute.csv") == first
    assert again(LABELS.replace("awe", "joy"), "joy.csv") != first
    assert again("path,emotion\nb.png,fear\na.png,awe\n", "order.csv") != first
    write_image(tmp_path / "set" / "a.png", size=(40, 40))
    assert again(LABELS) != first


def test_a_fingerprint_of_a_pack_depends_on_its_source_and_not_on_its_place(
    image_folder: Path, tmp_path: Path, quiet: Progress
) -> None:
    def made(out: str, root: Path = image_folder, size: int = 16) -> Path:
        return pack("folder", str(root), size, tmp_path / out, False, quiet).folder

    first = of(made("pack"))
    assert first.files == 32 and first == of(made("again"))
    assert of((tmp_path / "pack").rename(tmp_path / "moved")) == first != of(made("larger", size=32))
    change(
        image_folder / "train" / "red" / "0003.png", (image_folder / "train" / "red" / "0004.png").read_bytes() + b"\0"
    )
    assert of(made("changed")) != first
    about = json.loads((tmp_path / "moved" / "pack.json").read_text())
    for damaged in ("[]", "{}", json.dumps(about | {"identity": None}), json.dumps(about | {"unreadable": [1]})):
        (tmp_path / "moved" / "pack.json").write_text(damaged)
        assert contents_of(TargetSettings("folder", str(tmp_path / "moved"))) is None


def test_published_and_embedded_sets_are_identified_by_name(tmp_path: Path, image_folder: Path) -> None:
    for settings in (
        TargetSettings("digits"),
        TargetSettings("digits", "anything"),
        TargetSettings("cifar10"),
        TargetSettings("svhn", str(tmp_path)),
        TargetSettings("cifar10", str(tmp_path)),  # where it is downloaded to
        TargetSettings("hf:OWNER/NAME"),
        StimuliSettings("procedural"),
    ):
        assert contents_of(settings) == Contents(), settings
    assert of(image_folder, "cifar10").files == 32  # the same as images in folders


@pytest.mark.parametrize("root", ["missing", "empty.zip", "x" * 5000])
def test_unreadable_roots_have_no_fingerprint(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.zip").write_text("")
    assert contents_of(TargetSettings("folder", root)) is None
