"""The results as tables for the terminal, in Markdown and in LaTeX."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from emoreg.report.analysis import Analysis, ArmResult, CellResult, ContrastResult
from emoreg.report.formatting import WITHOUT_INTERVALS, bounds, p_value, percent, points
from emoreg.report.page_tables import (
    ABSENT,
    ARM,
    LABEL,
    LAM,
    SEEDS,
    UNDECIDED,
    UNTESTED,
    Column,
    Entry,
    Grid,
    grid_of,
    has_no_intervals,
    measured,
    regulation_note,
    tested_in,
    verdict_entry,
    width_and_seeds,
)

if TYPE_CHECKING:  # imported where they are used, so that the command line's help is instant
    from rich.console import Group

    from emoreg.runtime.terminal import Table

# The OT1 encoding lacks < > |, few fonts have − – λ, and after a row's end [ and * would be arguments of the end.
LATEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"},
        **{"[": "{[}", "*": "{*}"},
        **{"<": r"\textless{}", ">": r"\textgreater{}", "\n": " ", "−": r"\(-\)", "–": "--", "λ": r"\(\lambda\)"},
    }
)
NEEDS = r"% needs \usepackage{booktabs}"
ACCURACIES = "Mean and 95 % interval; differences from Backbone are paired by seed."
UNUSUAL = " Where a difference is over other seeds, or its interval has another width, these are given with it."
CONTRASTS = (
    "Mean difference paired by seed, its interval, p, verdict. Label and emotion effect are against the hardest twin, "
    "which is named. p is one-sided, from a studentised bootstrap, corrected for the number of arms; a test passes at "
    "the one-sided level of its interval, 0.025 for 95 %."
)
EXPLORED = (
    "Mean difference paired by seed, its interval, verdict. Label and emotion effect are against the hardest twin, "
    f"which is named. {UNTESTED}"
)
CONTRASTS_SHORT = (
    "Mean difference, interval, verdict; label and emotion effect against the hardest twin, which is named."
)


def results_table(analysis: Analysis) -> Group:
    """The contrasts and accuracies of each cell for the terminal, within 80 columns."""
    from rich.console import Group

    return Group(*(_terminal_table(grid) for cell in analysis.cells for grid in _grids(cell, is_narrow=True)))


def markdown_report(analysis: Analysis, verdict: str) -> str:
    """The verdict, then the tables, in Markdown."""
    return "\n\n".join(filter(None, [f"# {markdown(analysis.name)}", markdown(verdict), markdown_table(analysis)]))


def markdown_table(analysis: Analysis) -> str:
    """The tables of each cell in the Markdown of GitHub and Pandoc."""
    grids = [grid for cell in analysis.cells for grid in _grids(cell)]
    return "\n\n".join(f"**{markdown(grid.name)}**\n\n{markdown_grid(grid)}" for grid in grids) + "\n"


def markdown_grid(grid: Grid) -> str:
    """A table in Markdown, without the headings of its groups, and its caption."""
    under = ["---", *["---:"] * (len(grid.headers) - 1)]
    rows = [[markdown(value) for value in row] for row in (grid.headers, *grid.rows_of_text)]
    lines = [f"| {' | '.join(row)} |" for row in (rows[0], under, *rows[1:])]
    return "\n".join([*lines, "", markdown(grid.caption)])


def latex_report(analysis: Analysis, verdict: str) -> str:
    """The verdict as a paragraph, then the tables as table environments with booktabs, in LaTeX."""
    blocks = [NEEDS, _latex(verdict)]
    for number, grid in enumerate((grid for cell in analysis.cells for grid in _grids(cell)), 1):
        rows = [
            _latex_lines([f"{entry.value}\n{entry.below}".strip() for entry in row])
            for _, group in grid.groups
            for row in group
        ]
        lines = [
            *(r"\begin{table}", r"\centering"),
            rf"\caption{{{_latex(f'{grid.name}. {grid.caption}')}}}",
            rf"\label{{tab:emoreg-{number}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(grid.headers) - 1)}}}",
            *(r"\toprule", _latex_lines(grid.headers), r"\midrule", "\n\\addlinespace\n".join(rows), r"\bottomrule"),
            *(r"\end{tabular}", r"\end{table}"),
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _latex_lines(cells: Sequence[str]) -> str:
    """A row of a table. Each line of its cells is a row in LaTeX, so that the table is no wider than a page."""
    lines = itertools.zip_longest(*(cell.split("\n") for cell in cells), fillvalue="")
    return "\n".join(" & ".join(map(_latex, line)) + r" \\" for line in lines)


def markdown(text: str) -> str:
    """Escape a text, so that no reader of Markdown interprets it as markup."""
    text = re.sub(r"([\\`*\[\]<>|~$&])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def _latex(text: str) -> str:
    return text.translate(LATEX)


def _grids(cell: CellResult, is_narrow: bool = False) -> Iterable[Grid]:
    """The contrasts of regulated arms, then the outcomes of all arms.

    Args:
        cell: the cell.
        is_narrow: for the terminal, which shows the headings of groups: shorter names and contrasts.
    """
    without = f" {WITHOUT_INTERVALS}" if has_no_intervals(cell) else ""
    if regulated := cell.regulated:
        kinds = tested_in([arm.contrasts for arm in regulated])
        entry, caption = _in_full, CONTRASTS if cell.is_tested else EXPLORED
        if is_narrow:
            entry, caption = _short, CONTRASTS_SHORT
        rows = tuple(
            (Entry(arm.label), *(entry(arm.contrasts.get(kind.name), arm.score.n) for kind in kinds))
            for arm in regulated
        )
        headers = ("Arm", *(f"{kind.heading},\npoints" for kind in kinds))
        yield Grid(f"{cell.title}: contrasts", caption + regulation_note(kinds) + without, headers, (("", rows),))
    gains = [(arm.contrasts["gain"], arm.score.n) for arm in cell.arms if "gain" in arm.contrasts]
    unusual = UNUSUAL if any(width_and_seeds(*each) for each in gains) else ""
    figures: list[Column] = [
        (cell.outcome.title, lambda arm: measured(arm.score, percent, " to ")),
        ("Minus\nBackbone,\npoints", _gain),
        LAM,
    ]
    columns = [ARM, *figures, SEEDS] if is_narrow else [LABEL, SEEDS, *figures]
    yield grid_of(f"{cell.title}: {cell.outcome.plural}", ACCURACIES + unusual + without, columns, cell)


def _terminal_table(grid: Grid) -> Table:
    from rich import box
    from rich.text import Text

    from emoreg.runtime.terminal import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title_justify="left", title_style="bold")
    table.title, table.caption, table.caption_justify = Text(grid.name), Text(grid.caption), "left"
    table.add_column(grid.headers[0])
    for header in grid.headers[1:]:
        table.add_column(Text(header), justify="right", no_wrap=True)
    for heading, rows in grid.groups:
        if heading:
            table.add_row(Text(heading, style="italic"))
        for entries in rows:
            table.add_row(*(Text.assemble(e.value, *([("\n" + e.below, "dim")] if e.below else [])) for e in entries))
    return table


def _gain(arm: ArmResult) -> Entry:
    """The difference from Backbone, with its interval below it."""
    gain = arm.contrasts.get("gain")
    if gain is None or not gain.size.n:
        return ABSENT
    below = filter(None, (bounds(gain.size, points, " to "), width_and_seeds(gain, arm.score.n)))
    return Entry(points(gain.size.mean), "\n".join(below))


def _short(contrast: ContrastResult | None, seeds: int) -> Entry:
    """For a narrow column: a mean with its interval, the hardest twin and the verdict below it."""
    if contrast is None:
        return ABSENT
    verdict = UNDECIDED[contrast.verdict] if contrast.verdict in UNDECIDED else verdict_entry(contrast)
    below = filter(None, (bounds(contrast.size, points), width_and_seeds(contrast, seeds), contrast.versus, verdict))
    return Entry(points(contrast.size.mean), "\n".join(below))


def _in_full(contrast: ContrastResult | None, seeds: int) -> Entry:
    """As `_short`, with p and the verdict in full."""
    if contrast is None:
        return ABSENT
    p = "" if math.isnan(contrast.p) else f"p {p_value(contrast.p)}"
    limits = bounds(contrast.size, points, " to "), width_and_seeds(contrast, seeds)
    below = filter(None, (*limits, contrast.versus, p, verdict_entry(contrast)))
    return Entry(points(contrast.size.mean), "\n".join(below))
