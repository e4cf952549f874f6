from __future__ import annotations

import gc
import multiprocessing
import os
import struct
import time
import tracemalloc
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from emoreg.data.images import files
from emoreg.data.images.files import File, guessed_names, list_files, not_read
from emoreg.errors import UserError


def test_a_folder_and_its_zip_have_the_same_files(image_folder: Path, image_zip: Path) -> None:
    from_folder, from_zip = list_files(image_folder), list_files(image_zip)
    assert [f"flags/{file.name}" for file in from_folder] == [file.name for file in from_zip]
    assert [file.read() for file in from_folder] == [file.read() for file in from_zip]
    assert len(from_folder) == 32


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    for name in ("a.png", ".DS_Store", "__MACOSX/a.png", "sub/.hidden/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [file.name for file in list_files(tmp_path)] == ["a.png"]


def test_a_missing_root_and_a_broken_zip_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        list_files(tmp_path / "nowhere")
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(UserError, match=r"broken\.zip is neither a folder nor a readable zip"):
        list_files(tmp_path / "broken.zip")


def test_arrays_instead_of_image_files_are_refused_with_advice(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", np.zeros(3))  # a zip
    np.save(tmp_path / "mine.npy", np.zeros(3))
    for name in ("mine.npz", "mine.npy"):
        with pytest.raises(UserError, match=rf"{name} holds arrays, not image files: .* with emoreg\.write_pack"):
            list_files(tmp_path / name)


def test_a_zip_of_a_later_version_of_the_format_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "later.zip", "a.png")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 99  # version needed to extract, in the central directory
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"later\.zip is neither a folder nor a readable zip: zip file version 9\.9"):
        list_files(path)


def written(path: Path, *entries: str | zipfile.ZipInfo, content: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in entries:
            archive.writestr(entry, content)
    return path


@pytest.mark.parametrize(
    "name", ["../secret.png", "a/../../secret.png", "/secret.png", "C:\\secret.png", "..\\secret.png"]
)
def test_a_zip_that_names_files_outside_itself_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "in").mkdir()
    path = written(tmp_path / "in" / "evil.zip", name)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"evil\.zip: the entry '.*secret\.png' points outside the zip"):
        list_files(path)
    with pytest.raises(UserError, match="outside"):
        File(name, path).read()
    assert sorted(tmp_path.rglob("*")) == before


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return info


def method(number: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("a.png")
    info.compress_type = number
    return info


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([link("a.png")], r"the entry 'a\.png' is a link"),
        (["a.png", "a.png"], r"holds 'a\.png' twice"),
        (["a/b.png", "a\\b.png"], r"holds 'a/b\.png' twice"),
        ([method(zipfile.ZIP_LZMA)], r"'a\.png' is neither stored nor deflated"),
        ([zipfile.ZipInfo("")], "has an entry without a name"),
        (["a.png", "b.png", "c.png", "d.png"], "has 4 entries; the limit is 3"),
    ],
)
def test_malformed_zips_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: list[str | zipfile.ZipInfo], message: str
) -> None:
    monkeypatch.setattr(files, "MAX_ENTRIES", 3)
    with pytest.raises(UserError, match=rf"odd\.zip.*{message}") as caught:
        list_files(written(tmp_path / "odd.zip", *entries))
    assert "\n" not in str(caught.value)


def zip_without_flag(path: Path, *raw: bytes, extra: bytes = b"") -> Path:
    """A zip with these names, as written by programs that do not declare the encoding."""
    for number, name in enumerate(raw):
        assert len(name) >= 4
        info = zipfile.ZipInfo(f"{number:0{len(name)}}")
        info.extra = extra
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(info, b"x")
    content = path.read_bytes()
    for number, name in enumerate(raw):
        content = content.replace(f"{number:0{len(name)}}".encode(), name)
    path.write_bytes(content)
    return path


def test_names_that_are_valid_utf_8_are_read_as_such_without_the_flag(tmp_path: Path) -> None:
    path = zip_without_flag(tmp_path / "mac.zip", "bären/été.png".encode(), "猫/1.png".encode())
    assert [file.name for file in list_files(path)] == ["bären/été.png", "猫/1.png"]
    assert [file.read() for file in list_files(path)] == [b"x", b"x"] and guessed_names(path) == ()


