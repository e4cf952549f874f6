from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emoreg.config.schema import Fit, LabelChoice, StimuliSettings, TargetSettings
from emoreg.data.images.decode import decode
from emoreg.data.images.files import File
from emoreg.data.images.packed import Pack, open_pack
from emoreg.data.stimuli import read_stimuli
from emoreg.data.stimuli.stimulus_set import choose_labels
from emoreg.data.targets import read_target
from emoreg.data.tools import pack as packing
from emoreg.data.tools.pack import Packed, pack
from emoreg.errors import SettingError, UserError
from emoreg.runtime.lock import hold
from emoreg.runtime.progress import Progress

ABSTRACT = (
    "'','Amusement','Anger','Awe','Content','Disgust','Excitement','Fear','Sad'\n"
    "'abstract_0001.jpg',3,0,1,4,0,2,0,4\n"
    "'abstract_0002.jpg',0,5,1,0,2,0,3,1\n"
    "'abstract_0003.jpg',0,5,1,0,2,0,3,1\n"
)


@pytest.fixture
def abstract(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    for number in (1, 2, 3):
        write_image(tmp_path / "abstract" / f"abstract_{number:04}.jpg", (60 * number, 90, 200 - 30 * number))
    (tmp_path / "abstract" / "ABSTRACT_groundTruth.csv").write_text(ABSTRACT)
    return tmp_path / "abstract"


@pytest.fixture
def make(image_folder: Path, tmp_path: Path, quiet: Progress) -> Callable[..., Packed]:
    def call(skip_unreadable: bool = False, size: int = 8, out: Path = tmp_path / "pack") -> Packed:
        return pack("folder", str(image_folder), size, out, skip_unreadable, quiet)

    return call


def interrupt(*given: object) -> None:
    raise KeyboardInterrupt


def same(one: Pack, other: Pack) -> bool:
    arrays = [
        (one.images.pixels, other.images.pixels),
        (one.images.names, other.images.names),
        (one.labels[0].values, other.labels[0].values),
    ]
    return all(np.array_equal(left, right) for left, right in arrays)


def test_packed_votes_give_the_same_choices_of_labels(abstract: Path, tmp_path: Path, quiet: Progress) -> None:
    pack("abstract", str(abstract), 8, tmp_path / "pack", False, quiet)
    folder = read_stimuli(StimuliSettings("abstract", str(abstract), image_size=8), 0)
    opened = read_stimuli(StimuliSettings("abstract", str(tmp_path / "pack"), image_size=8), 0)
    choices: tuple[LabelChoice, ...] = ("published", "distribution", "majority", "polarity", "ekman")
    for choice in choices:
        (one, space, rows), (other, other_space, other_rows) = (
            choose_labels(stimuli, choice) for stimuli in (folder, opened)
        )
        assert space == other_space and rows.tolist() == other_rows.tolist()
        np.testing.assert_array_equal(one.labels, other.labels)


def test_all_kinds_of_labels_and_splits_are_kept(
    tmp_path: Path, write_image: Callable[..., Path], quiet: Progress
) -> None:
    (tmp_path / "set").mkdir()
    rows = ["path,emotion,valence,arousal,split"]
    for number, (emotion, split) in enumerate((("awe", "train"), ("fear", "val"), ("awe", "test"), ("fear", "train"))):
        write_image(tmp_path / "set" / f"{number}.png")
        rows.append(f"{number}.png,{emotion},{number / 10},-0.5,{split}")
    (tmp_path / "set" / "manifest.csv").write_text("\n".join(rows))
    pack("manifest", str(tmp_path / "set"), 8, tmp_path / "pack", False, quiet)
    folder, opened = (
        read_stimuli(StimuliSettings("manifest", str(root), image_size=8), 0)
        for root in (tmp_path / "set", tmp_path / "pack")
    )
    assert opened.splits == ["train", "validation", "test", "train"] == list(folder.splits or ())
    assert [each.space for each in opened.labels] == [each.space for each in folder.labels]
    for one, other in zip(folder.labels, opened.labels, strict=True):
        np.testing.assert_array_equal(one.values, other.values)
        assert one.values.dtype == other.values.dtype


def test_a_neutral_label_is_kept(tmp_path: Path, write_image: Callable[..., Path], quiet: Progress) -> None:
    root = tmp_path / "oasis"
    header, rows = (
        "Theme,Category,Valence_mean,Arousal_mean",
        [f"{n},{c},4,3" for n, c in (("a", "Scene"), ("b", "Person"))],
    )
    for name in ("a", "b"):
        write_image(root / "images" / f"{name}.jpg")
    (root / "OASIS.csv").write_text("\n".join([header, *rows]))
    pack("oasis", str(root), 8, tmp_path / "pack", False, quiet)
    neutral = read_stimuli(StimuliSettings("oasis", str(root), image_size=8), 0).neutral
    opened = read_stimuli(StimuliSettings("oasis", str(tmp_path / "pack"), image_size=8), 0)
    assert neutral is not None and opened.neutral is not None and neutral.space == opened.neutral.space
    assert opened.neutral.values.tolist() == neutral.values.tolist() == [1, 0]
    assert [labels.space.kind for labels in opened.labels] == ["dimensions"]


def test_pack_json_describes_the_pack(make: Callable[..., Packed], image_folder: Path) -> None:
    made = make()
    about = json.loads((made.folder / "pack.json").read_text())
    size = sum(path.stat().st_size for path in image_folder.rglob("*.png"))
    assert (about["format"], about["set"], about["kind"], about["image_size"]) == (1, "folder", "target", 8)
    assert about["labels"] == [{"kind": "class", "names": ["blue", "red"]}]
    assert about["source"] == {"root": str(image_folder), "images": 32, "bytes": size}
    assert (made.images, made.decoded, made.source_bytes, made.left_out) == (32, 32, size, [])
    assert sorted(path.name for path in made.folder.glob("[!.]*")) == [
        "labels-class.npy",
        "names.npy",
        "pack.json",
        "pixels.npy",
        "splits.npy",
    ]


def test_a_pack_of_padded_images_is_refused_for_cropped_ones(
    tmp_path: Path, write_image: Callable[..., Path], quiet: Progress
) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / "wide" / name / "1.png", size=(24, 8))
        write_image(tmp_path / "wide" / name / "2.png", size=(24, 8))
    pack("folder", str(tmp_path / "wide"), 8, tmp_path / "padded", False, quiet, fit="pad")
    opened = open_pack(tmp_path / "padded", "target", image_size=8, fit="pad")
    square = decode(File(opened.images.name(0), tmp_path / "wide"), 8, "pad")
    np.testing.assert_array_equal(opened.images[0], square)
    with pytest.raises(SettingError, match=r"target.fit: is crop, but .*padded is a pack of --fit pad; set it to pad"):
        open_pack(tmp_path / "padded", "target", image_size=8, fit="crop")


