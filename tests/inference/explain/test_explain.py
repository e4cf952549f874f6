from __future__ import annotations

import csv
import dataclasses
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import extras
from emoreg.config.recipe import TrainRecipe
from emoreg.data.images.decode import GREY
from emoreg.data.targets import read_target
from emoreg.errors import UserError
from emoreg.inference.explain.effect import ClassEffect
from emoreg.inference.explain.explain import explain
from emoreg.inference.explain.page import PAGE, SIDE, _effect_sentence, fraction, letter, signed
from emoreg.inference.load import load_run
from emoreg.report.statistics import interval
from emoreg.runs.run import SEEN, Run
from emoreg.runtime.progress import Progress
from emoreg.stages.classify import train
from emoreg.stages.target_images import parts_of
from trained_runs import CLASSIFIER

extras.load("explain", "captum")
pytestmark = pytest.mark.extra("explain")


class Page(HTMLParser):
    """Parses the tags and words of a page, and checks that tags are closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open, self.text, self.tags = list[str](), list[str](), list[tuple[str, dict[str, str | None]]]()
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "br", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def test_the_page_of_a_gated_run_has_every_part_and_loads_no_other_files(
    runs: Path, photos: Path, tmp_path: Path, quiet: Progress
) -> None:
    path = explain(runs / "gated", photos, tmp_path / "out", points=60, device="cpu", progress=quiet)
    assert path == tmp_path / "out" / PAGE
    page = Page(path)
    for words in (
        "Effect of the emotional response on each class",
        "λ of each image",
        "Highest λ:",
        "Features of the backbone, by class",
        "Features of the emotional encoder, by felt valence",
        "Where both branches look",
        "The given images.",
        "449 test images",
        "λ = 0 is this network without its emotional response, not a backbone trained alone",
    ):
        assert words in page.words
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert links and all(link and link.startswith(("data:image/png", "#")) for link in links)
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    assert not re.search(r"<script|https?://(?!www\.w3\.org)", page.source)
    svgs = sorted((tmp_path / "out").glob("*.svg"))
    assert len(svgs) == 9 and all("var(" not in svg.read_text() for svg in svgs)
    for svg in svgs:
        ElementTree.parse(svg)
    pictures = sorted((tmp_path / "out").glob("saliency-*.png"))
    assert [picture.name[:10] for picture in pictures] == [f"saliency-{name}" for name in "ABCDE"]
    with Image.open(pictures[0]) as strip:
        assert strip.size == (4 * 256, 256)
    rows = list(csv.DictReader((tmp_path / "out" / "leaning.csv").open()))
    assert len(rows) == 10 and sum(int(row["images"]) for row in rows) == 449
    assert [float(row["change"]) for row in rows] == sorted((float(row["change"]) for row in rows), reverse=True)


def test_saliency_is_drawn_over_the_image_as_the_network_sees_it(tmp_path: Path, quiet: Progress) -> None:
    recipe = dataclasses.replace(CLASSIFIER, target=dataclasses.replace(CLASSIFIER.target, fit="pad"))
    run = train(recipe, tmp_path / "run", progress=quiet)
    wide = tmp_path / "wide.png"
    Image.new("RGB", (60, 20), "red").save(wide)
    explain(run.folder, wide, tmp_path / "out", points=20, device="cpu", progress=quiet)
    (drawn,) = (tmp_path / "out").glob("saliency-*.png")
    picture = np.asarray(Image.open(drawn).convert("RGB"))[:, :SIDE]  # the image alone
    assert (picture[0] == GREY).all() and (picture[SIDE // 2] == (255, 0, 0)).all()


def test_without_images_the_page_shows_those_that_the_emotional_response_changes_most(
    runs: Path, tmp_path: Path, quiet: Progress
) -> None:
    page = Page(explain(runs / "learned", (), tmp_path, projection="pca", points=20, device="cpu", progress=quiet))
    assert len(list(tmp_path.glob("saliency-*.png"))) == 6
    changes = [float(change) for change in re.findall(r"change ([+-]\d\.\d\d)", page.words)]
    assert len(changes) == 6 and changes == sorted(changes, reverse=True)
    assert "test images whose true class gains or loses most probability from the emotional response" in page.words
    assert "of the variance" in page.words and "λ of each image" not in page.words


def test_without_images_a_plain_run_is_explained_on_the_first_test_images(
    runs: Path, tmp_path: Path, quiet: Progress
) -> None:
    words = Page(explain(runs / "plain", (), tmp_path, points=5, device="cpu", progress=quiet)).words
    assert "The first test images." in words
    assert list(dict.fromkeys(re.findall(r"test image (\d+) ", words))) == [str(number) for number in range(6)]


def test_the_page_of_a_plain_run_has_no_emotional_parts(runs: Path, photos: Path, tmp_path: Path) -> None:
    quiet = Progress(quiet=True)
    page = Page(explain(runs / "plain", photos / "a.png", tmp_path, points=20, device="cpu", progress=quiet))
    assert "This classifier has no emotional branch." in page.words and "Where the network looks" in page.words
    assert "Effect of the emotional" not in page.words and "emotional encoder" not in page.words.lower()
    assert not (tmp_path / "leaning.csv").exists()


def test_names_of_images_are_escaped(runs: Path, tmp_path: Path, quiet: Progress) -> None:
    name = "<img src=x onerror=alert(1)>&.png"
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / name)
    page = Page(explain(runs / "plain", tmp_path / name, tmp_path / "out", points=5, device="cpu", progress=quiet))
    assert "<img src=x" not in page.source and name in page.words


def test_a_test_split_that_cannot_be_read_is_left_out_and_the_page_says_so(
    runs: Path, photos: Path, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*given: object) -> None:
        raise UserError("target.root: no folder photos")

    monkeypatch.setattr("emoreg.inference.explain.explain.read_labelled", gone)
    page = Page(explain(runs / "learned", photos / "a.png", tmp_path, device="cpu", progress=quiet))
    assert (
        "There are no results on the test split, which could not be read: target.root: no folder photos" in page.words
    )
    assert "Where both branches look" in page.words and "Results on" not in page.words
    with pytest.raises(UserError, match="no folder photos"):
        explain(runs / "learned", (), tmp_path, device="cpu", progress=quiet)


def test_the_page_names_no_folder_of_the_machine(
    runs: Path, photos: Path, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*given: object) -> None:
        raise UserError(f"target.root: no folder {tmp_path / 'digits'}")

    monkeypatch.setattr("emoreg.inference.explain.explain.read_labelled", gone)
    page = Page(explain(runs / "learned", photos / "a.png", tmp_path / "out", device="cpu", progress=quiet))
    assert "target.root: no folder digits" in page.words
    assert "Responses to a.png" in page.source and str(tmp_path) not in page.source and str(photos) not in page.source


@pytest.mark.parametrize("has_record", [True, False])
def test_other_images_are_not_called_test_images_and_those_that_the_run_was_trained_on_are_counted(
    runs: Path, tmp_path: Path, quiet: Progress, has_record: bool
) -> None:
    run = Path(shutil.copytree(runs / "learned", tmp_path / "run"))
    recipe = Run(run).recipe
    assert isinstance(recipe, TrainRecipe)
    trained, _, _ = parts_of(read_target(recipe.target), recipe)
    for row in range(9):
        folder = tmp_path / "mine" / str(trained.labels[row])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(trained.images[row])).save(folder / f"{row}.png")
    if not has_record:
        (run / SEEN).unlink()
    mine = str(tmp_path / "mine")
    words = Page(explain(run, (), tmp_path / "out", data=mine, points=5, device="cpu", progress=quiet)).words
    assert "test image" not in words.lower() and "Accuracy on 9 images of mine: " in words
    assert ("9 of these 9 images are among those that the classifier was trained on" in words) == has_record
    assert ("Whether the classifier was trained on some of these images is not known" in words) != has_record


def test_no_more_test_images_are_explained_than_the_run_was_scored_on(
    runs: Path, tmp_path: Path, quiet: Progress
) -> None:
    loaded = load_run(runs / "plain")
    target = dataclasses.replace(loaded.recipe.target, test_limit=30)
    loaded = dataclasses.replace(loaded, recipe=dataclasses.replace(loaded.recipe, target=target))
    assert "Accuracy on 30 test images: " in Page(explain(loaded, (), tmp_path, points=5, progress=quiet)).words


def test_bad_input_is_refused(runs: Path, tmp_path: Path, quiet: Progress) -> None:
    many = [np.zeros((8, 8, 3), np.uint8)] * 60
    with pytest.raises(UserError, match="60 images are too many for one page; give at most 52"):
        explain(runs / "plain", many, tmp_path, progress=quiet)
    with pytest.raises(UserError, match="the number of points is 2; it must be at least 3"):
        explain(runs / "plain", (), tmp_path, points=2, progress=quiet)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot create the folder"):
        explain(runs / "plain", (), tmp_path / "file" / "out", progress=quiet)


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ((1e-5, -2e-5), "is practically unused: its mean effect on the true class's probability is at most 2.0e-05"),
        (
            (0.2, -0.1),
            "raises the true class's probability most in A (+0.200 on average, 2 images), and lowers it",
        ),
        (
            (0.2, 0.1),
            "raises the true class's probability most in A (+0.200 on average, 2 images), and raises",
        ),
        (
            (-0.1, -0.2),
            "lowers the true class's probability least in A (−0.100 on average, 2 images), and lowers it most in B",
        ),
    ],
)
def test_the_sentence_names_the_classes_with_the_largest_and_smallest_effect(
    means: tuple[float, float], expected: str
) -> None:
    found = [ClassEffect(name, interval([mean, mean]), 0.5, 0.5, 0.5) for name, mean in zip("AB", means, strict=True)]
    assert expected in re.sub(r", 95 % interval \S+ to [^,]+", "", _effect_sentence(found))


def test_numbers_and_letters_are_formatted_for_readers() -> None:
    assert [signed(value) for value in (0.1234, -0.5, 0.0, -1.2e-5)] == ["+0.123", "−0.500", "+0.000", "−1.2e-05"]
    assert [fraction(value) for value in (0.314, 1.0, 0.0, 3.1e-5)] == ["0.31", "1.00", "0.00", "3.1e-05"]
    assert [letter(number) for number in (0, 25, 26, 51)] == ["A", "Z", "AA", "AZ"]


def test_the_run_is_not_modified(runs: Path, photos: Path, tmp_path: Path, quiet: Progress) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in (runs / "learned").iterdir()}
    explain(runs / "learned", photos / "a.png", tmp_path, points=5, device="cpu", progress=quiet)
    assert before == {path.name: path.stat().st_mtime_ns for path in (runs / "learned").iterdir()}
    assert Run(runs / "learned").is_finished
