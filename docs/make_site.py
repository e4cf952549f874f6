"""Build the site: the pages in docs/, the README as its first page, the recipes' table, the API from docstrings.

    python docs/make_site.py [--out build/site]

Pages are put together in a folder of their own, so that nothing in the repository stands there twice: the first page is
the README, the table is made of the recipes. What a page links to outside of docs/ is not on the site; the link becomes
text. The builder runs strictly: a link or an anchor that leads nowhere ends it with exit code 1.
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
HOME, RECIPES = "index.md", "recipes.md"  # the pages that are made here
FROM_THE_ROOT = {"README.md": HOME, "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
WORKER, FETCHED = "assets/worker.js", "https://unpkg.com/iframe-worker/shim"
LINK = re.compile(r"\[([^\]\[]+)\]\(([^)\s]+)\)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the site. The builder's exit code."""
    parser = argparse.ArgumentParser(description="Build the site.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site", help="its folder, replaced (%(default)s)")
    out = parser.parse_args(arguments).out
    with tempfile.TemporaryDirectory() as made:
        put_together(Path(made))
        done = subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=made, check=False)
        if done.returncode == 0:
            keep_to_itself(Path(made) / "site")
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(Path(made) / "site", out)
            print(f"site: {out.resolve() / 'index.html'}")
    return done.returncode


def keep_to_itself(site: Path) -> None:
    """Put our own script in place of the one that the builder would have fetched from another host at reading time."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        own = "../" * (len(page.relative_to(site).parts) - 1) + WORKER
        page.write_text(text.replace(FETCHED, own), encoding="utf-8")


def put_together(folder: Path) -> None:
    """Write what the builder reads, mkdocs.yml and docs/, into an empty folder."""
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
    """Markdown whose links lead to pages of the site.

    Args:
        text: a page of docs/, or the README.
        folder: that its links are relative to, in the repository.
    """

    def link(found: re.Match[str]) -> str:
        label, target = found.groups()
        path, hash_sign, anchor = target.partition("#")
        if not path or ":" in path:  # within the page, or https:
            return found[0]
        place = (folder / path).resolve()
        if place.parent == ROOT and place.name in FROM_THE_ROOT:
            return f"[{label}]({FROM_THE_ROOT[place.name]}{hash_sign}{anchor})"
        if not place.is_relative_to(DOCS) or place.is_dir():
            return label
        if label == target and place.suffix == ".md":  # a path means nothing to readers of the site
            label = place.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        return f"[{label}]({place.relative_to(DOCS).as_posix()}{hash_sign}{anchor})"

    return LINK.sub(link, text)


def with_pages_that_exist(entries: Iterable[Any], pages: Path) -> list[Any]:
    """The navigation without pages that are not there, and without sections that have none."""
    kept: list[Any] = []
    for entry in entries:
        ((title, place),) = entry.items()
        if isinstance(place, list):
            place = with_pages_that_exist(place, pages)
        elif not (pages / place).is_file():
            continue
        if place:
            kept.append({title: place})
    return kept


def recipes_page() -> str:
    """The page of all recipes, with what each one's header says was last seen."""
    files = sorted((ROOT / "recipes").rglob("*.yaml"))
    of_stage_1, of_stage_2, of_studies = [], [], []
    for file in files:
        name = f"`{file.parent.name}/{file.name}`"
        if file.parent.name == "studies":
            study = read_study(file)
            cells = "; ".join(f"{cell.target}, {cell.backbone}" for cell in study.grid)
            arms = ", ".join(dict.fromkeys(LABELS[arm.mode] for arm in study.arms))
            of_studies.append([name, cells, arms, str(study.seeds), seen(file)])
        elif file.parent.name == "experience":
            first = read_recipe(PretrainRecipe, file)
            sets = " and ".join(settings.name for settings in first.sets)
            of_stage_1.append([name, sets, architecture(first.backbone.name), lasts(first.training), seen(file)])
        else:
            second = read_recipe(TrainRecipe, file)
            mode = second.regulation.mode
            arm = LABELS[mode]
            row = [name, second.target.name, architecture(second.backbone.name), arm, lasts(second.training)]
            of_stage_2.append([*row, seen(file)])
    return "\n".join(
        [
            "# Recipes",
            "",
            "All that ship with emoreg. Each one's header says how it is run, where its settings come from and what it "
            "was last seen to give; the last column is that line. `--smoke` tries one in seconds, `--print-config` "
            "shows every setting ([what they mean](settings.md)).",
            "",
            "## Stage 1",
            "",
            *table(["`recipes/`", "stimuli", "encoder", "epochs, batch", "last seen"], of_stage_1),
            "",
            "## Stage 2",
            "",
            *table(["`recipes/`", "target", "backbone", "arm", "epochs, batch", "last seen"], of_stage_2),
            "",
            "## Studies",
            "",
            *table(["`recipes/`", "target, backbone", "arms", "seeds", "last seen"], of_studies),
            "",
        ]
    )


def seen(file: Path) -> str:
    """What the header of a recipe says was last seen, from there to its end; or that nothing was."""
    header = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        header.append(line.removeprefix("#").strip())
    found = re.search(r"\b(?:Expected [\w ]+:|Result\b).*", " ".join(header))
    return re.sub(r"^(Expected [\w ]+:|Result) ", "", found[0]).replace("|", "\\|") if found else "not measured yet"


def architecture(name: str) -> str:
    """The name of a backbone, in code."""
    return f"`{name}`"


def lasts(training: TrainingSettings) -> str:
    """Epochs and batch size."""
    return f"{training.epochs}, {training.batch_size}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown."""
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


if __name__ == "__main__":
    sys.exit(main())
