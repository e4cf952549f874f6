"""The HTML page: one file that opens anywhere, offline and without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emoreg.report.analysis import Analysis, CellResult
from emoreg.report.charts import (
    MAX_CLASSES,
    Key,
    accuracy_chart,
    calibration_charts,
    class_gain_charts,
    class_lambda_charts,
    cost_charts,
    curve_charts,
    effect_charts,
    gain_charts,
    legend,
)
from emoreg.report.drawing import Chart
from emoreg.report.formatting import count, p_value
from emoreg.report.page_tables import (
    Grid,
    calibration_grid,
    controls_grid,
    cost_grid,
    experience_grid,
    overview_grid,
    responses_grid,
    results_grid,
)
from emoreg.report.statistics import smallest_p
from emoreg.runtime.safe_io import write_atomically

if TYPE_CHECKING:  # imported where it is used, so that the command line's help is instant
    from jinja2 import Template


@dataclass(frozen=True)
class Part:
    """A part of a section: a table, charts with their legend, or both."""

    key: str  # id
    title: str
    grid: Grid | None = None
    charts: tuple[Chart, ...] = ()
    legend: tuple[Key, ...] = ()
    caption: str = ""  # of the charts
    is_folded: bool = False  # collapsed on screen; always shown in print
    is_first_tall: bool = False  # whether the first chart spans two rows


@dataclass(frozen=True)
class Section:
    """A cell of the study on the page."""

    key: str
    title: str
    parts: tuple[Part, ...]


def write_report(path: Path, analysis: Analysis, sentences: Sequence[str]) -> Path:
    """Write one self-contained HTML page: findings, then each cell, then how to read it, settings and machines.

    Args:
        path: file to write.
        analysis: the study.
        sentences: findings, the most important first.

    Returns:
        `path`.
    """
    seeds = len(analysis.seeds)
    page = template("page.html.jinja").render(
        analysis=analysis,
        sentences=list(sentences),
        overview=overview_grid(analysis) if len(analysis.cells) > 1 else None,
        sections=[_section(number, cell, analysis) for number, cell in enumerate(analysis.cells, 1)],
        experiences=experience_grid(analysis.experiences) if analysis.experiences else None,
        count=count,
        smallest_p=p_value(smallest_p(seeds)) if seeds > 1 else None,
        by_validation=all(arm.effect.by_validation for arm in analysis.arms if arm.effect is not None),
    )
    write_atomically(path, page.encode("utf-8", "backslashreplace"))  # a folder's name may not be Unicode
    return path


def template(name: str, *folders: str) -> Template:
    """A page's template, which escapes everything it is given.

    Args:
        name: of its file.
        folders: packages to search before `emoreg.report`, which has the parts shared by all pages.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    loader = ChoiceLoader([PackageLoader(folder, "") for folder in (*folders, "emoreg.report")])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(name)


def _section(number: int, cell: CellResult, analysis: Analysis) -> Section:
    key = f"cell-{number}"
    fold = len(analysis.cells) > 1  # the long parts of many cells would bury the tables
    parts = [
        Part(f"{key}-results", "Results", results_grid(cell)),
        Part(
            f"{key}-accuracy",
            "Accuracy, gains and effects",
            charts=(
                accuracy_chart(cell, f"{key}-a"),
                *gain_charts(cell, f"{key}-g"),
                *effect_charts(cell, f"{key}-e"),
            ),
            caption="Circles: seeds. Diamond and line: mean and 95 % interval. The diamond of a gain or a difference "
            "is filled if the corrected p is at most 0.05 (for a difference, the p for being above every control). "
            "Dashed line: Backbone's mean, or zero. The accuracy axis does not start at zero.",
        ),
        Part(f"{key}-controls", "Against every control", controls_grid(cell)),
        Part(f"{key}-responses", "Each response alone", responses_grid(cell)),
        _curves(key, cell, fold),
        Part(
            f"{key}-class-lambda",
            "λ of each class",
            charts=tuple(class_lambda_charts(cell, f"{key}-cl")),
            legend=legend([arm for arm in cell.arms if "lambda_0" in arm.curves]),
            caption=f"Mean over seeds. Classes are sorted by λ at the last epoch, highest first.{_shown_classes(cell)}",
            is_folded=fold,
        ),
        Part(
            f"{key}-class-gain",
            "Gain in each class",
            charts=tuple(class_gain_charts(cell, f"{key}-cg")),
            legend=legend([arm for arm in cell.arms if arm.arm.is_regulated]),
            caption="Test accuracy in the class minus Backbone's, paired by seed: mean and 95 % interval, not "
            "corrected, so with many classes some differ from zero by chance. Classes are sorted by their mean over "
            f"all regulated arms, highest first.{_shown_classes(cell)}",
            is_folded=fold,
        ),
        Part(
            f"{key}-calibration",
            "Calibration",
            calibration_grid(cell),
            charts=tuple(calibration_charts(cell, f"{key}-c")),
            caption="Test images of all seeds in bins of confidence; larger points have more images. Below the dashed "
            "line the network is overconfident.",
            is_folded=fold,
            is_first_tall=True,
        ),
        Part(
            f"{key}-cost",
            "Cost",
            cost_grid(cell),
            charts=tuple(cost_charts(cell, f"{key}-t")),
            legend=legend(cell.arms),
            caption="Mean gain against mean training time.",
            is_folded=fold,
        ),
    ]
    return Section(key, cell.title, tuple(part for part in parts if part.grid or part.charts))


def _curves(key: str, cell: CellResult, fold: bool) -> Part:
    charts = (
        *curve_charts(cell, f"{key}-v", "val_accuracy", "Validation accuracy, %", 100),
        *curve_charts(cell, f"{key}-l", "train_loss", "Training loss"),
        *curve_charts(cell, f"{key}-r", "lambda", "λ"),
    )
    caption = "Line: mean over seeds. Band: lowest to highest seed."
    if any(arm.name == "ensemble" for arm in cell.arms):
        caption += " The ensemble's training loss is the sum of its two networks'."
    if any(arm.omits_lambda_curve for arm in cell.arms):
        caption += (
            " λ of arms with one λ per image is left out for runs of emoreg 0.1.0, which recorded the gate's λ at "
            "features of zero, not the mean over images."
        )
    return Part(f"{key}-training", "Training", charts=charts, legend=legend(cell.arms), caption=caption, is_folded=fold)


def _shown_classes(cell: CellResult) -> str:
    half = MAX_CLASSES // 2
    if len(cell.classes) <= MAX_CLASSES:
        return ""
    return f" Of {len(cell.classes)} classes, the {half} highest and the {half} lowest are shown."
