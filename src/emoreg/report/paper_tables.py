"""The results as tables for the terminal, in Markdown and in LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from emoreg.report.analysis import Analysis, ArmResult, CellResult, ContrastResult
from emoreg.report.formatting import WITHOUT_INTERVALS, bounds, p_value, percent, points
from emoreg.report.page_tables import (
    ABSENT,
    UNDECIDED,
    Entry,
    has_no_intervals,
    in_groups,
    lam_entry,
    measured,
    name_in_group,
    regulation_note,
    tested_in,
    verdict_entry,
    width_and_seeds,
)

if TYPE_CHECKING:  # imported where they are used, so that the command line's help is instant
    from rich.console import Group

    from emoreg.runtime.terminal import Table

# As pandas escapes LaTeX, and more: the OT1 encoding lacks < > |, and few fonts have the others.
LATEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"},
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
CONTRASTS_SHORT = (
    "Mean difference, interval, verdict; label and emotion effect against the hardest twin, which is named."
)


def results_table(analysis: Analysis) -> Group:
    """The contrasts and accuracies of each cell for the terminal, within 80 columns."""
    from rich.console import Group

    return Group(*(table for cell in analysis.cells for table in _terminal_tables(cell)))


def markdown_report(analysis: Analysis, verdict: str) -> str:
    """The verdict, then the tables, in Markdown."""
    return "\n\n".join(filter(None, [f"# {markdown(analysis.name)}", markdown(verdict), markdown_table(analysis)]))


def markdown_table(analysis: Analysis) -> str:
    """The tables of each cell in the Markdown of GitHub and Pandoc."""
    blocks = []
    for cell in analysis.cells:
        for title, headers, rows, caption in _paper_tables(cell):
            header, *lines = ([markdown(value) for value in row] for row in (headers, *rows))
            under = ["---", *["---:"] * (len(header) - 1)]
            table = [f"| {' | '.join(row)} |" for row in (header, under, *lines)]
            blocks.append("\n".join([f"**{markdown(title)}**", "", *table, "", markdown(caption)]))
    return "\n\n".join(blocks) + "\n"


def latex_report(analysis: Analysis, verdict: str) -> str:
    """The verdict as a paragraph, then the tables as table environments with booktabs, in LaTeX."""
    import pandas as pd

    blocks = [NEEDS, _latex(verdict)]
    tables = [table for cell in analysis.cells for table in _paper_tables(cell)]
    for number, (title, headers, rows, caption) in enumerate(tables, 1):
        style = pd.DataFrame(rows, columns=headers).style.hide().format(_latex).format_index(_latex, axis="columns")
        table = style.to_latex(
            hrules=True,
            position_float="centering",
            column_format="l" + "r" * (len(headers) - 1),
            caption=_latex(f"{title}. {caption}"),
            label=f"tab:emoreg-{number}",
        )
        blocks.append(table.strip())
    return "\n\n".join(blocks) + "\n"


def markdown(text: str) -> str:
    """Escape a text, so that no reader of Markdown interprets it as markup."""
    text = re.sub(r"([\\`*\[\]<>|~$&])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def _latex(text: object) -> str:
    return str(text).translate(LATEX)


PaperTable = tuple[str, tuple[str, ...], list[list[str]], str]  # title, headers, rows, caption


def _paper_tables(cell: CellResult) -> Iterable[PaperTable]:
    if regulated := cell.regulated:
        kinds = tested_in([arm.contrasts for arm in regulated])
        headers = ("Arm", *(f"{kind.heading.replace(chr(10), ' ')}, points" for kind in kinds))
        rows = [
            [arm.label, *(_one_line(arm.contrasts.get(kind.name), arm.score.n) for kind in kinds)] for arm in regulated
        ]
        yield f"{cell.title}: contrasts", headers, rows, CONTRASTS + regulation_note(kinds) + _without(cell)
    rows = [
        [arm.label, str(arm.score.n), *(f"{e.value} {e.below and f'({e.below})'}".strip() for e in _scores(arm, "; "))]
        for _, arms in in_groups(cell)
        for arm in arms
    ]
    headers = ("Arm", "Seeds", cell.outcome.title.replace("\n", " "), "Minus Backbone, points", "λ at end")
    yield f"{cell.title}: {cell.outcome.plural}", headers, rows, ACCURACIES + _unusual(cell) + _without(cell)


def _terminal_tables(cell: CellResult) -> Iterable[Table]:
    if regulated := cell.regulated:
        kinds = tested_in([arm.contrasts for arm in regulated])
        of_contrasts = ["Arm", *(f"{kind.heading},\npoints" for kind in kinds)]
        rows = [
            [Entry(arm.label), *(_short(arm.contrasts.get(kind.name), arm.score.n) for kind in kinds)]
            for arm in regulated
        ]
        yield _terminal_table(
            f"{cell.title}: contrasts",
            of_contrasts,
            [("", rows)],
            CONTRASTS_SHORT + regulation_note(kinds) + _without(cell),
        )
    groups = [
        (title, [[Entry(name_in_group(arm)), *_scores(arm), Entry(str(arm.score.n))] for arm in arms])
        for title, arms in in_groups(cell)
    ]
    headers = ["Arm", cell.outcome.title, "Minus\nBackbone,\npoints", "λ at\nend", "Seeds"]
    caption = ACCURACIES + _unusual(cell) + _without(cell)
    yield _terminal_table(f"{cell.title}: {cell.outcome.plural}", headers, groups, caption)


def _terminal_table(
    title: str, headers: list[str], groups: Iterable[tuple[str, list[list[Entry]]]], caption: str
) -> Table:
    from rich import box
    from rich.text import Text

    from emoreg.runtime.terminal import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title_justify="left", title_style="bold")
    table.title, table.caption, table.caption_justify = Text(title), Text(caption), "left"
    table.add_column(headers[0])
    for header in headers[1:]:
        table.add_column(Text(header), justify="right", no_wrap=True)
    for heading, rows in groups:
        if heading:
            table.add_row(Text(heading, style="italic"))
        for entries in rows:
            table.add_row(*(Text.assemble(e.value, *([("\n" + e.below, "dim")] if e.below else [])) for e in entries))
    return table


def _without(cell: CellResult) -> str:
    """A note if there are no intervals."""
    return f" {WITHOUT_INTERVALS}" if has_no_intervals(cell) else ""


def _unusual(cell: CellResult) -> str:
    """A note if seeds or widths of the differences vary."""
    gains = [(arm.contrasts["gain"], arm.score.n) for arm in cell.arms if "gain" in arm.contrasts]
    return UNUSUAL if any(width_and_seeds(*each) for each in gains) else ""


def _scores(arm: ArmResult, between: str = "\n") -> list[Entry]:
    """Outcome, difference from Backbone, λ; `between` separates an interval from its unusual width or seeds."""
    gain, difference = arm.contrasts.get("gain"), ABSENT
    if gain is not None and gain.size.n:
        limits = (bounds(gain.size, points, " to "), width_and_seeds(gain, arm.score.n))
        difference = Entry(points(gain.size.mean), between.join(filter(None, limits)))
    return [measured(arm.score, percent, " to "), difference, lam_entry(arm)]


def _short(contrast: ContrastResult | None, seeds: int) -> Entry:
    """For a narrow column: a mean with its interval, the hardest twin and the verdict below it."""
    if contrast is None:
        return ABSENT
    verdict = UNDECIDED[contrast.verdict] if contrast.verdict in UNDECIDED else verdict_entry(contrast)
    below = filter(None, (bounds(contrast.size, points), width_and_seeds(contrast, seeds), contrast.versus, verdict))
    return Entry(points(contrast.size.mean), "\n".join(below))


def _one_line(contrast: ContrastResult | None, seeds: int) -> str:
    if contrast is None:
        return ABSENT.value
    p = "" if math.isnan(contrast.p) else f"p {p_value(contrast.p)}"
    limits = bounds(contrast.size, points, " to "), width_and_seeds(contrast, seeds)
    remarks = "; ".join(filter(None, (*limits, contrast.versus, p, verdict_entry(contrast))))
    return f"{points(contrast.size.mean)} ({remarks})" if remarks else points(contrast.size.mean)
