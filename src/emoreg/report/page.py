"""The HTML page: one file that opens offline and without scripts."""

from __future__ import annotations

import re
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
    contrast_charts,
    cost_charts,
    curve_charts,
    legend,
    twin_charts,
)
from emoreg.report.dose_response import dose_charts, dose_grid
from emoreg.report.drawing import Chart
from emoreg.report.formatting import all_of, capital
from emoreg.report.measures import measures_grid
from emoreg.report.page_tables import (
    Grid,
    accuracy_grid,
    calibration_grid,
    contrasts_grid,
    cost_grid,
    overview_grid,
    responses_grid,
    stage_one_grid,
    twins_grid,
)
from emoreg.report.paper_claims import claims_grid
from emoreg.report.suite_tables import HEADING, RULES, suite_sections
from emoreg.runtime.safe_io import write_atomically, writing

if TYPE_CHECKING:  # imported where it is used, so that the command line's help is instant
    from jinja2 import Template
    from markupsafe import Markup


FOREST = "Circles: seeds. Diamond and line: mean and interval"
TESTED = "; a filled diamond passed its test. References are not tested."
BAND = (
    " Pale band: a true difference beyond it would be found in at least four of five such studies (power 0.8), if all "
    "arms vary alike and as much as here. One that ends at the edge goes on."
)
CURVES = (  # columns of metrics.csv, titles and factors; they follow the outcome on validation images
    ("train_loss", "Training loss", 1),
    ("lambda", "λ", 1),
    ("gradient_share", "Backbone branch's share of the gradient", 1),
    ("norm_non_emotional", "Norm of the backbone branch's weights", 1),
    ("norm_emotional", "Norm of the encoder's weights", 1),
)


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
    """Write one self-contained HTML page: the verdict, a picture and a table of all contrasts, then the evidence.

    The verdict is the first of the sentences. Returns the path. Raises UserError if the file cannot be written.
    """
    charts = [
        chart for number, cell in enumerate(analysis.cells, 1) for chart in contrast_charts(cell, f"lead-{number}")
    ]
    has_band = any(c.smallest > 0 for arm in analysis.arms for c in arm.contrasts.values())
    is_tested = any(cell.is_tested for cell in analysis.cells)
    caption = FOREST + (TESTED if is_tested else ".") + (BAND if has_band else "")
    page = template("page.html.jinja").render(
        analysis=analysis,
        sentences=list(sentences),
        picture=Part("picture", "Contrasts", charts=tuple(charts), caption=caption) if charts else None,
        contrasts=contrasts_grid(analysis.cells[0]) if len(analysis.cells) == 1 else None,
        overview=overview_grid(analysis) if len(analysis.cells) > 1 else None,
        claims=claims_grid(analysis),
        sections=[_section(number, cell, analysis) for number, cell in enumerate(analysis.cells, 1)],
        suites=suite_sections(analysis),
        suites_heading=HEADING,
        suites_rules=RULES,
        stage_1=stage_one_grid(analysis.stage_1),
    )
    with writing(path):
        write_atomically(path, page.encode("utf-8", "backslashreplace"))  # a folder's name may not be Unicode
    return path


def template(name: str, *folders: str) -> Template:
    """Load the template of a page; it escapes everything that it is given.

    Args:
        name: file name of the template.
        folders: packages to search before `emoreg.report`, which has the parts shared by all pages.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    loader = ChoiceLoader([PackageLoader(folder, "") for folder in (*folders, "emoreg.report")])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["subscripts"] = subscripts
    return environment.get_template(name)


def subscripts(text: str) -> Markup:
    """Set z_n, g_e and the like in a text as symbols with a subscript."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"\b([azg])_([ne])\b", r"\1<sub>\2</sub>", str(escape(text))))