def test_a_finished_pack_is_not_made_again(make: Callable[..., Packed], monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    monkeypatch.setattr(packing, "_decode", None)
    again = make()
    assert again.seconds is None and again.images == 32


def test_an_interrupted_pack_resumes(
    make: Callable[..., Packed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(out=tmp_path / "whole")
    decode, decoded = packing._decode, [0]

    def interrupted(image: object, size: int, fit: Fit) -> object:
        decoded[0] += 1
        if str(image).endswith("test/red/0001.png"):  # image 30 of 32
            raise KeyboardInterrupt
        return decode(image, size, fit)

    monkeypatch.setattr(packing, "_decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make()
    assert not (tmp_path / "pack" / "pack.json").exists()
    with pytest.raises(UserError, match="is an unfinished pack: pack the same set into it again to resume"):
        read_target(TargetSettings("folder", str(tmp_path / "pack"), image_size=8))
    monkeypatch.setattr(packing, "_decode", decode)
    made = make()
    assert made.decoded == 16  # the first sixteen had been written
    assert same(open_pack(made.folder, "target"), open_pack(whole.folder, "target"))
    about = json.loads((made.folder / "pack.json").read_text())
    assert about["source"]["bytes"] == whole.source_bytes


def test_links_in_an_unfinished_pack_are_not_written_through(
    make: Callable[..., Packed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(packing, "_finish", interrupt)
        make()
    folder, mine = tmp_path / "pack", tmp_path / "mine"
    (folder / "pixels.npy").rename(mine)
    before = mine.read_bytes()
    for name in ("pixels.npy", "names.npy"):
        (folder / name).symlink_to(mine)
    made = make()
    assert made.decoded == made.images and mine.read_bytes() == before
    assert not any(path.is_symlink() for path in folder.iterdir())


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_a_killed_pack_resumes_with_the_same_result(
    make: Callable[..., Packed], image_folder: Path, tmp_path: Path
) -> None:
    program = f"""
        import os, signal
        from pathlib import Path
        from emoreg.data.tools import pack as packing
        from emoreg.runtime.progress import Progress
        packing.NOTED_EVERY_BYTES = 1
        decode = packing._decode
        def killed(image, size, fit):
            if str(image).endswith("test/red/0003.png"):
                os.kill(os.getpid(), signal.SIGKILL)
            return decode(image, size, fit)
        packing._decode = killed
        packing.in_threads = lambda work, rows, step: (
            (range(row, row + 1), work(range(row, row + 1))) for row in rows)
        packing.pack("folder", {str(image_folder)!r}, 8, Path({str(tmp_path / "pack")!r}), False, Progress(quiet=True))
    """
    paths = os.pathsep.join([str(Path(packing.__file__).parents[4]), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths}
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not (tmp_path / "pack" / "pack.json").exists()
    made = make()
    assert made.decoded == 1
    assert same(open_pack(made.folder, "target"), open_pack(make(out=tmp_path / "whole").folder, "target"))


def test_an_unfinished_pack_of_other_images_starts_over(
    make: Callable[..., Packed], image_folder: Path, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    (image_folder / "train" / "red" / "0011.png").write_bytes(b"broken")
    with pytest.raises(UserError):
        make()
    write_image(image_folder / "train" / "red" / "0011.png")
    write_image(image_folder / "train" / "red" / "0012.png")
    made = make(size=12)
    assert (made.decoded, made.images) == (33, 33)
    assert open_pack(made.folder, "target").images.image_size == 12


def test_a_finished_pack_is_not_that_of_images_that_were_replaced(
    make: Callable[..., Packed], image_folder: Path, write_image: Callable[..., Path]
) -> None:
    made = make()
    image = image_folder / "train" / "red" / "0000.png"
    write_image(image, (1, 2, 3), size=(20, 20))
    os.utime(image, (1, 1))
    with pytest.raises(UserError, match="pack of these images, but the sizes or times of some files are no longer"):
        make()
    about = json.loads((made.folder / "pack.json").read_text())
    del about["identity"]["files"]  # as in packs of earlier versions
    (made.folder / "pack.json").write_text(json.dumps(about))
    assert make().seconds is None


def test_an_unfinished_pack_is_completed_only_if_its_images_are_unchanged(
    make: Callable[..., Packed], image_folder: Path, write_image: Callable[..., Path]
) -> None:
    """29 of 32 images come before the one that cannot be decoded."""
    broken, packed = image_folder / "test" / "red" / "0001.png", image_folder / "train" / "blue" / "0000.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"broken")
    with pytest.raises(UserError, match="not an image"):
        make()
    write_image(packed, (1, 2, 3))
    os.utime(packed, (1, 1))
    with pytest.raises(UserError, match="not an image"):
        make()
    broken.write_bytes(whole)
    made = make()
    assert made.decoded == 3 and open_pack(made.folder, "target").images[0].max() < 40


def test_an_unreadable_image_stops_the_pack_unless_it_is_skipped(
    make: Callable[..., Packed], image_folder: Path, write_image: Callable[..., Path], tmp_path: Path
) -> None:
    broken = image_folder / "test" / "red" / "0002.png"
    broken.write_bytes(b"broken")
    with pytest.raises(UserError, match=r"red/0002\.png: not an image .*--skip-unreadable skips such images"):
        make()
    made = make(skip_unreadable=True)
    assert made.images == 31 and made.decoded == 2  # what came before it had been written
    (left_out,) = json.loads((made.folder / "pack.json").read_text())["unreadable"]
    assert left_out["name"] == "test/red/0002.png" and "not an image" in left_out["reason"]
    opened = open_pack(made.folder, "target")
    assert opened.images.pixels.shape == (31, 8, 8, 3) and "test/red/0002.png" not in opened.images.names
    broken.unlink()
    assert same(opened, open_pack(make(out=tmp_path / "without").folder, "target"))


def test_a_repaired_image_is_packed_by_a_later_call(
    make: Callable[..., Packed], image_folder: Path, write_image: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (image_folder / "train" / "blue" / "0000.png").write_bytes(b"broken")
    finish = packing._finish
    monkeypatch.setattr(packing, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        make(skip_unreadable=True)
    monkeypatch.setattr(packing, "_finish", finish)
    write_image(image_folder / "train" / "blue" / "0000.png")
    assert make().images == 32


def test_a_pack_that_was_killed_while_being_truncated_is_finished(
    make: Callable[..., Packed], image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (image_folder / "train" / "blue" / "0000.png").write_bytes(b"broken")
    save = np.save
    monkeypatch.setattr(np, "save", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        make(skip_unreadable=True)
    monkeypatch.setattr(np, "save", save)
    made = make(skip_unreadable=True)
    assert (made.images, made.decoded) == (31, 0)
    opened = open_pack(made.folder, "target")
    assert opened.images.name(0) == "train/blue/0001.png" and opened.images[0].max() > 0


def test_rows_without_an_image_stop_the_pack_unless_they_are_skipped(
    abstract: Path, tmp_path: Path, quiet: Progress
) -> None:
    (abstract / "abstract_0002.jpg").unlink()
    with pytest.raises(UserError, match=r"row 3: the image is missing, as in 1 rows in total \(--skip-unreadable"):
        pack("abstract", str(abstract), 8, tmp_path / "pack", False, quiet)
    assert pack("abstract", str(abstract), 8, tmp_path / "pack", True, quiet).images == 2


def test_a_full_disk_is_reported_before_the_pack_starts(
    make: Callable[..., Packed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 10**6))
    with pytest.raises(UserError, match=r"needs 0\.1 GiB, but 0\.0 GiB are free there: choose another disk"):
        make()
    assert not (tmp_path / "pack").exists()


def test_a_disk_that_fills_up_while_packing_is_reported_in_one_line(
    make: Callable[..., Packed], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_store: object, _pixels: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packing._Store, "add", full)
    with pytest.raises(
        UserError, match=r"cannot write the pack .*: No space left on device; run the same command again to resume"
    ):
        make()


def test_other_files_and_packs_are_not_overwritten(make: Callable[..., Packed], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="mine is not empty and holds no pack"):
        make(out=tmp_path / "mine")
    with pytest.raises(UserError, match=r"letter\.txt is not empty"):
        make(out=tmp_path / "mine" / "letter.txt")
    make()
    with pytest.raises(UserError, match="holds another pack: choose another folder, or"):
        make(size=16)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("procedural", 8, "nothing to pack"),
        ("folder", 4, "--image-size is 4; it must be at least 8"),
        ("foldre", 8, r"no set 'foldre' \(did you mean 'folder'\?\)"),
    ],
)
def test_sets_that_cannot_be_packed_are_refused(
    image_folder: Path, tmp_path: Path, quiet: Progress, name: str, size: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        pack(name, str(image_folder), size, tmp_path / "pack", False, quiet)


def test_a_pack_is_not_packed_again(make: Callable[..., Packed], tmp_path: Path, quiet: Progress) -> None:
    with pytest.raises(UserError, match="is a pack already"):
        pack("folder", str(make().folder), 8, tmp_path / "twice", False, quiet)


def test_sets_of_arrays_are_packed_too(tmp_path: Path, quiet: Progress) -> None:
    made = pack("digits", None, 16, tmp_path / "pack", False, quiet)
    target = read_target(TargetSettings("digits", str(made.folder), image_size=16))
    assert (len(target.train), len(target.test)) == (1348, 449)
    assert made.images == 1797 and made.source_bytes == 1797 * 8 * 8 * 3


@pytest.mark.parametrize("name", [".lock", ".holder.json", ".unfinished.json.123.part"])
def test_a_pack_that_was_killed_before_its_first_record_starts_over(
    make: Callable[..., Packed], tmp_path: Path, name: str
) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / name).touch()
    assert make().images == 32


def test_a_pack_that_was_killed_right_after_finishing_is_cleaned_up(
    make: Callable[..., Packed], tmp_path: Path
) -> None:
    folder = make().folder
    (folder / "unfinished.json").write_text("{}")
    assert make().seconds is None and not (folder / "unfinished.json").exists()


def test_an_interrupt_between_the_two_changes_of_leave_out_does_not_skip_an_image_twice(
    make: Callable[..., Packed], image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (image_folder / "test" / "red" / "0002.png").write_bytes(b"broken")

    def interrupted(store: packing._Store, row: int, name: str, reason: str) -> None:
        store.unreadable.append({"row": row, "name": name, "reason": reason})
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(packing._Store, "leave_out", interrupted)
        make(skip_unreadable=True)
    made = make(skip_unreadable=True)
    assert made.images == 31 and len(made.left_out) == 1
    assert open_pack(made.folder, "target").images[30].min() > 0


def test_two_processes_do_not_make_the_same_pack(make: Callable[..., Packed], tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    with hold(tmp_path / "pack"), pytest.raises(UserError, match=f"is being worked on by process {os.getpid()} on "):
        make()
    assert make().decoded == 32
