"""Names from users and data sets are text, never markup, on every page and in every table. Also checked in Chromium."""

from __future__ import annotations

import dataclasses
import html.parser
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from emoreg.cli import main as cli
from emoreg.config.schema import TargetSettings
from emoreg.data.stimuli.emotion import VALENCE_AROUSAL
from emoreg.data.targets import read_target
from emoreg.data.targets.folder import read_folder
from emoreg.inference.demo import draw_dimensions
from emoreg.inference.explain.explain import explain
from emoreg.inference.export.model_card import classifier_card
from emoreg.report.analysis import Analysis
from emoreg.report.findings import findings
from emoreg.report.page import write_report
from emoreg.report.paper_tables import latex_report, markdown_table
from emoreg.runs.run import FINAL, Run
from emoreg.runtime.progress import Progress
from inference.combinations import untrained
from refusing import refusal
from report.made_up import made_up

SCRIPT = "<script>document.title='hacked'</script>"
ATTRIBUTE = '" onmouseover="document.title=\'hacked\'" x="'
CLOSING = "</title></style></svg><img src=x onerror=document.title='hacked'>"
NAMES = (SCRIPT, ATTRIBUTE, CLOSING, "{{ 7 * 7 }}", "a & b < c", "&lt;b&gt;")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


class Tags(html.parser.HTMLParser):
    """The tags of a page, their attributes, and the text between them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_harmless(source: str) -> None:
    page = Tags(source)
    assert not {"script", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    assert [(tag, name) for tag, attributes in page.tags for name in attributes if name.startswith("on")] == []
    assert all(str(attributes["src"]).startswith("data:") for tag, attributes in page.tags if tag == "img")
    assert all(str(attributes["href"]).startswith("#") for tag, attributes in page.tags if tag == "a")


def dump_dom(page: Path, tmp_path: Path) -> str:
    """Open a page in Chromium, with scripts allowed, and return its DOM."""
    assert CHROMIUM is not None
    options = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}"),
        *("--virtual-time-budget=2000", "--dump-dom", page.as_uri()),
    )
    return subprocess.run([CHROMIUM, *options], capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    """A study in which every name is hostile."""
    study = made_up(stimuli=(SCRIPT, ATTRIBUTE), classes=NAMES, cells=((CLOSING, SCRIPT), (ATTRIBUTE, "{{ x }}")))
    return dataclasses.replace(
        study,
        name=SCRIPT,
        failures=((ATTRIBUTE, CLOSING), (SCRIPT, SCRIPT)),
        facts=((SCRIPT, CLOSING), ("Command", ATTRIBUTE)),
    )


@pytest.fixture(scope="module")
def report(analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("report") / "report.html", analysis, findings(analysis))


def test_a_report_holds_hostile_names_as_text(report: Path) -> None:
    source = report.read_text(encoding="utf-8")
    assert_harmless(source)
    assert SCRIPT in Tags(source).text and "{{ 7 * 7 }}" in Tags(source).text


@needs_chromium
def test_a_browser_runs_no_script_of_a_report(report: Path, tmp_path: Path) -> None:
    dom = dump_dom(report, tmp_path)
    assert_harmless(dom)
    assert "<title>hacked" not in dom and "<title>&lt;script&gt;" in dom


@needs_chromium
def test_the_browser_runs_the_script_if_it_is_not_escaped(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(f"<title>a page</title>{SCRIPT}")
    assert "<title>hacked" in dump_dom(tmp_path / "page.html", tmp_path)


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The explanation of a classifier with hostile class names, for images in files and folders of hostile names."""
    from PIL import Image

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("explained")
    names = [name.replace("/", "∕") for name in NAMES[:3]]  # file names cannot contain a slash
    for name in names:
        (root / "set" / "test" / name).mkdir(parents=True)
        for number in range(2):
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "set" / "test" / name / f"{name}{number}.png")
    loaded = dataclasses.replace(
        untrained("learned", "per_sample", "logits", 0.5),
        classes=tuple(names),
        folder=root / names[0],
        no_readout_reason=SCRIPT,
    )
    loaded.folder.mkdir()
    (loaded.folder / FINAL).write_text('{"test": null}')
    image = next((root / "set" / "test" / names[1]).iterdir())
    return explain(
        loaded, image, root / "out", data=str(root / "set"), projection="pca", points=6, progress=Progress(quiet=True)
    )