def _section(number: int, cell: CellResult, analysis: Analysis) -> Section:
    key = f"cell-{number}"
    fold = len(analysis.cells) > 1  # the long parts of many cells would bury the tables
    is_counted = cell.outcome.is_counted
    parts = [
        # With a single cell this table is at the top of the page.
        *([Part(f"{key}-contrasts", "Contrasts", contrasts_grid(cell))] if fold else []),
        Part(
            f"{key}-accuracy",
            capital(cell.outcome.plural),
            accuracy_grid(cell),
            charts=(accuracy_chart(cell, f"{key}-a"),),
            caption=f"{FOREST} of 95 %. Dashed line: Backbone's mean. The axis does not start at zero.",
        ),
        Part(
            f"{key}-twins",
            "Against every twin",
            twins_grid(cell),
            charts=tuple(twin_charts(cell, f"{key}-w")),
            caption=f"{FOREST}. Dashed line: zero.",
        ),
        Part(
            f"{key}-dose",
            "Dose and response",
            dose_grid(cell, analysis.doses),
            charts=tuple(dose_charts(cell, analysis.doses, f"{key}-d")),
            caption="Circles: seeds. Marker and line: mean and interval at a dose. Dashed line: zero.",
        ),
        Part(f"{key}-measures", "Other figures", measures_grid(cell), is_folded=fold),
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
            "Each class" if is_counted else "Each label",
            charts=tuple(class_gain_charts(cell, f"{key}-cg")),
            legend=legend([arm for family in cell.families for arm in family.arms]),
            caption=f"{'Accuracy in the class' if is_counted else 'Average precision of the label'} minus Backbone's, "
            "paired by seed: mean and 95 % interval, not corrected, so with many classes some differ from zero by "
            "chance. Classes are sorted by their mean over all regulated arms, highest first."
            f"{_shown_classes(cell)}",
            is_folded=fold,
        ),
        Part(
            f"{key}-calibration",
            "Calibration",
            calibration_grid(cell),
            charts=tuple(calibration_charts(cell, f"{key}-c")),
            caption="Images of all seeds, binned by confidence; larger points have more images. Below the dashed line "
            "the network is overconfident.",
            is_folded=fold,
            is_first_tall=True,
        ),
        Part(
            f"{key}-cost",
            "Cost",
            cost_grid(cell),
            charts=tuple(cost_charts(cell, f"{key}-t")),
            legend=legend(cell.arms),
            caption="Mean difference from Backbone against mean training time.",
            is_folded=fold,
        ),
    ]
    shown = [part for part in parts if part.charts or (part.grid and part.grid.has_figures)]
    return Section(key, cell.title, tuple(shown))


def _curves(key: str, cell: CellResult, fold: bool) -> Part:
    outcome = cell.outcome
    validation = (f"val_{outcome.name}", f"Validation {outcome.words}, {outcome.unit}", 100)
    charts = [
        chart
        for place, (column, title, scale) in enumerate((validation, *CURVES))
        for chart in curve_charts(cell, f"{key}-v{place}", column, title, scale)
    ]
    caption = "Line: mean over seeds. Band: lowest to highest seed."
    if any("gradient_share" in arm.curves for arm in cell.arms):
        caption += (
            " Backbone branch's share: ‖g_n‖ / (‖g_n‖ + ‖g_e‖) for the gradients of the weights of the backbone (g_n) "
            "and of the encoder (g_e), at the last step of the epoch; near 0 or 1 one branch starves."
        )
    if apart := [arm.role for arm in cell.references if arm.arm.mode in ("ensemble", "unregulated")]:
        caption += f" The training loss of {all_of(list(dict.fromkeys(apart)))} is the sum of two networks'."
    if cell.regulated:
        caption += (
            " The training loss of a regulated arm is the weighted sum of its losses, not comparable with Backbone's."
        )
    if any(arm.omits_lambda_curve for arm in cell.arms):
        caption += (
            " λ of arms with one λ per image is left out for runs of emoreg 0.1.0, which recorded the gate's λ at "
            "features of zero, not the mean over images."
        )
    return Part(
        f"{key}-training", "Training", charts=tuple(charts), legend=legend(cell.arms), caption=caption, is_folded=fold
    )


def _shown_classes(cell: CellResult) -> str:
    if len(cell.classes) <= MAX_CLASSES:
        return ""
    half = MAX_CLASSES // 2
    return f" Of {len(cell.classes)} classes, the {half} highest and the {half} lowest are shown."
