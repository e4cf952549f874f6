from __future__ import annotations

import dataclasses
import io
import re
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from emoreg.report import results_table, write_report
from emoreg.summary import ArmSummary, findings, interval

FACTS = {"Stimuli": "procedural: no person rated them", "Command": "emoreg quickstart --seeds 3"}
ARMS = {
    "backbone": "Backbone",
    "fixed": "E-Reg",
    "random": "Rand-E-Reg",
    "learned": "Learn-E-Reg",
    "random_learned": "Rand-Learn-E-Reg",
    "random_encoder": "random_encoder",
}
VOID = {"meta", "link", "br", "hr", "img", "input"}


def study(seeds: int = 3, epochs: int = 4, validation: bool = True) -> list[ArmSummary]:
    """Six arms; each a little better than the one before, by an amount that differs from seed to seed."""
    backbone = [0.95 + 0.004 * seed for seed in range(seeds)]
    summaries = []
    for number, (name, label) in enumerate(ARMS.items()):
        accuracies = [b + number * (0.001 + 0.0005 * seed) for seed, b in enumerate(backbone)]
        rows = [
            {"seed": seed, "epoch": epoch, "train_loss": 2.0 / epoch}
            | ({"val_accuracy": accuracy - 0.3 / epoch} if validation else {})
            | ({"lambda": 0.5 + 0.01 * epoch * seed} if number else {})
            for seed, accuracy in enumerate(accuracies)
            for epoch in range(1, epochs + 1)
        ]
        summaries.append(
            ArmSummary(
                name=name,
                label=label,
                is_control=name == "random_encoder",
                accuracy=interval(accuracies),
                gain=interval([a - b for a, b in zip(accuracies, backbone, strict=True)]) if number else None,
                lam=tuple(0.5 + 0.04 * seed for seed in range(seeds)) if number else (),
                seconds=12.3,
                curves=pd.DataFrame(rows),
            )
        )
    return summaries


class Page(HTMLParser):
    """What the tests look at; parsing fails if a tag is closed that is not the one last opened."""

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

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] or "" for _, attributes in self.elements if attribute in attributes]


def page(
    tmp_path: Path, summaries: Sequence[ArmSummary], title: str = "A study", facts: dict[str, str] = FACTS
) -> Page:
    path = write_report(tmp_path / "report.html", title, summaries, facts)
    return Page(path.read_text(encoding="utf-8"))


def terminal(summaries: Sequence[ArmSummary]) -> list[str]:
    console = Console(width=80, record=True, file=io.StringIO(), color_system=None)
    console.print(results_table(summaries))
    return console.export_text().splitlines()


def test_the_page_is_well_formed_and_says_first_what_was_found(tmp_path: Path) -> None:
    got = page(tmp_path, study())
    text = " ".join("".join(got.text).split())
    places = [text.index(sentence) for sentence in findings(study())]
    assert places == sorted(places)
    assert places[-1] < text.index("Results") < text.index("What ran where")
    assert ("html", {"lang": "en"}) in got.elements
    assert all(name in text and value in text for name, value in FACTS.items())


def test_the_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    got = page(tmp_path, study())
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", got.source)
    assert "http:" not in without_namespaces
    assert "https:" not in without_namespaces
    assert "@import" not in got.source
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in got.elements}
    references = [*got.values("src"), *got.values("href"), *got.values("xlink:href")]
    assert all(reference.startswith("#") for reference in [*references, *re.findall(r"url\((.*?)\)", got.source)])


def test_every_reference_within_the_page_has_one_target(tmp_path: Path) -> None:
    got = page(tmp_path, study())
    ids = got.values("id")
    assert len(ids) == len(set(ids))
    inner = [*got.values("xlink:href"), *re.findall(r"url\((.*?)\)", got.source)]
    assert {reference.removeprefix("#") for reference in inner} <= set(ids)
    assert set(got.values("aria-labelledby")) <= set(ids)


def test_what_others_named_is_escaped(tmp_path: Path) -> None:
    nasty = "<script>alert('$x_1$')</script>"
    summaries = [dataclasses.replace(s, label=nasty) for s in study()]
    got = page(tmp_path, summaries, title=nasty, facts={nasty: nasty})
    assert "script" not in {tag for tag, _ in got.elements}
    assert "<script" not in got.source
    assert "".join(got.text).count(nasty) >= 4  # title, table, charts, facts: shown as it is, not as mathematics
    assert any(nasty in label for label in got.values("aria-label"))


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_a_number_that_is_not_there_is_never_written_as_nan(tmp_path: Path, seeds: int) -> None:
    source = page(tmp_path, study(seeds)).source
    shown = [source, *terminal(study(seeds))]
    assert not any(re.search(r"\bnan\b", text, re.IGNORECASE) for text in shown)
    assert any("n/a (one seed)" in text for text in shown[1:]) == (seeds == 1)
    assert ("n/a (one seed)" in source) == (seeds == 1)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_report(tmp_path / name, "A study", study(), FACTS) for name in ("1.html", "2.html"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_table_has_every_arm_whole_within_80_columns(seeds: int) -> None:
    lines = terminal(study(seeds))
    assert all(sum(line.startswith(f"{label} ") for line in lines) == 1 for label in ARMS.values())
    assert any(line.startswith("control ") for line in lines)
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)


def test_what_others_named_is_not_markup_in_the_terminal() -> None:
    shown = "\n".join(terminal([dataclasses.replace(s, label="[b]x[/b]") for s in study()]))
    assert shown.count("[b]x[/b]") == len(ARMS) + 1  # and in the caption


def test_the_page_has_the_table_of_the_terminal(tmp_path: Path) -> None:
    body = page(tmp_path, study()).source.split("<tbody>")[1].split("</tbody>")[0]
    lines = terminal(study())
    start = next(number for number, line in enumerate(lines) if line.startswith("─")) + 1
    shown = " ".join(lines[start : start + 2 * len(ARMS)])
    assert Counter(re.sub("<[^>]*>", " ", body).split()) == Counter(shown.split())


def test_every_chart_is_described_and_takes_its_colours_from_the_page(tmp_path: Path) -> None:
    got = page(tmp_path, study())
    described = [a["aria-label"] or "" for _, a in got.elements if a.get("role") == "img"]
    assert [label.split(" ")[0] for label in described] == ["Mean", "Validation", "Training", "λ"]
    assert "Learn-E-Reg" in described[1]
    assert "Backbone" not in described[3]  # it has no λ
    assert not re.search(r"(stroke|fill): #", got.source)
    assert set(re.findall(r"var\((--arm-\d+)\)", got.source)) <= set(re.findall(r"(--arm-\d+):", got.source))


def test_charts_without_data_are_left_out(tmp_path: Path) -> None:
    got = page(tmp_path, study(validation=False))
    assert "Validation accuracy" not in got.source
    bare = [dataclasses.replace(s, curves=pd.DataFrame({"seed": [], "epoch": []})) for s in study()]
    assert 'id="training"' not in page(tmp_path, bare).source


def test_one_epoch_and_no_control_make_a_page_too(tmp_path: Path) -> None:
    uncontrolled = study(epochs=1)[:-1]
    assert "Gain over\ncontrol" not in page(tmp_path, uncontrolled).source
    assert len(terminal(uncontrolled)) > len(uncontrolled)