@pytest.mark.extra("explain")
def test_an_explanation_holds_hostile_names_as_text(explained: Path) -> None:
    source = explained.read_text(encoding="utf-8")
    assert_harmless(source)
    assert "<script>" in Tags(source).text and "onmouseover" in Tags(source).text


@pytest.mark.extra("explain")
def test_its_charts_are_valid_xml_with_hostile_names_as_text(explained: Path) -> None:
    import xml.etree.ElementTree

    charts = sorted(explained.parent.glob("*.svg"))
    assert charts
    for chart in charts:
        tags = [element.tag.rpartition("}")[2] for element in xml.etree.ElementTree.parse(chart).iter()]
        assert "script" not in tags and "img" not in tags


@needs_chromium
@pytest.mark.extra("explain")
def test_a_browser_runs_no_script_of_an_explanation_or_its_charts(explained: Path, tmp_path: Path) -> None:
    for number, page in enumerate((explained, *sorted(explained.parent.glob("*.svg"))[:2])):
        dom = dump_dom(page, tmp_path / str(number))
        assert "hacked</title>" not in dom and "<script" not in dom


def test_markdown_and_latex_hold_hostile_names_as_text(analysis: Analysis) -> None:
    text = markdown_table(analysis)
    assert "<script>" not in text.replace("\\<", "") and "\\<script\\>" in text
    latex = latex_report(analysis, "")
    assert "<" not in latex.replace(r"\textless{}", "") and "&b" not in latex


@pytest.mark.parametrize("name", [r"\input{/etc/passwd}", "a_b^c%d#e$f~g", "\\write18{touch hacked}", "a\nb | c"])
def test_a_set_named_like_a_latex_command_is_text(name: str) -> None:
    study = made_up(stimuli=(name, "oasis"), cells=((name, "resnet20"),))
    latex = latex_report(study, "")
    assert r"\input" not in latex and r"\write18" not in latex
    rows = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in rows} == {4, 5}  # accuracies, contrasts
    lines = [line for line in markdown_table(study).splitlines() if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in lines} == {6, 7}


def test_a_card_holds_hostile_names_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = {
        "test": {"accuracy": 0.5, "ece": 0.1, "images": 9},
        "images": {"train": 9},
        "parameters": 3,
        "lambda": [0.5],
    }
    monkeypatch.setattr(Run, "final", final)
    loaded = untrained("learned", "scalar", "logits", 0.5)
    target = dataclasses.replace(loaded.recipe.target, name=SCRIPT)
    loaded = dataclasses.replace(
        loaded,
        folder=tmp_path / "<script>x<∕script>\n---\nlicense: other",
        classes=NAMES,
        recipe=dataclasses.replace(loaded.recipe, target=target),
        no_readout_reason=f"its stage-1 run {SCRIPT} was not found",
    )
    card = classifier_card(loaded, "pass", {}, None)
    _, metadata, text = card.split("---\n", 2)
    assert yaml.safe_load(metadata)["license"] == "apache-2.0"
    outside = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    assert "<script>" not in outside.replace("\\<", "") and "\nlicense: other" not in text


def test_the_demo_holds_hostile_names_as_text() -> None:
    space = dataclasses.replace(VALENCE_AROUSAL, names=(SCRIPT, ATTRIBUTE))
    assert_harmless(draw_dimensions([0.5, 0.5], space))


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\nb", "a\rb", "a\x07b"])
def test_a_class_with_control_characters_is_refused(name: str, tmp_path: Path) -> None:
    for folder in (name, "b"):
        (tmp_path / "set" / folder).mkdir(parents=True)
        for number in range(5):
            (tmp_path / "set" / folder / f"{number}.png").write_bytes(b"x")
    assert len(read_folder(tmp_path / "set").classes) == 2
    line = refusal(lambda: read_target(TargetSettings("folder", str(tmp_path / "set"))))
    assert "the class name " in line and "contains control characters" in line and line.isprintable()


def test_names_with_terminal_markup_are_printed_as_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(
        "edition: 2\nmodes: []\nreferences: [backbone]\nseeds: 1\n"
        "classifier: {backbone: {name: resnet8}, target: {limit: 32, image_size: 8}}\n"
        "targets: [{target: {name: cifar10, root: '[/red]', limit: 16}}, {target: {name: cifar10, root: '[bold]'}}]\n"
    )
    assert cli.main(["study", "study.yaml", "--dry-run", "--quiet"]) == 0
    assert "[/red]" in capsys.readouterr().out.replace(" ", "").replace("\n", "")
