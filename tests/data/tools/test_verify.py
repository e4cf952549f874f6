from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from PIL import Image

from data.stimuli.layouts import ABSTRACT
from emoreg.config.schema import Fit
from emoreg.data.stimuli.emotion import MIKELS_8
from emoreg.data.tools.pack import pack
from emoreg.data.tools.verify import Findings, verify
from emoreg.errors import UserError
from emoreg.runtime.progress import Progress


@pytest.fixture
def look(image_folder: Path, quiet: Progress) -> Callable[..., Findings]:
    return lambda name="folder", root=str(image_folder): verify(name, root, quiet)


def test_a_whole_set_is_clean_and_counted(look: Callable[..., Findings]) -> None:
    findings = look()
    assert findings.is_clean and findings.images == 32
    assert findings.counts == {"blue": {"train": 12, "test": 4}, "red": {"train": 12, "test": 4}}


def test_zips_and_packs_give_the_same_findings(
    look: Callable[..., Findings], image_zip: Path, image_folder: Path, tmp_path: Path, quiet: Progress
) -> None:
    assert look(root=str(image_zip)).is_clean
    for fit in get_args(Fit):
        packed = look(root=str(pack("folder", str(image_folder), 8, tmp_path / fit, False, quiet, fit=fit).folder))
        assert packed.is_clean and packed.counts == look().counts


