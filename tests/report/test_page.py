from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from markupsafe import Markup

from emoreg.report.analysis import ROLES, Analysis
from emoreg.report.method_notes import MethodNotes
from emoreg.report.page import write_report
from emoreg.report.statistics import Interval
from report.made_up import FACTS, FEW, made_up

VOID = {"meta", "link", "br", "hr", "img", "input"}
SENTENCES = ("Nothing was found with 3 seeds.", "The largest gain is small.", "No run is missing.")


class Page(HTMLParser):
    """The parsed elements of a page; parsing fails if a closing tag does not match the last opening one."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source, self.open, self.text = source, list[str](), list[str]()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] or "" for _, attributes in self.elements if attribute in attributes]

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def page_of(folder: Path, analysis: Analysis, sentences: tuple[str, ...] = SENTENCES) -> Page:
    return Page(write_report(folder / "report.html", analysis, sentences).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A page with real charts."""
    return page_of(tmp_path_factory.mktemp("drawn"), made_up(epochs=2, arms=("none", "learned", "learned shuffled")))


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Page]:
    """A function that writes pages with blank charts, which is fast."""

    def blank(key: str, *_: object) -> Markup:
        return Markup(f'<svg><g id="{key}-figure"/></svg>')

    monkeypatch.setattr("emoreg.report.drawing.svg", blank)
    monkeypatch.setattr("emoreg.report.charts.svg", blank)
    return lambda *arguments: page_of(tmp_path, *arguments)


def test_the_page_is_well_formed_and_starts_with_the_findings(drawn: Page) -> None:
    places = [drawn.words.index(sentence) for sentence in SENTENCES]
    assert places == sorted(places)
    assert places[0] < drawn.words.index("Differences in accuracy") < places[1]
    assert places[-1] < drawn.words.index("What ran where")
    assert ("html", {"lang": "en"}) in drawn.elements
    assert all(name in drawn.words and value in drawn.words for name, value in FACTS)


def test_the_page_needs_nothing_from_outside(drawn: Page) -> None:
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", drawn.source)
    assert "http:" not in without_namespaces
    assert "https:" not in without_namespaces
    assert "@import" not in drawn.source
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in drawn.elements}
    references = [*drawn.values("src"), *drawn.values("href"), *drawn.values("xlink:href")]
    assert all(reference.startswith("#") for reference in [*references, *re.findall(r"url\((.*?)\)", drawn.source)])
    assert any("default-src 'none'" in (meta.get("content") or "") for meta in drawn.tags("meta"))


def test_the_page_of_an_exploration_speaks_of_no_tests(page: Callable[..., Page]) -> None:
    confirmation = made_up(arms=("none", "learned", "learned shuffled"))
    cells = tuple(dataclasses.replace(cell, purpose="exploration") for cell in confirmation.cells)
    several = dataclasses.replace(cells[0], backbone="resnet8")
    for shown in (cells, (*cells, several)):
        explored = page(dataclasses.replace(confirmation, cells=shown)).words
        assert "Nothing is tested." in explored
        spoken_of = ("passed", "one-sided p, corrected", "tested only for", "verdict below", "no verdict: exploration")
        assert not any(words in explored for words in spoken_of)
    assert "a filled diamond passed its test" in page(confirmation).words


def test_numbers_in_charts_are_not_crossed_by_lines(drawn: Page) -> None:
    assert re.search(r"\.chart text \{[^}]*stroke: var\(--paper\);[^}]*paint-order: stroke;", drawn.source)


def check_references(page: Page) -> None:
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    inner = [*page.values("href"), *page.values("xlink:href"), *re.findall(r"url\((.*?)\)", page.source)]
    assert {reference.removeprefix("#") for reference in inner} <= set(ids)
    assert set(page.values("aria-labelledby")) <= set(ids)


def test_every_reference_within_the_page_has_one_target(drawn: Page, page: Callable[..., Page]) -> None:
    check_references(drawn)
    cells = (("cifar10", "resnet20"), ("cifar100", "vit_tiny"))
    check_references(page(made_up(cells=cells, arms=FEW, stimuli=("oasis", "emod"), lambda_per_class=True)))


def test_every_chart_is_described_and_takes_its_colours_from_the_page(drawn: Page) -> None:
    described = [attributes["aria-label"] or "" for _, attributes in drawn.elements if attributes.get("role") == "img"]
    charts = ["cifar10, resnet20, points", "Accuracy, %", "Difference from every twin", "Validation accuracy"]
    charts += ["Training loss", "λ over", "Backbone branch's share", "Norm of the backbone", "Norm of the encoder"]
    charts += [
        "Minus Backbone in each",
        "Expected calibration error",
        "Reliability",
        "Reliability",
        "Minus Backbone, which",
    ]
    assert all(label.startswith(chart) for label, chart in zip(described, charts, strict=True))
    assert "Learn-E-Reg" in described[0]
    assert not re.search(r"(stroke|fill): #", drawn.source)
    used, there = (set(re.findall(pattern, drawn.source)) for pattern in (r"var\((--[\w-]+)\)", r"(--[\w-]+):"))
    assert used <= there


