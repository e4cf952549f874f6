from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emoreg.config.schema import TargetSettings
from emoreg.data.images.table import Table
from emoreg.data.targets import human_labels as module
from emoreg.data.targets.human_labels import human_labels
from emoreg.data.targets.target import Target
from emoreg.data.targets.training_part import training_part
from emoreg.errors import SettingError, UserError
from listening import Listening
from narrow import present
from pickles import Touches, zipped

CLEAN = np.arange(40) % 10
WORSE = np.where(np.arange(40) % 4 == 0, (CLEAN + 1) % 10, CLEAN)
FILE = "CIFAR-10_human.pt"
Write = Callable[..., Path]


def settings(root: Path, **changes: Any) -> TargetSettings:
    return TargetSettings("cifar10", str(root), label_noise="worse", **changes)


def table(labels: np.ndarray = CLEAN) -> Table:
    return Table("cifar10", np.arange(len(labels) * 3, dtype=np.uint8).reshape(-1, 1, 1, 3), labels)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a file in the published format, and treat its labels as the published ones."""
    digest = hashlib.sha256(WORSE.astype("<i8").tobytes()).hexdigest()
    monkeypatch.setattr(module, "PUBLISHED", {"worse": ("worse_label", digest)})

    def written(folder: Path = tmp_path, **content: Any) -> Path:
        folder.mkdir(exist_ok=True)
        torch.save({"clean_label": CLEAN, "worse_label": WORSE} | content, folder / FILE)
        return folder / FILE

    return written


def test_labels_are_read_from_the_targets_folder_or_its_parent(write: Write, tmp_path: Path) -> None:
    write()
    assert human_labels(table(), settings(tmp_path)).tolist() == WORSE.tolist()
    assert human_labels(table(), settings(tmp_path / "pack")).tolist() == WORSE.tolist()


def test_training_images_get_noisy_labels_and_validation_images_do_not(write: Write, tmp_path: Path) -> None:
    write()
    target, heard = Target(table(), table(), tuple("0123456789")), Listening()
    train, validation = training_part(target, settings(tmp_path, validation=0.25), 0, progress=heard)
    rows = np.asarray(train.images)[:, 0, 0, 0] // 3
    assert train.labels.tolist() == WORSE[rows].tolist()
    held_out = np.asarray(present(validation).images)[:, 0, 0, 0] // 3
    assert present(validation).labels.tolist() == CLEAN[held_out].tolist()
    wrong = int((WORSE[rows] != CLEAN[rows]).sum())
    assert heard.lines == [f"cifar10: worse label noise: {wrong} of {len(train)} training labels are wrong"]


def test_images_in_another_order_or_number_are_refused(write: Write, tmp_path: Path) -> None:
    write()
    with pytest.raises(UserError, match=r"in their order: 36 of its 40 clean labels differ; read them from"):
        human_labels(table(np.sort(CLEAN)), settings(tmp_path))
    with pytest.raises(UserError, match="40 clean labels, not 20"):
        human_labels(table(CLEAN[:20]), settings(tmp_path))


def test_labels_that_were_not_published_are_refused(write: Write, tmp_path: Path) -> None:
    write(worse_label=CLEAN)
    with pytest.raises(UserError, match="worse_label are not the labels that were published; get the file from https"):
        human_labels(table(), settings(tmp_path))


def test_a_missing_file_is_named_with_its_source(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=rf"target\.label_noise: worse needs {FILE} in .* published at https"):
        human_labels(table(), settings(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no zip",
        zipped(b"no pickle"),
        zipped(pickle.dumps({"clean_label": Touches()})),
        zipped(b"0" * (17 * 2**20)),
        zipped(pickle.dumps({"clean_label": list(range(40))})),
        zipped(pickle.dumps([1, 2])),
    ],
    ids=["empty", "no zip", "no pickle", "code", "a bomb", "a list", "no names"],
)
def test_files_with_other_content_are_refused_and_nothing_is_run(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UserError, match=FILE):
        human_labels(table(), settings(tmp_path))
    assert not Path("hacked").exists()


@pytest.mark.parametrize("labels", [CLEAN.astype(float), CLEAN.reshape(4, 10), "clean", None])
def test_labels_of_the_wrong_type_are_refused(labels: Any, write: Write, tmp_path: Path) -> None:
    write(clean_label=labels)
    with pytest.raises(UserError, match=FILE):
        human_labels(table(), settings(tmp_path))
