"""Build the site: the pages in docs/, the README as its first page, a table of the recipes, the API from docstrings.

    python docs/make_site.py [--out build/site]

The pages are assembled in a temporary folder, so that the repository has no second copy of the README and no generated
table. Files outside docs/ are not on the site, so links to them become text. The builder is strict: a dead link or
anchor ends it with exit code 1.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from emoreg.config.read_recipe import read_recipe
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.training import TrainingSettings
from emoreg.study.arms import LABELS
from emoreg.study.read_study import read_study

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
HOME, RECIPES = "index.md", "recipes.md"  # generated pages
FROM_THE_ROOT = {"README.md": HOME, "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
WORKER, FETCHED = "assets/worker.js", "https://unpkg.com/iframe-worker/shim"
LINK = re.compile(r"\[([^\]\[]+)\]\(([^)\s]+)\)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the site and return the builder's exit code."""
    parser = argparse.ArgumentParser(description="Build the site.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site", help="folder, replaced (%(default)s)")
    out = parser.parse_args(arguments).out
    with tempfile.TemporaryDirectory() as folder:
        assemble(Path(folder))
        build = subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=folder, check=False)
        if build.returncode == 0:
            replace_external_script(Path(folder) / "site")
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(Path(folder) / "site", out)
            print(f"site: {out.resolve() / 'index.html'}")
    return build.returncode


def replace_external_script(site: Path) -> None:
    """Replace the script that pages of the builder would fetch from another host by our own copy."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        own = "../" * (len(page.relative_to(site).parts) - 1) + WORKER
        page.write_text(text.replace(FETCHED, own), encoding="utf-8")


def assemble(folder: Path) -> None:
    """Write the builder's input, mkdocs.yml and docs/, into an empty folder."""
    pages = folder / "docs"
    shutil.copytree(DOCS, pages, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for page in [*pages.rglob("*.md")]:
        page.write_text(for_the_site(page.read_text(encoding="utf-8"), DOCS), encoding="utf-8")
    for name, page_name in FROM_THE_ROOT.items():
        text = for_the_site((ROOT / name).read_text(encoding="utf-8"), ROOT)
        (pages / page_name).write_text(text, encoding="utf-8")
    (pages / RECIPES).write_text(recipes_page(), encoding="utf-8")
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    settings["nav"] = with_pages_that_exist(settings["nav"], pages)
    for plugin in settings["plugins"]:
        if isinstance(plugin, dict) and "mkdocstrings" in plugin:
            python = plugin["mkdocstrings"]["handlers"]["python"]
            python["paths"] = [str(ROOT / path) for path in python["paths"]]
    (folder / "mkdocs.yml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


def for_the_site(text: str, folder: Path) -> str:
    """Make the links of a Markdown text lead to pages of the site, or turn them into text.

    Args:
        text: a page of docs/, or the README.
        folder: the folder in the repository that its links are relative to.
    """

    def rewrite(match: re.Match[str]) -> str:
        label, target = match.groups()
        path, hash_sign, anchor = target.partition("#")
        if not path or ":" in path:  # within the page, or https:
            return match[0]
        file = (folder / path).resolve()
        if file.parent == ROOT and file.name in FROM_THE_ROOT:
            return f"[{label}]({FROM_THE_ROOT[file.name]}{hash_sign}{anchor})"
        if not file.is_relative_to(DOCS) or file.is_dir():
            return label
        if label == target and file.suffix == ".md":  # show the title, since readers of the site do not know paths
            label = file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        return f"[{label}]({file.relative_to(DOCS).as_posix()}{hash_sign}{anchor})"

    return LINK.sub(rewrite, text)


def with_pages_that_exist(entries: Iterable[Any], pages: Path) -> list[Any]:
    """Remove missing pages, and sections without pages, from the navigation."""
    kept: list[Any] = []
    for entry in entries:
        ((title, target),) = entry.items()
        if isinstance(target, list):
            target = with_pages_that_exist(target, pages)
        elif not (pages / target).is_file():
            continue
        if target:
            kept.append({title: target})
    return kept


def recipes_page() -> str:
    """Markdown of the page that lists all recipes, each with the last result that its header states."""
    stage_1, stage_2, studies = [], [], []
    for file in sorted((ROOT / "recipes").rglob("*.yaml")):
        name = f"`{file.parent.name}/{file.name}`"
        if file.parent.name == "studies":
            study = read_study(file)
            cells = "; ".join(f"{cell.target}, {cell.backbone}" for cell in study.grid)
            arms = ", ".join(dict.fromkeys(LABELS[arm.mode] for arm in study.arms))
            studies.append([name, cells, arms, str(study.seeds), last_result(file)])
        elif file.parent.name == "experience":
            first = read_recipe(PretrainRecipe, file)
            sets = " and ".join(settings.name for settings in first.sets)
            encoder = f"`{first.backbone.name}`"
            stage_1.append([name, sets, encoder, epochs_and_batch(first.training), last_result(file)])
        else:
            second = read_recipe(TrainRecipe, file)
            backbone, arm = f"`{second.backbone.name}`", LABELS[second.regulation.mode]
            length = epochs_and_batch(second.training)
            stage_2.append([name, second.target.name, backbone, arm, length, last_result(file)])
    return "\n".join(
        [
            "# Recipes",
            "",
            "All recipes that ship with emoreg. The header of each says how to run it, where its settings come from "
            "and what it last gave, which is the last column here. `--smoke` tries one in seconds, `--print-config` "
            "shows every setting ([what they mean](settings.md)).",
            "",
            "## Stage 1",
            "",
            *table(["`recipes/`", "stimuli", "encoder", "epochs, batch", "last result"], stage_1),
            "",
            "## Stage 2",
            "",
            *table(["`recipes/`", "target", "backbone", "arm", "epochs, batch", "last result"], stage_2),
            "",
            "## Studies",
            "",
            *table(["`recipes/`", "target, backbone", "arms", "seeds", "last result"], studies),
            "",
        ]
    )


def last_result(file: Path) -> str:
    """The last result that the header of a recipe states: its text from "Expected ...:" or "Result" to the end."""
    header = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        header.append(line.removeprefix("#").strip())
    result = re.search(r"\b(?:Expected [\w ]+:|Result\b).*", " ".join(header))
    if result is None:
        return "not measured yet"
    return re.sub(r"^(Expected [\w ]+:|Result) ", "", result[0]).replace("|", "\\|")


def epochs_and_batch(training: TrainingSettings) -> str:
    """The epochs and the batch size of a recipe, for the table."""
    return f"{training.epochs}, {training.batch_size}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


if __name__ == "__main__":
    sys.exit(main())