def test_all_unreadable_images_are_named_with_reasons(look: Callable[..., Findings], image_folder: Path) -> None:
    whole = (image_folder / "train" / "red" / "0001.png").read_bytes()
    (image_folder / "train" / "red" / "0001.png").write_bytes(whole[: len(whole) // 2])
    (image_folder / "test" / "blue" / "0000.png").write_bytes(b"")
    findings = look()
    assert [name for name, _ in findings.unreadable] == ["train/red/0001.png", "test/blue/0000.png"]
    assert "empty" in findings.unreadable[1][1] and not findings.is_clean


def test_duplicate_pixels_are_found_across_and_within_splits(look: Callable[..., Findings], image_folder: Path) -> None:
    shutil.copy(image_folder / "train" / "red" / "0001.png", image_folder / "test" / "red" / "copy.png")
    with Image.open(image_folder / "train" / "blue" / "0002.png") as image:
        image.save(image_folder / "train" / "blue" / "again.bmp")  # other bytes, the same pixels
    findings = look()
    assert findings.leaks == [[("train/red/0001.png", "train"), ("test/red/copy.png", "test")]]
    assert findings.repeats == [[("train/blue/0002.png", "train"), ("train/blue/again.bmp", "train")]]


OASIS = ",Theme,Category,Valence_mean,Arousal_mean\nI1,Dog 1,Animal,4,2.5\nI2,Dog 2,Animal,{},4\n"


@pytest.fixture
def oasis(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    for name in ("Dog 1", "Dog 2"):
        write_image(tmp_path / "oasis" / "images" / f"{name}.jpg")
    (tmp_path / "oasis" / "OASIS.csv").write_text(OASIS.format(7))
    return tmp_path / "oasis"


def test_dimensions_are_reported_as_ranges(look: Callable[..., Findings], oasis: Path) -> None:
    findings = look("oasis", str(oasis))
    assert findings.is_clean and findings.counts == {}
    assert findings.ranges["valence"] == {"all": (0, 0.5, 1)}
    assert findings.ranges["arousal"] == {"all": pytest.approx((-0.5, -0.25, 0))}


def test_rows_without_an_image_and_images_without_a_row_are_named(
    look: Callable[..., Findings], oasis: Path, write_image: Callable[..., Path]
) -> None:
    (oasis / "images" / "Dog 2.jpg").rename(oasis / "images" / "Hund 2.jpg")
    write_image(oasis / "more" / "x.png")
    findings = look("oasis", str(oasis))
    assert len(findings.missing) == 1 and findings.missing[0].endswith("OASIS.csv, row 3")
    assert findings.unnamed == ["images/Hund 2.jpg", "more/x.png"]


def test_images_that_a_manifest_names_by_absolute_paths_are_named(
    tmp_path: Path, write_image: Callable[..., Path], quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"{write_image(tmp_path / 'set' / f'{name}.png')},{name}" for name in ("awe", "fear")]
    (tmp_path / "set" / "manifest.csv").write_text("\n".join(["path,emotion", *rows]))
    write_image(tmp_path / "set" / "joy.png")
    monkeypatch.chdir(tmp_path)
    for root in ("set", "set/manifest.csv", str(tmp_path / "set")):
        assert verify("manifest", root, quiet).unnamed == ["joy.png"]
    with (tmp_path / "set" / "manifest.csv").open("a") as manifest:
        manifest.write("\nfear.png,awe")
    again = verify("manifest", "set", quiet).error
    assert again is not None and "'fear.png' is listed a second time, after" in again


def test_a_label_out_of_range_is_reported_and_the_images_are_still_read(
    look: Callable[..., Findings], oasis: Path
) -> None:
    (oasis / "OASIS.csv").write_text(OASIS.format(8))
    (oasis / "images" / "Dog 1.jpg").write_bytes(b"broken")
    findings = look("oasis", str(oasis))
    assert findings.error is not None and "row 3: Valence_mean is '8'" in findings.error
    assert findings.images == 2 and [name for name, _ in findings.unreadable] == ["images/Dog 1.jpg"]
    assert findings.unnamed == []


def test_votes_are_counted_by_the_most_voted_emotion(
    look: Callable[..., Findings], tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    for name in "abc":
        write_image(tmp_path / "set" / f"{name}.png")
    (tmp_path / "set" / "manifest.csv").write_text("path,p_awe,p_fear\na.png,3,1\nb.png,2,2\nc.png,0,1\n")
    counts = look("manifest", str(tmp_path / "set")).counts
    assert {name: count for name, count in counts.items() if count["all"]} == {
        "awe": {"all": 1},
        "fear": {"all": 1},
        "(tie)": {"all": 1},
    }


def test_a_published_set_is_compared_with_the_published_numbers(
    look: Callable[..., Findings], tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    root = tmp_path / "abstract"
    write_image(root / "abstract_0001.jpg")
    (root / "ABSTRACT_groundTruth.csv").write_bytes(ABSTRACT.encode().split(b"\r'abstract_0002")[0])
    findings = look("abstract", str(root))
    assert findings.is_clean  # a sample is not an error
    (row,) = findings.published
    assert (row.what, row.found, row.published, row.verdict) == ("images", 1, 280, "a part")


def test_placeholders_for_deleted_photographs_are_reported_as_such(
    look: Callable[..., Findings], tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    for name in MIKELS_8:
        write_image(tmp_path / "fi" / name / "1.png")
    gone = write_image(tmp_path / "gone.png").read_bytes()
    for number in range(9):
        (tmp_path / "fi" / MIKELS_8[number % 8] / f"gone_{number}.png").write_bytes(gone)
    findings = look("fi", str(tmp_path / "fi"))
    assert findings.is_clean and findings.images == 8
    assert "left out 9 copies of one picture, with 8 different emotions" in findings.left_out[0]


def test_the_root_may_be_a_manifest(
    look: Callable[..., Findings], tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    for name in "ab":
        write_image(tmp_path / "set" / f"{name}.png")
    (tmp_path / "set" / "mine.csv").write_text("path,valence\na.png,0\n")
    findings = look("manifest", str(tmp_path / "set" / "mine.csv"))
    assert findings.unnamed == ["b.png"] and findings.images == 1


def test_sets_without_files_are_verified_too(look: Callable[..., Findings]) -> None:
    digits = look("digits", None)
    assert digits.images == 1797 and digits.published == []
    assert look("procedural", None).is_clean


def test_a_set_without_any_images_is_an_error(look: Callable[..., Findings], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        look("folder", str(tmp_path / "empty"))
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../a.png", b"x")
    with pytest.raises(UserError, match="points outside the zip"):
        look("folder", str(tmp_path / "evil.zip"))
