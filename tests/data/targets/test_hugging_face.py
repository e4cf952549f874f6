"""Tests of sets that `datasets` writes and reads locally, without access to the Hub."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import extras
from emoreg.config.schema import TargetSettings
from emoreg.data.images.decode import decode
from emoreg.data.targets import Target, read_for_scoring, read_target
from emoreg.errors import UserError
from hub_sets import saved, split_of
from narrow import present

datasets = extras.load("hub", "datasets")
pytestmark = pytest.mark.extra("hub")

NAMES = ["cat", "dog", "eel"]


@pytest.fixture(autouse=True)
def _quiet_and_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def read(root: Path | None, name: str = "hf:me/pets", **settings: Any) -> Target:
    return read_target(TargetSettings(name=name, root=None if root is None else str(root), **settings))


def part(labels: Sequence[int | None], names: list[str] = NAMES, **columns: Any) -> Any:
    """A split of images whose brightness follows their label, with the given columns replaced."""
    named = {"label": (datasets.ClassLabel(names=names), labels)}
    return split_of([60 * (label or 0) for label in labels], named | columns)


def brightness(target: Target) -> list[list[int]]:
    return [[int(decode(i, 8)[0, 0, 0]) // 60 for i in table.images] for table in (target.train, target.test)]


def test_a_saved_set_is_read_with_its_splits_labels_and_classes(tmp_path: Path) -> None:
    target = read(saved(tmp_path / "pets", {"train": part([2, 0, 1]), "test": part([1, 2])}))
    assert target.classes == ("cat", "dog", "eel") and target.train.name == "hf:me/pets"
    assert target.train.labels.tolist() == [2, 0, 1] and target.test.labels.tolist() == [1, 2]
    assert brightness(target) == [[2, 0, 1], [1, 2]]
    assert str(target.test.images[1]) == "hf:me/pets/test[1]"


def test_parquet_files_are_read_as_stored_on_the_hub(tmp_path: Path) -> None:
    for split, labels in (("train", [0, 1, 2, 1]), ("test", [2])):
        (tmp_path / "pets" / "data").mkdir(parents=True, exist_ok=True)
        part(labels).to_parquet(tmp_path / "pets" / "data" / f"{split}-00000-of-00001.parquet")
    target = read(tmp_path / "pets")
    assert target.classes == ("cat", "dog", "eel") and brightness(target) == [[0, 1, 2, 1], [2]]


def test_an_image_folder_is_read(image_folder: Path) -> None:
    target = read(image_folder)
    assert target.classes == ("blue", "red") and (len(target.train), len(target.test)) == (24, 8)
    for image, label in zip(target.test.images, target.test.labels, strict=True):
        red, _, blue = decode(image, 8).mean(axis=(0, 1))
        assert (red > blue) == bool(label)
    (image_folder / "test" / "blue" / "0000.png").unlink()
    with pytest.raises(UserError, match=r"hf:me/pets/test\[0\]: .*blue/0000\.png"):
        decode(target.test.images[0], 8)


def test_a_validation_split_is_the_test_split_if_there_is_no_other(tmp_path: Path) -> None:
    splits = {"train": part([0, 1]), "validation": part([2])}
    both = read(saved(tmp_path / "both", {**splits, "test": part([1, 0])}))
    assert both.train.labels.tolist() == [0, 1] and both.test.labels.tolist() == [1, 0]
    assert present(both.validation).labels.tolist() == [2] and both.left_out == ()
    assert "validation from the split 'validation'" in both.notes[0]
    unlabelled = read(saved(tmp_path / "unlabelled", {**splits, "test": part([-1, -1])}))
    assert unlabelled.train.labels.tolist() == [0, 1] and unlabelled.test.labels.tolist() == [2]
    assert unlabelled.left_out == ("hf:me/pets: left out the split 'test', 2 images without labels",)


@pytest.mark.parametrize("split", ["train", "everything"])
def test_the_same_fifth_of_a_set_with_one_split_is_always_held_out(tmp_path: Path, split: str) -> None:
    root = saved(tmp_path / "pets", {split: part([0, 1, 2] * 10)})
    target, again = read(root), read(root)
    assert (
        np.bincount(target.train.labels).tolist() == [8, 8, 8] and np.bincount(target.test.labels).tolist() == [2] * 3
    )
    assert [str(image) for image in target.test.images] == [str(image) for image in again.test.images]
    assert not {str(image) for image in target.test.images} & {str(image) for image in target.train.images}
    datasets.load_from_disk(str(root))[split].save_to_disk(tmp_path / "one")  # a Dataset, not a DatasetDict
    assert len(read(tmp_path / "one").test) == 6


def test_columns_are_chosen_by_kind_then_by_name(tmp_path: Path) -> None:
    many: dict[str, Any] = {
        "coarse": (datasets.ClassLabel(names=["pet", "fish"]), [0, 1]),
        "mask": (datasets.Image(), [Image.new("L", (8, 8)), Image.new("L", (8, 8))]),
        "caption": (datasets.Value("string"), ["a", "b"]),
    }
    data = part([0, 2], **many)
    target = read(saved(tmp_path / "named", {"train": data, "test": data}))
    assert target.classes == ("cat", "dog", "eel") and brightness(target)[1] == [0, 2]
    renamed = data.rename_columns({"image": "img", "label": "fine_label"})
    assert read(saved(tmp_path / "cifar", {"train": renamed, "test": renamed})).classes == ("cat", "dog", "eel")
    for root, wrong, message in (
        ("labels", data.rename_column("label", "kind"), r"several class label columns \(kind, coarse\).*to 'label'"),
        ("images", data.rename_column("image", "photo"), r"several image columns \(photo, mask\).*to 'image'"),
        ("no-label", data.remove_columns(["label", "coarse"]), r"no class label column; its columns: image: Image"),
        ("no-image", data.remove_columns(["image", "mask"]), r"no image column.*caption: Value.*save_to_disk"),
    ):
        with pytest.raises(UserError, match=message):
            read(saved(tmp_path / root, {"train": wrong, "test": wrong}))


def test_inconsistent_splits_are_refused(tmp_path: Path) -> None:
    good = part([0, 1, 2])
    for root, splits, message in (
        ("none", {"train": part([0, None, 1]), "test": good}, r"row 1 of the split 'train' has no 'label'"),
        ("names", {"train": good, "test": part([0], names=["dog", "cat"])}, "'test' has other columns or classes"),
        ("column", {"train": good, "test": good.rename_column("image", "photo")}, "'test' has other columns"),
        ("split", {"first": good, "second": good}, "no split 'train', but first, second"),
    ):
        with pytest.raises(UserError, match=message):
            read(saved(tmp_path / root, splits))


def test_items_can_be_sent_to_worker_processes_and_read_by_threads(tmp_path: Path) -> None:
    labels = [number % 3 for number in range(60)]
    images = list(read(saved(tmp_path / "pets", {"train": part(labels), "test": part([0])})).train.images)
    assert [decode(image, 8)[0, 0, 0] // 60 for image in pickle.loads(pickle.dumps(images))] == labels
    with ThreadPoolExecutor(8) as pool:
        pixels = list(pool.map(lambda image: int(decode(image, 8)[0, 0, 0]) // 60, images * 10))
    assert pixels == labels * 10


def test_an_image_that_is_missing_or_broken_is_named_by_its_row(tmp_path: Path) -> None:
    rows = [None, {"bytes": b"no image", "path": None}]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    broken = datasets.Dataset.from_dict({"image": rows, "label": [0, 1]}, features=features)
    images = read(saved(tmp_path / "pets", {"train": part([0, 1, 2]), "test": broken})).test.images
    for row, message in enumerate(("the row has no image", "not an image in a known format")):
        with pytest.raises(UserError, match=rf"hf:me/pets/test\[{row}\]: {message}"):
            decode(images[row], 8)


def test_the_hub_gets_owner_name_and_configuration_and_no_code_is_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(*arguments: Any, **options: Any) -> Any:
        asked.append((arguments, options))
        return datasets.DatasetDict({"train": part([0, 1, 2]), "test": part([0, 1, 2])})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for name in ("hf:mnist", "hf:Me/Pets", "HF:Me/Pets/small"):
        assert len(read(None, name).test) == 3
    assert asked == [(("mnist", None), {}), (("Me/Pets", None), {}), (("Me/Pets", "small"), {})]
    for name in ("hf:", "hf:a/b/c/d", "hf:/b"):
        with pytest.raises(UserError, match="not of the form hf:OWNER/NAME"):
            read(None, name)


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (ConnectionError("Couldn't reach 'me/pets' on the Hub\n(LocalEntryNotFoundError)"), "Couldn't reach .*network"),
        (FileNotFoundError("Dataset 'me/pets' doesn't exist on the Hub"), "doesn't exist.*Check the name"),
        (
            ValueError("Config name is missing.\nPlease pick one of: ['a', 'b']"),
            r"'a', 'b'.*as hf:OWNER/NAME/CONFIG",
        ),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_an_error_of_the_hub_becomes_one_line(monkeypatch: pytest.MonkeyPatch, raised: Exception, message: str) -> None:
    def load_dataset(*_arguments: object) -> None:
        raise raised

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match=rf"^hf:me/pets could not be loaded \(.*{message}") as caught:
        read(None)
    assert "\n" not in str(caught.value)


def test_without_a_network_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"hf:me/pets could not be loaded .*set target\.root to a folder"):
        read(None)


def test_a_folder_that_cannot_be_loaded_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"target\.root: .*nowhere is not a folder"):
        read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"hf:me/pets could not be loaded from .*empty") as caught:
        read(tmp_path / "empty")
    assert "\n" not in str(caught.value)
    (tmp_path / "me" / "pets").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"there is a folder me/pets here"):
        read(None)


def test_code_in_a_folder_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets" / "pets.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')\n")
    with pytest.raises(UserError, match=r"hf:me/pets could not be loaded from"):
        read(tmp_path / "pets")
    assert not (tmp_path / "was-run").exists()


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'emoreg\[hub\]'"):
        read(None)


def test_classes_and_scoring_work_as_with_any_other_target(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    root = saved(tmp_path / "pets", {"train": part([0, 1, 2, 2]), "test": part([1, 2, 0])})
    target = read(root, classes=("eel", "cat"))
    assert target.train.labels.tolist() == [1, 0, 0] and brightness(target) == [[0, 2, 2], [2, 0]]
    settings = TargetSettings(name="hf:me/pets", root=str(root))
    assert read_for_scoring(settings, "hf:me/pets", ("cat", "dog", "eel")).labels.tolist() == [1, 2, 0]
