from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import EncoderSettings, RegulationSettings, StimuliSettings, TargetSettings
from emoreg.data.images.files import list_files
from emoreg.data.images.image_set import ImageSet, load_images
from emoreg.data.images.table import Table
from emoreg.data.stimuli.emotion import VALENCE_AROUSAL, EmotionSpace
from emoreg.errors import SettingError, UserError
from emoreg.runs.run import SEEN, Run
from emoreg.runtime.progress import Progress
from emoreg.stages.classify import train
from emoreg.stages.leaks import HEADER, checksums, read_seen, record_seen, refuse_leaks
from emoreg.stages.pretrain import pretrain
from listening import Listening
from narrow import pixels

SIZE = 16
SILENT = Progress(quiet=True)
RATINGS = np.linspace(-1, 1, 40, dtype=np.float32).reshape(20, 2)


def table(count: int = 20, seed: int = 0, size: int = SIZE) -> Table:
    draw = np.random.default_rng(seed)
    return Table("mine", draw.integers(0, 256, (count, size, size, 3), np.uint8), draw.integers(0, 2, count))


def loaded(images: Table, size: int = SIZE, limit: float = 1.0) -> ImageSet:
    return load_images(images, size, False, limit, SILENT)


def experience(folder: Path, *parts: ImageSet) -> Path:
    """The parts of a stage-1 run that matter here."""
    folder.mkdir()
    record_seen(Run(folder), parts, SILENT)
    return folder


def joined(*tables: Table) -> Table:
    images, labels = (np.concatenate([getattr(each, name) for each in tables]) for name in ("images", "labels"))
    return Table("mine", images, labels)


# Checksums


def test_checksums_are_those_of_the_pixels_in_memory_and_on_disk() -> None:
    held, read = loaded(table()), loaded(table(), limit=0.0)
    assert held.pixels is not None and read.pixels is None
    found = checksums(held, SILENT)
    assert found.dtype == np.uint64 and len(set(found.tolist())) == 20
    assert np.array_equal(found, checksums(read, SILENT))
    other = table()
    pixels(other.images)[3, 0, 0, 0] ^= 1
    assert (checksums(loaded(other), SILENT) != found).nonzero()[0].tolist() == [3]


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    parts = loaded(table()), loaded(table(5, seed=1))
    seen = read_seen(Run(experience(tmp_path / "run", *parts)))
    assert seen is not None and seen.image_size == SIZE
    assert sorted(np.concatenate([checksums(part, SILENT) for part in parts])) == seen.checksums.tolist()
    assert (tmp_path / "run" / SEEN).stat().st_size == HEADER.size + 25 * 8


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: b"", "is damaged"),
        (lambda content: content[:-1], "is damaged"),
        (lambda content: content + b"x", "is damaged"),
        (lambda content: b"PK" + content[2:], "is damaged"),
        (lambda content: content[:8] + b"\x09" + content[9:], "is of format 9, and this emoreg reads 1"),
        (lambda content: content[:12] + b"\0\0\0\0" + content[16:], "is damaged"),
        (lambda content: content[:16] + b"\xff" * 8 + content[24:], "is damaged"),
    ],
)
def test_a_damaged_file_is_an_error_in_one_line(tmp_path: Path, spoil: Callable[[bytes], bytes], message: str) -> None:
    run = Run(experience(tmp_path / "run", loaded(table())))
    (run.folder / SEEN).write_bytes(spoil((run.folder / SEEN).read_bytes()))
    with pytest.raises(UserError, match=message):
        read_seen(run)


def test_cifar_takes_less_than_a_second() -> None:
    draw = np.random.default_rng(0)
    images = loaded(Table("many", draw.integers(0, 256, (50_000, 32, 32, 3), np.uint8), np.zeros(50_000, np.int64)), 32)
    begun = time.process_time()
    checksums(images, SILENT)
    assert time.process_time() - begun < 1.5  # about 0.6 s, with room for a slow machine


# What is refused


def test_seen_test_images_are_counted_and_named(tmp_path: Path) -> None:
    test = table()
    run = experience(tmp_path / "run", loaded(joined(table(10, seed=1), test.take(np.array([2, 3, 5, 7])))))
    with pytest.raises(SettingError) as caught:
        refuse_leaks(run, loaded(test), table(seed=2), SILENT)
    assert caught.value.key == "encoder.experience"
    assert "trained on 4 of the 20 test images of mine (row 2, row 3, row 5, ...)" in str(caught.value)
    assert "choose other stimuli" in str(caught.value)


def test_training_images_of_the_target_may_be_seen(tmp_path: Path) -> None:
    heard, own = Listening(), table()
    refuse_leaks(experience(tmp_path / "run", loaded(own)), loaded(table(seed=1)), own, heard)
    assert heard.lines == []


def test_images_that_the_target_has_in_both_splits_do_not_count(tmp_path: Path) -> None:
    test, others = table(), table(seed=1)
    both = joined(others, test.take(np.array([4])))
    run = experience(tmp_path / "run", loaded(both))
    refuse_leaks(run, loaded(test), both, SILENT)
    with pytest.raises(SettingError, match="1 of the 20 test images"):
        refuse_leaks(run, loaded(test), others, SILENT)


@pytest.mark.parametrize(("stage1", "stage2"), [(16, 8), (8, 16), (16, 16)])
@pytest.mark.parametrize("limit", [1.0, 0.0], ids=["memory", "disk"])
def test_images_are_compared_at_the_size_of_stage_1(stage1: int, stage2: int, limit: float, tmp_path: Path) -> None:
    test = table(size=24)
    run = experience(tmp_path / "run", loaded(test.take(np.array([1])), stage1))
    with pytest.raises(SettingError, match=r"1 of the 20 test images of mine \(row 1\)"):
        refuse_leaks(run, loaded(test, stage2, limit), table(seed=1, size=24), SILENT)


