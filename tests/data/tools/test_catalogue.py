from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emoreg.data.images.files import File
from emoreg.data.stimuli import SETS
from emoreg.data.targets import NAMES
from emoreg.data.tools.catalogue import TARGETS, Place, catalogue, find, places, read_set
from emoreg.data.tools.pack import pack
from emoreg.errors import UserError
from emoreg.runtime.progress import Progress


def test_every_set_is_in_the_catalogue_with_all_facts(tmp_path: Path) -> None:
    entries = catalogue(tmp_path)
    assert [entry.name for entry in entries] == ["procedural", *SETS, *TARGETS]
    assert set(NAMES) <= {entry.name for entry in entries}
    for entry in entries:
        about = entry.about
        assert all((about.title, about.size, about.labels, about.licence, about.source, about.layout)), entry.name
    assert [entry.name for entry in entries if entry.needs_no_files] == ["procedural", "digits"]


@pytest.mark.parametrize(
    ("there", "name", "found"),
    [
        ("oasis/", "oasis", True),
        ("oasis.zip", "oasis", True),
        ("OASIS-128.zip", "oasis", True),
        ("Diffused-EMOd/", "diffused_emod", True),
        ("diffused-emod-512px.zip", "diffused_emod", True),
        ("EmoSet-118K.ZIP", "emoset", True),
        ("emoset.tar", "emoset", False),
        ("emotion6.zip", "emod", False),
        ("cifar100.zip", "cifar10", False),
        (".oasis.zip", "oasis", False),
        ("folder/", "folder", False),
        ("dtd/", "dtd", False),  # made by torchvision, which looks for `data/dtd/dtd` from its root `data`
        ("MNIST/", "mnist", False),
    ],
)
def test_sets_are_found_by_their_names(tmp_path: Path, there: str, name: str, found: bool) -> None:
    path = tmp_path / there
    if there.endswith("/"):
        path.mkdir()
    else:
        path.touch()
    assert places(name, tmp_path) == ((Place(path),) if found else ())


def test_the_published_archive_of_cifar_is_found(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-python.tar.gz").touch()
    assert places("cifar10", tmp_path) == (Place(tmp_path),)
    assert places("cifar100", tmp_path) == ()


def test_packs_are_found_under_any_name(image_folder: Path, tmp_path: Path, quiet: Progress) -> None:
    made = pack("folder", str(image_folder), 8, tmp_path / "beside" / "dtd-8px", False, quiet).folder / "pack.json"
    made.write_text(made.read_text().replace('"set": "folder"', '"set": "dtd"'))
    assert places("dtd", tmp_path / "beside") == (Place(tmp_path / "beside" / "dtd-8px", 8),)
    pack("folder", str(image_folder), 8, tmp_path / "here" / "anything", False, quiet)
    assert places("folder", tmp_path / "here") == (Place(tmp_path / "here" / "anything", 8),)
    (tmp_path / "here" / "anything" / "pack.json").write_text("{")
    assert places("folder", tmp_path / "here") == ()


def test_a_set_is_looked_for_in_the_folder_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"oasis is not in the folder data: give --root \(get it from: benedekkurdi"):
        find("oasis", None)
    with pytest.raises(UserError, match="folder is not in the folder data"):
        find("folder", None)
    assert find("digits", None) is None and find("cifar10", None) is None  # downloaded by its reader
    (tmp_path / "data" / "oasis").mkdir(parents=True)
    assert find("oasis", None) == "data/oasis"
    (tmp_path / "data" / "oasis-small.zip").touch()
    with pytest.raises(UserError, match=r"several places, data/oasis and data/oasis-small\.zip: choose one"):
        find("oasis", None)
    assert find("oasis", "data/oasis") == "data/oasis"
    with pytest.raises(UserError, match="--root: nowhere does not exist"):
        find("oasis", "nowhere")


def test_a_missing_set_is_refused_with_its_source_and_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        find("emoset", None)
    assert "(get it from: vcc.tech/EmoSet; licence: for research, on request" in str(caught.value)
    assert str(caught.value).endswith(
        "it must hold: train.json, val.json, test.json, image/<emotion>/<name>.jpg (and info.json))"
    )
    assert find("procedural", None) is find("svhn", None) is None


def test_a_target_is_read_with_its_splits(image_folder: Path) -> None:
    collection = read_set("folder", str(image_folder))
    assert collection.splits is not None and collection.splits.tolist() == ["train"] * 24 + ["test"] * 8
    assert collection.labels[0].names == ("blue", "red") and len(collection.images) == 32
    assert collection.name_of(0) == "train/blue/0000.png" and isinstance(collection.images[31], File)


def test_images_without_a_file_are_named_by_their_numbers() -> None:
    digits = read_set("digits", None)
    assert digits.name_of(0) == "digits/train[0]" and digits.name_of(1348) == "digits/test[0]"
    assert read_set("procedural", None, count=12, image_size=16).name_of(11) == "procedural[11]"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("oasiss", r"no set 'oasiss' \(did you mean 'oasis'\?\)"),
        ("cifar11", r"no set 'cifar11' \(did you mean 'cifar10'\?\)"),
        ("hf:OWNER/NAME[/CONFIG]", "stands for many sets: name one of them"),
        ("svhn, stl10, flowers102, food101, ...", "stands for many sets: name one of them"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_set(name, None)


def test_rows_without_an_image_are_listed_as_missing(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "manifest.csv").write_text("path,valence\na.png,0.5\nb.png,0.25\n")
    collection = read_set("manifest", str(tmp_path))
    assert len(collection.images) == 1 and collection.labels[0].values.dtype == np.float32
    assert [place.rsplit("/", 1)[-1] for place in collection.missing] == ["manifest.csv, row 3"]
