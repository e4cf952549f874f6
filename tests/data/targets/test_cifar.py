"""Tests of CIFAR with small archives in the published layout, and with checksums of these."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
import urllib.error
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from emoreg.config.schema import TargetSettings
from emoreg.data.targets import read_target
from emoreg.data.targets.cifar import ARCHIVES, download_note, holds_image_folders
from emoreg.errors import UserError
from narrow import pixels

KINDS = (datasets.CIFAR10, datasets.CIFAR100)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds `cifar-10-python.tar.gz` as published, with 4 images a batch."""
    inner = tmp_path / "build" / "cifar-10-batches-py"
    inner.mkdir(parents=True)
    draw = np.random.default_rng(0)
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    for name in names:
        batch = {"data": draw.integers(0, 256, (4, 3072), dtype=np.uint8), "labels": [0, 1, 2, 9]}
        (inner / name).write_bytes(pickle.dumps(batch))
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (inner / "batches.meta").write_bytes(pickle.dumps({"label_names": classes}))
    root = tmp_path / "data"
    root.mkdir()
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(inner, inner.name)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(root / "cifar-10-python.tar.gz"))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[name, md5(inner / name)] for name in names[:5]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [[names[5], md5(inner / names[5])]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5(inner / "batches.meta")}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    return root


def test_the_published_archive_is_checked_unpacked_and_read(published: Path) -> None:
    target = read_target(TargetSettings(name="cifar10", root=str(published)))
    assert len(target.train) == 20 and len(target.test) == 4
    assert pixels(target.train.images)[0].shape == (32, 32, 3)
    assert target.test.labels.tolist() == [0, 1, 2, 9]
    assert target.classes[9] == "truck"


def test_a_download_is_announced_if_the_set_is_missing(published: Path, image_folder: Path) -> None:
    assert download_note("cifar10", str(published)) is None
    read_target(TargetSettings(name="cifar10", root=str(published)))
    (published / "cifar-10-python.tar.gz").unlink()
    assert download_note("cifar10", str(published)) is None and download_note("cifar100", str(image_folder)) is None
    told = download_note("cifar100", str(published))
    assert told == f"cifar100 is not in {published}: the first run downloads it there (169 MB)"
    assert all(file == kind.filename for kind, (_, file, _) in zip(KINDS, ARCHIVES.values(), strict=True))
    assert all(folder == kind.base_folder for kind, (folder, _, _) in zip(KINDS, ARCHIVES.values(), strict=True))


def test_other_folders_do_not_hide_the_archive(published: Path, write_image: Callable[..., Path]) -> None:
    write_image(published / "training-photos" / "cat" / "0.png")
    assert holds_image_folders("cifar100", published) is False
    for split in ("train", "test"):
        write_image(published / split / "cat" / "0.png")
    assert holds_image_folders("cifar100", published) is True
    assert len(read_target(TargetSettings(name="cifar10", root=str(published))).classes) == 10


def test_the_names_of_splits_may_have_other_words_in_common(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for split in ("train", "test"):
        assert not holds_image_folders("cifar10", tmp_path)
        for label in range(10):
            write_image(tmp_path / f"cifar10_{split}" / str(label) / "0.png")
    assert len(read_target(TargetSettings(name="cifar10", root=str(tmp_path))).train) == 10


def test_an_archive_with_a_wrong_checksum_is_not_opened(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", "0" * 32)

    def offline(*_arguments: object, **_options: object) -> None:
        raise urllib.error.URLError("offline")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(UserError, match=r"cifar10 can neither be read from .*cifar-10-python\.tar\.gz"):
        read_target(TargetSettings(name="cifar10", root=str(published)))
    assert not (published / "cifar-10-batches-py").exists()


def test_a_truncated_archive_is_refused_in_one_line(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = published / "cifar-10-python.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-1000])
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(archive))
    with pytest.raises(UserError, match=r"cifar10 can neither be read from .* nor downloaded there \(.*ended before"):
        read_target(TargetSettings(name="cifar10", root=str(published)))


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_arguments: object, **_options: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(UserError, match=r"cifar100 .*no route to host.*\.png as the root$") as caught:
        read_target(TargetSettings(name="cifar100", root=str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_a_zip_of_image_folders_is_read(
    image_folder: Path, image_zip: Path, write_image: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="2 classes; cifar10 has 10"):
        read_target(TargetSettings(name="cifar10", root=str(image_zip)))
    for split in ("train", "test"):
        for label in range(10):
            write_image(tmp_path / "ten" / "cifar10" / split / f"class{label}" / "0.png", size=(32, 32))
    assert len(read_target(TargetSettings(name="cifar10", root=str(tmp_path / "ten"))).classes) == 10