@pytest.mark.parametrize("encoding", ["gbk", "shift_jis", "cp1252", "cp850"])
def test_names_that_are_not_utf_8_are_reported(tmp_path: Path, encoding: str) -> None:
    # 猫猫 in GBK, C3 A8 C3 A8, can be UTF-8 too; 狗狗 cannot.
    names = {"gbk": ("猫猫", "狗狗"), "shift_jis": ("猫", "犬")}.get(encoding, ("Bären", "Füchse"))
    path = zip_without_flag(tmp_path / "old.zip", *(f"{name}/1.png".encode(encoding) for name in names))
    assert [file.read() for file in list_files(path)] == [b"x", b"x"]
    (line,) = guessed_names(path)
    assert line.startswith("old.zip: its names are not UTF-8; 2 are read as code page 437") and "unzip -O" in line


def unicode_name(name: str, raw: bytes, version: int = 1) -> bytes:
    content = struct.pack("<BI", version, zlib.crc32(raw)) + name.encode()
    return struct.pack("<HHI", 0xCAFE, 4, 0) + struct.pack("<HH", 0x7075, len(content)) + content


@pytest.mark.parametrize("raw", ["狗狗/1.png".encode("gbk"), b"____/1.png"])
def test_the_field_for_unicode_names_is_used(tmp_path: Path, raw: bytes) -> None:
    path = zip_without_flag(tmp_path / "zip.zip", raw, extra=unicode_name("狗狗/1.png", raw))
    assert [(file.name, file.read()) for file in list_files(path)] == [("狗狗/1.png", b"x")]
    assert guessed_names(path) == ()


def test_names_that_declare_their_encoding_do_not_decide_on_the_others(tmp_path: Path) -> None:
    raw, others = "Bären/1.png".encode("cp850"), "Füch/2.png"  # of equal length
    # The second name has the field of the first, which does not belong to it.
    path = zip_without_flag(tmp_path / "a.zip", raw, others.encode(), extra=unicode_name("Bären/1.png", raw))
    assert [file.name for file in list_files(path)] == ["Bären/1.png", others]
    assert guessed_names(path) == ()


def test_the_field_for_unicode_names_is_checked(tmp_path: Path) -> None:
    path = zip_without_flag(tmp_path / "a.zip", b"dog/1.png", extra=unicode_name("cat/1.png", b"other"))
    assert [file.name for file in list_files(path)] == ["dog/1.png"]
    path = zip_without_flag(tmp_path / "b.zip", b"dog/1.png", extra=unicode_name("../1.png", b"dog/1.png"))
    with pytest.raises(UserError, match="outside"):
        list_files(path)


def test_files_that_are_not_read_are_counted_by_suffix(tmp_path: Path) -> None:
    for name in ("a.png", "b.JFIF", "c.heic", "d.HEIC", "e.txt", "f"):
        (tmp_path / name).write_bytes(b"x")
    (line,) = not_read(tmp_path, list_files(tmp_path))
    assert "left out 2 .heic, 1 .txt, 1 without a suffix: only .apng, .bmp," in line
    assert not_read(tmp_path, [File("a.png", tmp_path)]) == ()


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "secret.zip", "a.png")
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flags, in both headers
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"secret\.zip is encrypted \('a\.png'\); unpack it"):
        list_files(path)


def test_a_zip_bomb_is_refused_by_its_unpacked_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "bomb.zip", "a.png", "b.png", content=bytes(1_000_000))
    assert len(list_files(path)) == 2  # small archives have no limit
    monkeypatch.setattr(files, "FREE_EXPANSION_BYTES", 1_000_000)
    files._listed.cache_clear()
    with pytest.raises(UserError, match=r"bomb\.zip would unpack to [\d,]+ times its size, like a zip bomb"):
        list_files(path)
    monkeypatch.setattr(files, "MAX_EXPANDED_BYTES", 1_500_000)
    with pytest.raises(UserError, match=r"would unpack to 2,000,000 bytes; the limit is 1,500,000"):
        list_files(path)


def test_a_file_larger_than_its_zip_declares_is_never_unpacked_completely(tmp_path: Path) -> None:
    path = written(tmp_path / "liar.zip", "a.png", content=bytes(50_000_000))
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\x01\x02") + 24  # the size, in the directory
    content[start : start + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"cannot read .*liar\.zip/a\.png: Bad CRC"):
        list_files(path)[0].read()
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_damaged_content_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "damaged.zip", "a.png", content=bytes(range(256)) * 100)
    content = bytearray(path.read_bytes())
    content[50:60] = bytes(10)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*damaged\.zip/a\.png"):
        list_files(path)[0].read()