def test_the_page_begins_with_the_verdict_the_picture_and_the_table_of_contrasts(drawn: Page) -> None:
    source = drawn.source
    places = [
        source.index(SENTENCES[0]),
        source.index('id="lead-1-'),
        source.index("<table"),
        source.index(SENTENCES[1]),
    ]
    assert places == sorted(places)


def luminance(colour: str) -> float:
    digits = colour if len(colour) == 6 else "".join(2 * digit for digit in colour)
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_and_arms_stand_out_in_light_and_in_dark(drawn: Page) -> None:
    schemes = [
        dict(re.findall(r"--([\w-]+): #(\w+)", rule)) for rule in re.findall(r":root \{(.*?)\}", drawn.source, re.S)
    ]
    assert len(schemes) == 2
    for colours in schemes:
        for name in {"ink", "quiet", "focus", *(f"arm-{number}" for number in range(len(ROLES)))}:
            dark, light = sorted((luminance(colours["paper"]), luminance(colours[name])))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, name  # WCAG 2.2, AA, text


def test_tables_can_be_scrolled_with_keys_and_read_aloud(drawn: Page) -> None:
    regions = [attributes for _, attributes in drawn.elements if attributes.get("role") == "region"]
    assert regions
    assert all(region["tabindex"] == "0" and region["aria-label"] for region in regions)
    assert len(drawn.tags("table")) == len(drawn.tags("caption")) == len(regions)
    assert all(header.get("scope") in ("col", "row", "rowgroup") for header in drawn.tags("th"))
    levels = [int(tag[1]) for tag, _ in drawn.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert drawn.tags("a")[0]["href"] == "#main"  # skips the header


def test_a_long_name_in_the_fixed_column_wraps_and_leaves_room_for_the_figures(drawn: Page) -> None:
    names = re.findall(r'<th scope="row">(.*?)</th>', drawn.source)
    assert names and all(name.startswith("<span>") for name in names)
    (style,) = re.findall(r"tbody th > span {(.*?)}", drawn.source)
    assert "white-space: normal" in style and "42vw" in style


def test_user_supplied_names_are_escaped(page: Callable[..., Page]) -> None:
    nasty = "<script>alert('$x_1$')</script>"
    analysis = made_up(arms=FEW, stimuli=(nasty, "oasis"), classes=(nasty, "dog"), cells=((nasty, nasty), ("a", "b")))
    named = dataclasses.replace(analysis, name=nasty, failures=((nasty, nasty),), facts=((nasty, nasty),))
    got = page(named, (nasty, nasty))
    assert "<script" not in got.source
    assert "".join(got.text).count(nasty) >= 10
    assert any(nasty in label for label in got.values("aria-label"))


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_missing_number_is_never_written_as_nan(page: Callable[..., Page], seeds: int) -> None:
    source = page(made_up(seeds, arms=FEW)).source
    assert not re.search(r"\bnan\b", source, re.IGNORECASE)
    assert ("one seed" in source) == (seeds == 1)


def test_the_same_input_gives_the_same_bytes(page: Callable[..., Page]) -> None:
    assert page(made_up(arms=FEW)).source == page(made_up(arms=FEW)).source


def test_several_cells_have_contents_and_one_table_of_all(page: Callable[..., Page]) -> None:
    got = page(made_up(arms=FEW, cells=(("cifar10", "resnet20"), ("cifar100", "vit_tiny"))))
    assert {"#cell-1", "#cell-2", "#overview", "#reading"} <= set(got.values("href"))
    assert "All cells side by side" in got.words
    assert got.tags("details")


def test_one_cell_has_no_clutter(page: Callable[..., Page]) -> None:
    got = page(made_up(arms=FEW))
    assert not got.tags("nav")
    assert not got.tags("details")
    assert "overview" not in got.values("id")


def test_a_caption_says_that_not_all_of_many_classes_are_shown(page: Callable[..., Page]) -> None:
    note = "Of 100 classes, the 10 highest and the 10 lowest are shown."
    assert note in page(made_up(arms=FEW, classes=tuple(f"class {number}" for number in range(100)))).words
    assert "the 10 highest" not in page(made_up(arms=FEW)).words


def test_charts_without_data_are_left_out(page: Callable[..., Page]) -> None:
    got = page(made_up(arms=FEW, has_validation=False))
    assert "Validation accuracy" not in got.words
    assert "λ of each class" not in got.words
    cell = made_up(arms=FEW).cells[0]
    bare = [dataclasses.replace(a, curves=pd.DataFrame({"seed": [], "epoch": []}), reliability=()) for a in cell.arms]
    cell = dataclasses.replace(cell, arms=tuple(bare))
    got = page(dataclasses.replace(made_up(arms=FEW), cells=(cell,)))
    assert "cell-1-training" not in got.values("id")
    assert "Reliability" not in got.words


def test_a_caption_says_that_a_lambda_curve_is_left_out(page: Callable[..., Page]) -> None:
    analysis = made_up(arms=FEW)
    reason = "λ of arms with one λ per image is left out for runs of emoreg 0.1.0"
    assert reason not in page(analysis).words
    arms = [
        dataclasses.replace(arm, omits_lambda_curve=True, curves=arm.curves.drop(columns="lambda", errors="ignore"))
        for arm in analysis.cells[0].arms
    ]
    cell = dataclasses.replace(analysis.cells[0], arms=tuple(arms))
    assert reason in page(dataclasses.replace(analysis, cells=(cell,))).words


def test_tables_without_any_figure_are_left_out(page: Callable[..., Page]) -> None:
    analysis = made_up(arms=FEW)
    unknown = Interval(math.nan, math.nan, math.nan, ())
    cell = analysis.cells[0]
    bare = [
        dataclasses.replace(
            arm, ece=unknown, reliability=(), seconds=math.nan, images_per_second=math.nan, parameters=0, flops=0
        )
        for arm in cell.arms
    ]
    headings = page(dataclasses.replace(analysis, cells=(dataclasses.replace(cell, arms=tuple(bare)),))).words
    assert "Expected calibration error" not in headings and "FLOPs" not in headings and "Accuracies" in headings


def test_a_caption_says_which_training_losses_are_sums(page: Callable[..., Page]) -> None:
    words = page(made_up(arms=(*FEW, "ensemble", "unregulated"))).words
    assert "The training loss of Ensemble and Unregulated is the sum of two networks'." in words
    assert "is the sum of" not in page(made_up(arms=FEW)).words
    assert "The training loss of a regulated arm is the weighted sum of its losses" in words
    assert "regulated arm is the weighted sum" not in page(made_up(arms=("none",))).words


@pytest.mark.parametrize(
    "arms", [("none",), ("learned",), ("none", "learned"), ("learned", "learned fresh"), ("learned fresh",)]
)
def test_a_study_without_twins_or_without_a_backbone_makes_a_page_too(
    page: Callable[..., Page], arms: tuple[str, ...]
) -> None:
    got = page(made_up(arms=arms))
    assert ("Against every twin" in got.words) == (arms == ("learned", "learned fresh"))
    assert ("Minus Backbone in each class" in got.words) == (arms == ("none", "learned"))


def test_a_study_without_finished_runs_makes_a_page_too(page: Callable[..., Page]) -> None:
    failures = (("Learn-E-Reg, seed 0", "out of memory"),)
    empty = Analysis("A study", (), (), 3, 0, failures, (), (), MethodNotes(), (), pd.DataFrame())
    got = page(empty, ("Nothing is finished.",))
    assert "Learn-E-Reg, seed 0out of memory" in got.words
    assert "0 of 3 finished, 1 failed" in got.words


def test_runs_that_diverged_are_not_said_to_be_left_out(page: Callable[..., Page]) -> None:
    diverged = dataclasses.replace(made_up(arms=FEW), failures=(), diverged=(("seed 3", "the loss is not finite"),))
    words = page(diverged).words
    assert "They count as collapsed" in words and "seed 3the loss is not finite" in words
    assert "1 diverged, 0 failed" in words and "left out" not in words and "Runs that failed" not in words


def test_settings_of_the_method_are_listed_with_the_machines(page: Callable[..., Page]) -> None:
    words = page(made_up(arms=FEW)).words
    assert "Gradient budgetmatched: both branches start with Backbone's gradient" in words
    assert "Takeover of the encoderas it is" in words


def test_symbols_have_their_subscripts_and_names_keep_their_underscores(page: Callable[..., Page]) -> None:
    source = page(made_up(arms=("none", "learned"), cells=(("a_n_b", "vit_tiny"),))).source
    assert "CE(z<sub>n</sub>, y)" in source and "‖g<sub>e</sub>‖" in source
    assert "a_n_b" in source and "z_n" not in source


def test_a_target_of_the_paper_has_its_claim_in_a_table(page: Callable[..., Page]) -> None:
    analysis = made_up(arms=FEW)
    assert "Beside the paper" not in page(analysis).words
    cell = dataclasses.replace(analysis.cells[0], benchmark="cifar10")
    assert "CIFAR-10 up to +1.57" in page(dataclasses.replace(analysis, cells=(cell,))).words