def test_a_run_without_checksums_is_reported_as_not_checked(tmp_path: Path) -> None:
    heard = Listening()
    (tmp_path / "run").mkdir()
    refuse_leaks(tmp_path / "run", loaded(table()), table(seed=1), heard)
    assert len(heard.lines) == 1 and "not checked" in heard.lines[0] and "mine" in heard.lines[0]


# The two stages together


def after(stage2: TrainRecipe, run: Path, **target: Any) -> TrainRecipe:
    return dataclasses.replace(
        stage2,
        target=TargetSettings(**target),
        encoder=EncoderSettings(experience=str(run)),
        regulation=RegulationSettings("learned"),
        training=dataclasses.replace(stage2.training, epochs=1),
    )


def one_epoch(stage1: PretrainRecipe, **changes: Any) -> PretrainRecipe:
    return dataclasses.replace(stage1, training=dataclasses.replace(stage1.training, epochs=1), **changes)


def test_stage_1_records_the_images_that_it_trains_on(stage1: PretrainRecipe, tmp_path: Path, quiet: Progress) -> None:
    mine = Table("mine", table().images, RATINGS)
    union = one_epoch(stage1, also=(dataclasses.replace(stage1.stimuli, labels="polarity"),))
    run = pretrain(union, tmp_path / "run", (mine, VALENCE_AROUSAL), quiet)
    seen = read_seen(run)
    assert seen is not None and len(seen.checksums) == run.final["images"]
    every = checksums(loaded(table()), SILENT)
    assert np.isin(every, seen.checksums).sum() == run.final["sets"]["mine"]["train"] == 15


def test_a_start_that_failed_leaves_no_wrong_record(stage1: PretrainRecipe, tmp_path: Path, quiet: Progress) -> None:
    folder = tmp_path / "run"
    experience(folder, loaded(table()))
    (folder / "recipe.yaml").write_text("stimuli: {}\n")
    mine = Table("mine", table(seed=1).images, RATINGS)
    seen = read_seen(pretrain(one_epoch(stage1), folder, (mine, VALENCE_AROUSAL), quiet))
    assert seen is not None and not np.isin(checksums(loaded(table()), SILENT), seen.checksums).any()


def test_abstract_as_stimuli_for_abstract_as_target_is_refused_before_training(
    stage1: PretrainRecipe, stage2: TrainRecipe, tmp_path: Path, write_image: Callable[..., Path], quiet: Progress
) -> None:
    root = tmp_path / "abstract"
    lines = ["'','Amusement','Anger','Awe','Content','Disgust','Excitement','Fear','Sad'"]
    for number in range(1, 31):
        write_image(root / f"abstract_{number:04}.jpg")
        votes = (0, 0, 5, 0, 0, 0, 1, 0) if number % 2 else (0, 0, 1, 0, 0, 0, 5, 0)
        lines.append(f"'abstract_{number:04}.jpg',{','.join(map(str, votes))}")
    (root / "ABSTRACT_groundTruth.csv").write_text("\n".join(lines))
    stimuli = StimuliSettings("abstract", str(root), image_size=SIZE, labels="polarity")
    run = pretrain(one_epoch(stage1, stimuli=stimuli), tmp_path / "stage1", progress=quiet)
    recipe = after(stage2, run.folder, name="abstract", root=str(root), image_size=8, validation=0.0)
    with pytest.raises(SettingError, match=r"trained on \d of the 6 test images of abstract \(.*abstract_00"):
        train(recipe, tmp_path / "stage2", progress=quiet)
    assert not Run(tmp_path / "stage2").has_begun
    unseen = dataclasses.replace(recipe, target=dataclasses.replace(recipe.target, test=False, validation=0.2))
    assert train(unseen, tmp_path / "exploration", progress=quiet).is_finished  # its test split is not scored


def test_half_of_the_classes_can_be_stimuli_for_the_other_half(
    stage1: PretrainRecipe, stage2: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    half = StimuliSettings("digits", classes=("0", "1", "2", "3", "4"), image_size=8, limit=40)
    run = pretrain(one_epoch(stage1, stimuli=half), tmp_path / "stage1", progress=quiet)
    other = after(stage2, run.folder, name="digits", classes=("5", "6", "7", "8", "9"), image_size=8, limit=40)
    assert train(other, tmp_path / "stage2", progress=quiet).final["classes"] == list("56789")


def test_the_training_images_of_the_target_itself_are_allowed_but_not_its_test_images(
    stage1: PretrainRecipe, stage2: TrainRecipe, image_folder: Path, tmp_path: Path, quiet: Progress
) -> None:
    target = {"name": "folder", "root": str(image_folder), "image_size": 8}
    own = StimuliSettings("folder", str(image_folder), image_size=SIZE, validation=0.0)
    run = pretrain(one_epoch(stage1, stimuli=own), tmp_path / "allowed", progress=quiet)
    assert train(after(stage2, run.folder, **target), tmp_path / "goes", progress=quiet).is_finished
    images = loaded(Table("test", sorted(list_files(image_folder / "test"), key=str), np.zeros(8, np.int64)))
    assert images.pixels is not None
    leaked = Table("leaked", images.pixels.permute(0, 2, 3, 1).numpy(), np.arange(8) % 2)
    run = pretrain(one_epoch(stage1), tmp_path / "leaked", (leaked, EmotionSpace("category", ("a", "b"))), quiet)
    with pytest.raises(SettingError, match=r"of the 8 test images of flags .*, or leave these images out"):
        train(after(stage2, run.folder, **target), tmp_path / "refused", progress=quiet)