def test_only_a_few_zips_stay_open_and_a_changed_one_is_opened_again(tmp_path: Path) -> None:
    paths = [written(tmp_path / f"{number}.zip", "a.png", content=b"%d" % number) for number in range(20)]
    found = [list_files(path)[0] for path in paths]
    assert [file.read() for file in found] == [b"%d" % number for number in range(20)]
    assert files._opened.cache_info().currsize == files.MAX_OPEN_ZIPS
    written(paths[3], "a.png", content=b"new")
    os.utime(paths[3], ns=(1, 1))
    assert found[3].read() == b"new"


def test_threads_that_start_together_open_a_zip_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, check, opened = File("a.png", written(tmp_path / "a.zip", "a.png")), files._check_archive, list[Path]()

    def slow(path: Path, archive: zipfile.ZipFile) -> files._Directory:
        opened.append(path)
        time.sleep(0.2)
        return check(path, archive)

    monkeypatch.setattr(files, "_check_archive", slow)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(File.read, [file] * 8)) == [b"x"] * 8
    assert opened == [file.root]


def test_a_zip_that_is_refused_does_not_stay_open(tmp_path: Path) -> None:
    path = written(tmp_path / "odd.zip", "../a.png")
    with pytest.raises(UserError, match="outside") as caught:
        list_files(path)
    zips = [each for each in gc.get_objects() if type(each) is zipfile.ZipFile and each.filename == str(path)]
    assert all(each.fp is None for each in zips) and caught.value


def test_threads_read_one_zip_at_the_same_time(tmp_path: Path) -> None:
    contents = {f"{number}.png": bytes([number]) * 10_000 for number in range(100)}
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    with ThreadPoolExecutor(8) as pool:
        found = list_files(tmp_path / "a.zip") * 5
        assert [contents[file.name] for file in found] == list(pool.map(File.read, found))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_does_not_share_the_position_in_a_zip_nor_read_its_directory_again(tmp_path: Path) -> None:
    file = list_files(written(tmp_path / "a.zip", "a.png"))[0]
    assert file.read() == b"x"
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_opened_zips) == 0
        assert pool.apply(file.read) == b"x"
        assert pool.apply(_directories_read) == _directories_read()
    assert _opened_zips() > 0


def _opened_zips() -> int:
    return files._opened.cache_info().currsize


def _directories_read() -> int:
    return files._listed.cache_info().misses


def test_windows_separators_in_a_zip_are_read_as_folders(tmp_path: Path) -> None:
    path = written(tmp_path / "windows.zip", "images\\fear\\1.png")
    assert [(file.name, file.read(), file.size()) for file in list_files(path)] == [("images/fear/1.png", b"x", 1)]


@pytest.mark.parametrize("name", ["Gemütlich/猫 (1).png", "/".join(["n" * 200] * 8) + ".png", "a\nb.png"])
def test_unusual_names_are_read_and_shown_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder" / name).parent.mkdir(parents=True)
    (tmp_path / "folder" / name).write_bytes(b"x")
    for root in (tmp_path / "folder", written(tmp_path / "a.zip", name)):
        (file,) = list_files(root)
        assert (file.name, file.read()) == (name, b"x")
        assert "\n" not in str(file)
        with pytest.raises(UserError) as caught:
            File(file.name + "?", root).read()
        assert "\n" not in str(caught.value)


def test_names_with_broken_unicode_can_be_printed(tmp_path: Path) -> None:
    try:
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    (file,) = list_files(tmp_path)
    assert file.read() == b"x"
    assert str(file).encode().endswith(b"\\udcff.png")


def test_links_in_a_folder_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "set" / "fear").mkdir(parents=True)
    (tmp_path / "set" / "fear" / "1.png").write_bytes(b"x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "2.png").write_bytes(b"y")
    (tmp_path / "set" / "awe").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "fear" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "dead.png").symlink_to(tmp_path / "nowhere.png")
    assert [file.name for file in list_files(tmp_path / "set")] == ["awe/2.png", "dead.png", "fear/1.png"]
    with pytest.raises(UserError, match=r"cannot read .*dead\.png: No such file"):
        File("dead.png", tmp_path / "set").read()


def test_a_file_larger_than_the_limit_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 1000)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.png", bytes(100_000))
    with pytest.raises(UserError, match=r"zeros\.png is 100,000 bytes; the limit"):
        list_files(path)[0].read()
