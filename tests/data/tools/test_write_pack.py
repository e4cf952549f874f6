"""Images and labels given in Python are packed, and read back equal."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import LABELS_OF, Fit, StimuliSettings, TargetSettings, Task
from emoreg.data.fingerprint import contents_of
from emoreg.data.images.files import list_files
from emoreg.data.images.image_set import load_images
from emoreg.data.images.table import Item, Table
from emoreg.data.stimuli import read_stimuli
from emoreg.data.stimuli.emotion import EmotionSpace
from emoreg.data.targets import read_target
from emoreg.data.targets.target import Target
from emoreg.data.tools import pack as packing
from emoreg.data.tools.catalogue import read_set
from emoreg.data.tools.contact_sheet import caption, draw_sheet
from emoreg.data.tools.verify import verify
from emoreg.data.tools.write_pack import write_pack
from emoreg.runtime.progress import Progress
from emoreg.stages.classify import train
from emoreg.stages.pretrain import pretrain
from refusing import refusal

SIZE = 16
ODD_NAMES = ("a/b", "..", "A", "a", "é, ü: x")  # a pack stores names as text, not as folders
SPACES = (
    EmotionSpace("category", ("cat", "a/b")),
    EmotionSpace("votes", ("joy", "fear", "..")),
    EmotionSpace("dimensions", ("valence", "arousal")),
)
TASKS: tuple[Task, ...] = ("classification", "multilabel", "regression")


def pixels(count: int, seed: int = 0, size: int = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def stacked(images: Any) -> NDArray[np.uint8]:
    return np.stack(list(images))


def labels_of(task: Task, count: int, seed: int = 0) -> NDArray[Any]:
    draw = np.random.default_rng(seed)
    if task == "classification":
        return np.arange(count) % len(ODD_NAMES)
    values = draw.normal(size=(count, len(ODD_NAMES))).astype(np.float32)
    return values if task == "regression" else (values > 0.5).astype(np.float32)


def a_target(task: Task = "classification", seed: int = 0) -> Target:
    parts = [Table("mine", pixels(count, seed + count), labels_of(task, count)) for count in (40, 20, 15)]
    return Target(parts[0], parts[1], ODD_NAMES, parts[2], task=task)


def stimuli_in(space: EmotionSpace, count: int = 24) -> tuple[Table, EmotionSpace]:
    draw, width = np.random.default_rng(1), len(space.names)
    shares = draw.random((count, width), dtype=np.float32)
    labels = np.arange(count) % width if space.kind == "category" else shares
    return Table(f"my {space.kind}", pixels(count), labels), space


@pytest.mark.parametrize("task", TASKS)
def test_a_target_is_read_back_equal(task: Task, tmp_path: Path, quiet: Progress) -> None:
    given = a_target(task)
    settings = write_pack(given, tmp_path / "pack", progress=quiet)
    expected = {"name": "folder", "root": str(tmp_path / "pack"), "image_size": SIZE}
    assert settings == expected | ({} if task == "classification" else {"labels": LABELS_OF[task]})
    read = read_target(TargetSettings(**settings))
    assert (read.classes, read.task) == (given.classes, given.task)
    assert read.validation is not None and given.validation is not None
    pairs = ((given.train, read.train), (given.test, read.test), (given.validation, read.validation))
    for one, other in pairs:
        assert one.name == other.name and one.labels.dtype == other.labels.dtype
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(stacked(one.images), stacked(other.images))


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.kind)
def test_stimuli_are_read_back_equal(space: EmotionSpace, tmp_path: Path, quiet: Progress) -> None:
    table, _ = given = stimuli_in(space)
    splits = ["train", "val", "test"] * 8
    settings = write_pack(given, tmp_path / "pack", splits=splits, progress=quiet)
    assert settings == {"name": "manifest", "root": str(tmp_path / "pack"), "image_size": SIZE}
    read = read_stimuli(StimuliSettings(**settings), seed=0)
    assert read.name == table.name and read.splits == ["train", "validation", "test"] * 8
    (labels,) = read.labels
    assert labels.space == space and labels.values.dtype == table.labels.dtype
    np.testing.assert_array_equal(labels.values, table.labels)
    np.testing.assert_array_equal(stacked(read.images), table.images)
    assert read_stimuli(StimuliSettings(**write_pack(given, tmp_path / "whole", progress=quiet)), 0).splits is None


def test_images_are_named_by_their_rows_in_the_given_tables(tmp_path: Path, quiet: Progress) -> None:
    root = str(
        write_pack(stimuli_in(SPACE), tmp_path / "a", splits=["train", "val", "test"] * 8, progress=quiet)["root"]
    )
    stimuli = read_set("manifest", root)
    assert [stimuli.name_of(row) for row in range(24)] == [f"manifest[{row}]" for row in range(24)]
    target = read_set("folder", str(write_pack(a_target(), tmp_path / "b", progress=quiet)["root"]))
    parts = (("train", 40), ("validation", 15), ("test", 20))
    expected = [f"folder/{split}[{row}]" for split, count in parts for row in range(count)]
    assert [target.name_of(row) for row in range(75)] == expected


def test_splits_may_be_a_column_of_a_table(tmp_path: Path, quiet: Progress) -> None:
    splits = pd.Series(["train", "test"] * 12, index=range(100, 124))
    settings = write_pack(stimuli_in(SPACE), tmp_path / "pack", splits=splits, progress=quiet)
    assert read_stimuli(StimuliSettings(**settings), 0).splits == splits.tolist()


def test_images_of_another_size_are_resized_as_a_run_resizes_them(tmp_path: Path, quiet: Progress) -> None:
    wide = Table("mine", np.random.default_rng(0).integers(0, 256, (10, 12, 20, 3), np.uint8), np.arange(10) % 2)
    for fit in get_args(Fit):
        given = Target(wide.take(range(6)), wide.take(range(6, 10)), ("a", "b"))
        settings = write_pack(given, tmp_path / fit, 8, fit=fit, progress=quiet)
        assert settings.get("fit", "crop") == fit
        read = read_target(TargetSettings(**settings))
        loaded = load_images(given.test, 8, False, 1.0, quiet, fit).pixels
        assert loaded is not None
        np.testing.assert_array_equal(stacked(read.test.images), loaded.permute(0, 2, 3, 1).numpy())
    assert "image_size: must be given" in refusal(lambda: write_pack(given, tmp_path / "other"))


@pytest.mark.parametrize("task", TASKS)
def test_a_run_on_a_packed_target_equals_one_on_the_target(
    task: Task, tmp_path: Path, stage2: TrainRecipe, quiet: Progress
) -> None:
    given = a_target(task)
    base = TargetSettings(image_size=SIZE)
    one = train(dataclasses.replace(stage2, target=base), tmp_path / "given", data=given, progress=quiet)
    settings = TargetSettings(**write_pack(given, tmp_path / "pack", progress=quiet))
    other = train(dataclasses.replace(stage2, target=settings), tmp_path / "packed", progress=quiet)
    assert_equal_runs(one, other)
    assert one.final["test"] == other.final["test"]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.kind)
def test_a_run_on_packed_stimuli_equals_one_on_the_stimuli(
    space: EmotionSpace, tmp_path: Path, stage1: PretrainRecipe, quiet: Progress
) -> None:
    given = stimuli_in(space)
    base = StimuliSettings(image_size=SIZE)
    one = pretrain(dataclasses.replace(stage1, stimuli=base), tmp_path / "given", given, quiet)
    settings = StimuliSettings(**write_pack(given, tmp_path / "pack", progress=quiet))
    other = pretrain(dataclasses.replace(stage1, stimuli=settings), tmp_path / "packed", progress=quiet)
    assert_equal_runs(one, other)
    times = ("seconds",)
    assert {**one.final, **dict.fromkeys(times)} == {**other.final, **dict.fromkeys(times)}


def assert_equal_runs(one: Any, other: Any) -> None:
    weights, others = one.weights()[0], other.weights()[0]
    assert weights.keys() == others.keys() and all((weights[name] == others[name]).all() for name in weights)


def test_other_pixels_with_the_same_labels_are_another_set(tmp_path: Path, quiet: Progress) -> None:
    settings = write_pack(a_target(), tmp_path / "pack", progress=quiet)
    assert write_pack(a_target(), tmp_path / "pack", progress=quiet) == settings  # of the same data: left as it is
    other = a_target(seed=1)
    message = refusal(lambda: write_pack(other, tmp_path / "pack", progress=quiet))
    assert message.endswith("pack holds another pack: choose another folder, or delete that one")
    copy = write_pack(a_target(), tmp_path / "copy", progress=quiet)
    third = write_pack(other, tmp_path / "other", progress=quiet)
    first, second, changed = (contents_of(TargetSettings(**each)) for each in (settings, copy, third))
    assert first == second != changed


def test_an_interrupted_pack_is_resumed_by_the_same_call(
    tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(packing, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        write_pack(a_target(), tmp_path / "pack", progress=quiet)
    unfinished = TargetSettings("folder", str(tmp_path / "pack"), image_size=SIZE)
    assert refusal(lambda: read_target(unfinished)).endswith("pack the same set into it again to resume")
    write_pack(a_target(), tmp_path / "pack", progress=quiet)
    assert len(read_target(unfinished).train) == 40


def test_an_unfinished_pack_of_other_images_is_replaced(
    tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(packing, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        write_pack(a_target(), tmp_path / "pack", progress=quiet)
    other = a_target(seed=1)
    read = read_target(TargetSettings(**write_pack(other, tmp_path / "pack", progress=quiet)))
    np.testing.assert_array_equal(stacked(read.train.images), other.train.images)


def test_the_disk_may_fill_up(tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packing._Store, "add", full)
    message = refusal(lambda: write_pack(a_target(), tmp_path / "pack", progress=quiet))
    assert "cannot write the pack" in message and "No space left on device" in message


@pytest.mark.parametrize("task", TASKS)
def test_packed_targets_can_be_checked_and_shown(task: Task, tmp_path: Path, quiet: Progress) -> None:
    root = str(write_pack(a_target(task), tmp_path / "pack", progress=quiet)["root"])
    findings = verify("folder", root, quiet)
    assert findings.is_clean and findings.images == 75
    if task == "classification":
        assert findings.counts["a/b"] == {"train": 8, "validation": 3, "test": 4}
    else:
        values = labels_of(task, 20)[:, 0]
        assert findings.ranges["a/b"]["test"] == pytest.approx((values.min(), values.mean(), values.max()))
    assert draw_sheet(read_set("folder", root), 8).startswith(b"\x89PNG")


def test_packed_stimuli_can_be_checked_and_shown(tmp_path: Path, quiet: Progress) -> None:
    for space in SPACES:
        root = str(write_pack(stimuli_in(space), tmp_path / space.kind, progress=quiet)["root"])
        assert verify("manifest", root, quiet).is_clean
        assert draw_sheet(read_set("manifest", root), 8).startswith(b"\x89PNG")


def test_the_caption_of_an_image_names_all_its_labels(tmp_path: Path, quiet: Progress) -> None:
    target = a_target("multilabel")
    (labels,) = read_set("folder", str(write_pack(target, tmp_path / "pack", progress=quiet)["root"])).labels
    for row in range(5):
        named = [name for name, has in zip(ODD_NAMES, target.train.labels[row], strict=True) if has]
        assert caption(labels, row) == ", ".join(named)


def test_a_pack_is_read_only_as_its_own_task(tmp_path: Path, quiet: Progress) -> None:
    root = str(write_pack(a_target("multilabel"), tmp_path / "pack", progress=quiet)["root"])
    message = refusal(lambda: read_target(TargetSettings("folder", root, image_size=SIZE)))
    assert message.startswith("target.root: ")
    assert message.endswith("several labels per image; as a target it needs target.labels multilabel")
    classes = str(write_pack(a_target(), tmp_path / "classes", progress=quiet)["root"])
    message = refusal(lambda: read_target(TargetSettings("folder", classes, image_size=SIZE, labels="dimensions")))
    assert message.endswith("one class per image; as a target it needs target.labels majority")


def test_a_damaged_multilabel_pack_is_refused(tmp_path: Path, quiet: Progress) -> None:
    settings = TargetSettings(**write_pack(a_target("multilabel"), tmp_path / "pack", progress=quiet))
    about = json.loads((tmp_path / "pack" / "pack.json").read_text())
    (tmp_path / "pack" / "pack.json").write_text(json.dumps(about | {"title": "a\x1b[2J"}))
    assert "its title has control characters" in refusal(lambda: read_target(settings))
    (tmp_path / "pack" / "pack.json").write_text(json.dumps(about))
    np.save(tmp_path / "pack" / "labels-multilabel.npy", np.full((75, 5), 2, np.float32))
    assert "labels-multilabel.npy does not fit 5 names" in refusal(lambda: read_target(settings))


SPACE = SPACES[2]


def table_of(images: Any) -> Table:
    return Table("mine", images, np.arange(len(images)))


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (lambda: Table("mine", pixels(4), np.arange(3)), {}, "mine: 4 images but 3 labels"),
        (lambda: table_of(pixels(4) / 255), {}, "mine: images must be uint8 (N, H, W, 3)"),
        (lambda: "shapes", {}, "data: must be (emoreg.Table, emoreg.EmotionSpace), not str"),
        (
            lambda: (Table("mine", pixels(2), np.array([[0, 0], [np.nan, 0]], np.float32)), SPACE),
            {},
            "mine: label out of range in row 1",
        ),
        (
            lambda: dataclasses.replace(
                a_target("regression"), test=Table("mine", pixels(1), np.full((1, 5), np.nan, np.float32))
            ),
            {},
            "mine: labels must be finite",
        ),
        (lambda: stimuli_in(EmotionSpace("category", ("a\nb", "c"))), {}, "data: names must not be empty or contain"),
        (lambda: dataclasses.replace(a_target(), classes=("a", "b", "c", "d", "a")), {}, "data.classes: must name"),
        (
            lambda: dataclasses.replace(a_target(), classes=("é", "e\u0301", "c", "d", "f")),
            {},
            "mine: two classes are called 'é', in two Unicode forms",
        ),
        (
            lambda: dataclasses.replace(a_target(), classes=("", "b", "c", "d", "a")),
            {},
            "data.classes[0]: must be text",
        ),
        (a_target, {"splits": ["train"] * 40}, "splits: must be None for a target"),
        (lambda: stimuli_in(SPACE), {"splits": ["train"]}, "splits: must name the split of each of the 24 images, not"),
        (
            lambda: stimuli_in(SPACE),
            {"splits": "train"},
            "splits: must be a word for each of the 24 images, not 'train'",
        ),
        (lambda: stimuli_in(SPACE), {"splits": 3}, "splits: must be a word for each of the 24 images, not 3"),
        (lambda: stimuli_in(SPACE), {"splits": ["trian"] * 24}, "splits: no split 'trian', in row 0 (did you mean"),
        (lambda: stimuli_in(SPACE), {"splits": ["test"] * 24}, "splits: must have images to train on"),
        (a_target, {"image_size": 4}, "image_size: must be 8 to 8,192 pixels, not 4"),
        (a_target, {"image_size": "16"}, "image_size: must be a whole number, not '16'"),
        (a_target, {"fit": "stretch"}, "fit: must be one of crop, pad, not 'stretch'"),
        (a_target, {"out": 3}, "out: must be a path, not 3"),
        (a_target, {"out": "a\0b"}, "root: must be text without null bytes"),
        (
            lambda: (
                Table("mine", [Item("lib", 0, lambda _: Image.new("RGB", (16, 16)))], np.zeros((1, 2), np.float32)),
                SPACE,
            ),
            {"image_size": 16},
            "mine: images that a library decodes when they are needed cannot be packed",
        ),
    ],
)
def test_bad_input_ends_in_a_line(data: Any, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    arguments = {"out": tmp_path / "pack", "progress": Progress(quiet=True), **options}
    assert refusal(lambda: write_pack(data(), **arguments)).startswith(message)
    assert not (tmp_path / "pack").exists()


def test_skipped_files_are_reported(
    tmp_path: Path, write_image: Callable[..., Path], quiet: Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        write_image(tmp_path / "files" / f"{number}.png")
    (tmp_path / "files" / "1.png").write_bytes(b"broken")
    given = Table("mine", list_files(tmp_path / "files"), np.zeros((3, 2), np.float32)), SPACE
    assert "in Python skip_unreadable=True" in refusal(lambda: write_pack(given, tmp_path / "pack", 8, progress=quiet))
    settings = write_pack(given, tmp_path / "pack", 8, skip_unreadable=True, progress=quiet)
    assert "pack: skipped 1 unreadable images; the first: cannot decode" in "".join(capsys.readouterr())
    assert len(read_stimuli(StimuliSettings(**settings), 0).images) == 2


def test_images_in_two_parts_and_classes_without_images_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, names = a_target(), (*ODD_NAMES, "extra")
    test, extra = given.train.take(range(8)), np.full(1, len(ODD_NAMES))
    train = Table(
        "mine", np.concatenate([stacked(given.train.images), pixels(1)]), np.append(given.train.labels, extra)
    )
    write_pack(Target(train, test, names), tmp_path / "pack", progress=Progress(details=False))
    shown = "".join(capsys.readouterr())
    assert "mine: 8 of its 8 test images are also among the training images" in shown
    assert "leaves 1 of its classes without test images: extra" in shown
    write_pack(Target(train, test, names), tmp_path / "pack", progress=Progress(details=False))
    assert "also among" not in "".join(capsys.readouterr())  # a finished pack is not read again
    write_pack(a_target(), tmp_path / "other", progress=Progress(details=False))
    assert "also among" not in "".join(capsys.readouterr())


def test_values_that_may_not_be_learned_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = a_target("regression")
    large = dataclasses.replace(given, train=dataclasses.replace(given.train, labels=given.train.labels * 100))
    write_pack(large, tmp_path / "pack", progress=Progress(details=False))
    assert "map them to about -1 to 1" in "".join(capsys.readouterr())


def test_a_target_without_readable_training_images_is_refused(
    tmp_path: Path, write_image: Callable[..., Path], quiet: Progress
) -> None:
    for number in range(4):
        write_image(tmp_path / "files" / f"{number}.png")
    for number in range(2):
        (tmp_path / "files" / f"{number}.png").write_bytes(b"broken")
    table = Table("mine", list_files(tmp_path / "files"), np.arange(4) % 2)
    given = Target(table.take([0, 1]), table.take([2, 3]), ("a", "b"))
    message = refusal(lambda: write_pack(given, tmp_path / "pack", 8, skip_unreadable=True, progress=quiet))
    assert message.startswith("folder: none of its train images can be decoded; cannot decode")


def test_other_files_are_left_alone(tmp_path: Path, quiet: Progress) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    assert "is not empty and holds no pack" in refusal(lambda: write_pack(a_target(), tmp_path, progress=quiet))


def test_a_line_says_how_to_use_the_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pack(a_target(), tmp_path / "pack", progress=Progress(details=False))
    shown = capsys.readouterr()
    line = "75 images of 16x16 pixels; use it as target: {name: folder, root: "
    assert line in shown.out + shown.err
