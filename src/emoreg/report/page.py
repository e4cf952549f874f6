"""The page for people: one file that opens anywhere, offline, without a script."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emoreg.report.analysis import WRONG_GATE_CURVES, Analysis, ArmResult, Cell
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
    gain_chart,
    legend,
)
from emoreg.report.drawing import Chart
from emoreg.report.page_tables import (
    Grid,
    calibration_grid,
    controls_grid,
    cost_grid,
    experience_grid,
    overview_grid,
    p_value,
    responses_grid,
    results_grid,
)
from emoreg.report.statistics import smallest_p
from emoreg.runtime.safe_io import write_atomically

if TYPE_CHECKING:  # imported where it is used, so that the command line's help is instant
    from jinja2 import Template


@dataclass(frozen=True)
class Part:
    """A piece of a cell's section: a table, charts with their legend, or both."""

    key: str  # its id
    title: str
    grid: Grid | None = None
    charts: tuple[Chart, ...] = ()
    legend: tuple[Key, ...] = ()
    caption: str = ""  # of the charts
    is_folded: bool = False  # shown when it is asked for, and in print
    is_first_tall: bool = False  # whether the first chart is as high as two others


@dataclass(frozen=True)
class Section:
    """A cell on the page."""

    key: str
    title: str
    parts: tuple[Part, ...]


def write_report(path: Path, analysis: Analysis, sentences: Sequence[str]) -> Path:
    """Write one self-contained HTML page: what was found, then each cell, then how to read it and what ran where.

    Args:
        path: of the page.
        analysis: of the study.
        sentences: what was found, the most important first.

    Returns:
        The path.
    """
    seeds = len(analysis.seeds)
    page = template("page.html.jinja").render(
        analysis=analysis,
        sentences=list(sentences),
        overview=overview_grid(analysis) if len(analysis.cells) > 1 else None,
        sections=[_section(number, cell, analysis) for number, cell in enumerate(analysis.cells, 1)],
        experiences=experience_grid(analysis.experiences) if analysis.experiences else None,
        smallest_p=p_value(smallest_p(seeds)) if seeds > 1 else None,
        by_validation=all(arm.effect.by_validation for arm in _arms(analysis) if arm.effect is not None),
    )
    write_atomically(path, page.encode("utf-8", "backslashreplace"))  # of a folder whose name is no Unicode
    return path


def template(name: str, *folders: str) -> Template:
    """A page's template, whatever goes into it escaped.

    Args:
        name: of its file.
        folders: packages in which files are looked for before this one's, where the pieces of every page are.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def source(asked: str) -> str | None:
        places = (importlib.resources.files(folder).joinpath(asked) for folder in (*folders, "emoreg.report"))
        return next((place.read_text(encoding="utf-8") for place in places if place.is_file()), None)

    loader = FunctionLoader(source)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(name)


def _section(number: int, cell: Cell, analysis: Analysis) -> Section:
    key = f"cell-{number}"
    fold = len(analysis.cells) > 1  # the long parts of many cells would bury the tables
    parts = [
        Part(f"{key}-results", "Results", results_grid(cell)),
        Part(
            f"{key}-accuracy",
            "Accuracy, gains and effects",
            charts=_drawn(
                accuracy_chart(cell, f"{key}-a"), gain_chart(cell, f"{key}-g"), *effect_charts(cell, f"{key}-e")
            ),
            caption="Circles: one a seed. Diamond and line: mean and 95 % interval. In gains and differences a filled "
            "diamond says that the corrected p is at most 0.05; of a difference, that of being above every control. "
            "Dashed: Backbone's mean, or zero. The axis of accuracies does not begin at zero.",
        ),
        Part(f"{key}-controls", "Against every control", controls_grid(cell)),
        Part(f"{key}-responses", "Each response alone", responses_grid(cell)),
        _curves(key, cell, fold),
        Part(
            f"{key}-class-lambda",
            "λ of each class",
            charts=tuple(class_lambda_charts(cell, f"{key}-cl")),
            legend=legend([arm for arm in cell.arms if "lambda_0" in arm.curves]),
            caption=f"Mean over seeds; the classes by falling λ at the last epoch.{_which(cell)}",
            is_folded=fold,
        ),
        Part(
            f"{key}-class-gain",
            "Gain in each class",
            charts=tuple(class_gain_charts(cell, f"{key}-cg")),
            legend=legend([arm for arm in cell.arms if arm.arm.is_regulated]),
            caption="Test accuracy in the class minus Backbone's, paired by seed: mean and 95 % interval, not "
            "corrected: of this many some lie beside zero by chance. The classes by falling mean over all "
            f"regulated arms.{_which(cell)}",
            is_folded=fold,
        ),
        Part(
            f"{key}-calibration",
            "Calibration",
            calibration_grid(cell),
            charts=tuple(calibration_charts(cell, f"{key}-c")),
            caption="Test images in bins by the confidence of the answer, all seeds together; the larger a point, the "
            "more images. Below the dashed line the network is more confident than it is right.",
            is_folded=fold,
            is_first_tall=True,
        ),
        Part(
            f"{key}-cost",
            "Cost",
            cost_grid(cell),
            charts=tuple(cost_charts(cell, f"{key}-t")),
            legend=legend(cell.arms),
            caption="Mean gain against the mean time of training.",
            is_folded=fold,
        ),
    ]
    return Section(key, cell.title, tuple(part for part in parts if part.grid or part.charts))


def _curves(key: str, cell: Cell, fold: bool) -> Part:
    charts = (
        *curve_charts(cell, f"{key}-v", "val_accuracy", "Validation accuracy, %", 100),
        *curve_charts(cell, f"{key}-l", "train_loss", "Training loss"),
        *curve_charts(cell, f"{key}-r", "lambda", "λ"),
    )
    caption = "Lines: mean over seeds. Bands: from the lowest to the highest seed."
    if any(arm.name == "ensemble" for arm in cell.arms):
        caption += " The ensemble's training loss is the sum of its two networks'."
    if any(arm.omits_lambda_curve for arm in cell.arms):
        caption += (
            f" λ of arms with one λ per image is left out for runs of emoreg {WRONG_GATE_CURVES}, which recorded the "
            "gate's λ at features of zero, not the mean over images."
        )
    return Part(f"{key}-training", "Training", charts=charts, legend=legend(cell.arms), caption=caption, is_folded=fold)


def _drawn(*charts: Chart | None) -> tuple[Chart, ...]:
    return tuple(chart for chart in charts if chart is not None)


def _which(cell: Cell) -> str:
    if len(cell.classes) <= MAX_CLASSES:
        return ""
    return (
        f" Of {len(cell.classes)} classes the {MAX_CLASSES // 2} highest and the {MAX_CLASSES // 2} lowest are shown."
    )


def _arms(analysis: Analysis) -> Iterable[ArmResult]:
    return (arm for cell in analysis.cells for arm in cell.arms)
