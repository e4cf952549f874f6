"""The pages of the site and the reference of names and settings are complete."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import emoreg
import emoreg.config.recipe
from emoreg.config import augment, loss, optimizer, schema, training
from emoreg.config.recipe import PretrainRecipe, TrainRecipe

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SETTINGS = (loss, schema, augment, optimizer, training)


@pytest.fixture(scope="module")
def make_site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_site", DOCS / "make_site.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages_of(entries: list[dict[str, object]]) -> list[str]:
    """All pages in a navigation, which may be nested."""
    return [
        page
        for entry in entries
        for place in entry.values()
        for page in (pages_of(place) if isinstance(place, list) else [str(place)])
    ]


def test_the_navigation_has_all_assembled_pages(make_site: ModuleType, tmp_path: Path) -> None:
    make_site.assemble(tmp_path)
    pages = {path.relative_to(tmp_path / "docs").as_posix() for path in (tmp_path / "docs").rglob("*.md")}
    assert set(pages_of(yaml.safe_load((tmp_path / "mkdocs.yml").read_text())["nav"])) == pages
    assert {"index.md", "recipes.md", "method.md"} <= pages
    assert not list(tmp_path.rglob("*.py"))
    home = (tmp_path / "docs" / "index.md").read_text(encoding="utf-8")
    assert home.startswith("# emoreg\n") and "[The method](method.md)" in home


def test_missing_pages_are_left_out_of_the_navigation(make_site: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "here.md").write_text("")
    entries = [{"Here": "here.md"}, {"There": "there.md"}, {"More": [{"There": "there.md"}]}]
    assert make_site.with_pages_that_exist(entries, tmp_path) == [{"Here": "here.md"}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see [the method](docs/method.md#ours)", "see [the method](method.md#ours)"),
        ("cite [this](CITATION.cff), run `docs/x`", "cite this, run `docs/x`"),
        ("[out](https://arxiv.org/abs/2606.13081) and [down](#speed)",) * 2,
    ],
)
def test_links_in_the_readme_lead_to_pages_or_become_text(make_site: ModuleType, text: str, expected: str) -> None:
    assert make_site.for_the_site(text, ROOT) == expected


def test_links_out_of_docs_become_text_except_those_to_the_readme(make_site: ModuleType) -> None:
    text = "[README](../README.md#a-run), [script](../benchmarks/speed.py), [data](data.md)"
    assert make_site.for_the_site(text, DOCS) == "[README](index.md#a-run), script, [data](data.md)"


def test_every_recipe_is_in_the_table_with_the_result_in_its_header(make_site: ModuleType) -> None:
    page = make_site.recipes_page()
    for file in (ROOT / "recipes").rglob("*.yaml"):
        (row,) = [line for line in page.splitlines() if f"`{file.relative_to(ROOT / 'recipes').as_posix()}`" in line]
        assert row.count(" | ") == row.replace("\\|", "").count(" | ")
        result = re.search(r"\d\d\.\d\d %", file.read_text(encoding="utf-8"))
        assert result is None or result[0] in row
    assert "Learn-E-Reg" in page and "CCC on validation images 0.28" in page


def test_every_picture_exists_and_is_used_and_their_total_size_is_small() -> None:
    used = {
        name.removeprefix("docs/")
        for page in (DOCS.parent / "README.md", *DOCS.glob("*.md"))
        for name in re.findall(r"!\[.*?\]\((.+?)\)", page.read_text(encoding="utf-8"), re.DOTALL)
    }
    stored = {path.relative_to(DOCS).as_posix() for path in (DOCS / "images").iterdir()}
    assert used == stored and sum((DOCS / name).stat().st_size for name in stored) < 450_000


def test_pages_fetch_nothing_from_other_hosts(make_site: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text('<script src="https://unpkg.com/iframe-worker/shim"></script>')
    make_site.replace_external_script(tmp_path)
    assert page.read_text() == '<script src="assets/worker.js"></script>' and (DOCS / "assets" / "worker.js").is_file()


def test_every_public_name_and_every_setting_is_in_the_reference() -> None:
    api, of_settings = ((DOCS / name).read_text(encoding="utf-8") for name in ("api.md", "settings.md"))
    documented = set(re.findall(r"^::: emoreg\.(\w+)$", api + of_settings, re.MULTILINE))
    assert documented == set(emoreg.__all__)
    classes = {
        f"{module.__name__}.{name}"
        for module in SETTINGS
        for name, kind in vars(module).items()
        if name.endswith("Settings") and kind.__module__ == module.__name__
    }
    assert set(re.findall(r"^::: (emoreg\.config\.\S+)$", of_settings, re.MULTILINE)) == classes
    for kind in (PretrainRecipe, TrainRecipe):
        assert dataclasses.is_dataclass(kind) and f"::: emoreg.{kind.__name__}" in of_settings


def test_the_settings_page_states_the_defaults_that_differ_between_the_stages() -> None:
    page = " ".join((DOCS / "settings.md").read_text(encoding="utf-8").split())
    shared = ("augment", "optimizer", "training")
    for recipe, heading in ((PretrainRecipe(), "For `emoreg pretrain`."), (TrainRecipe(), "For `emoreg train`.")):
        text = page.partition(heading)[2].partition(":::")[0]
        for section in shared:
            settings = getattr(recipe, section)
            for field, value in dataclasses.asdict(settings).items():
                if value != getattr(type(settings)(), field):
                    default = re.escape(str(value).lower())
                    assert re.search(rf"`{section}\.{field}` (is )?{default}\b", text), (section, field)


def test_placeholders_in_the_settings_docstrings_are_code_and_not_html_tags() -> None:
    files = (Path(str(module.__file__)) for module in (*SETTINGS, emoreg.config.recipe))
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    docstrings = re.findall(r'"""(.*?)"""', text, re.DOTALL)
    assert len(docstrings) > 50
    assert not [tag for docstring in docstrings for tag in re.findall(r"<\w+>", re.sub(r"`.*?`", "", docstring))]
