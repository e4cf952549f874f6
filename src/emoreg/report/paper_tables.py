"""The results as tables for the terminal, in Markdown and in LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from emoreg.report.analysis import Analysis, ArmResult, CellResult
from emoreg.report.formatting import decimal, p_value, percent, points
from emoreg.report.page_tables import ABSENT, WITHOUT_STAGE_1, Entry, by_experience, lam_entry, measured, name_entry
from emoreg.report.statistics import Interval

if TYPE_CHECKING:  # imported where they are used, so that the command line's help is instant
    from rich.console import Group
    from rich.table import Table

# Like pandas' own escape for LaTeX, and what that leaves: the OT1 encoding has no < > |, and few fonts have the others.
LATEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"},
        **{"<": r"\textless{}", ">": r"\textgreater{}", "\n": " ", "±": r"\(\pm\)", "−": r"\(-\)", "–": "--"},
    }
)
TERMINAL_HEADERS = (
    *("Arm", "Accuracy,\n%", "Gain over\nBackbone,\npoints", "p,\nHolm", "Emotion\neffect,\npoints", "p,\nHolm"),
    *("λ at\nend", "Seeds"),
)
PAPER_HEADERS = ("Arm", "Seeds", "Accuracy, %", "Gain, points", "p (Holm)", "Emotion effect, points", "p (Holm)")


def results_table(analysis: Analysis) -> Group:
    """For the terminal: a table per cell, a row per arm, within 80 columns."""
    from rich.console import Group

    return Group(*(_terminal_table(cell) for cell in analysis.cells))


def markdown_table(analysis: Analysis) -> str:
    """A table per cell, a row per arm, in the Markdown of GitHub and Pandoc."""
    blocks = []
    for cell in analysis.cells:
        header, *rows = ([markdown(value) for value in row] for row in (PAPER_HEADERS, *_paper_rows(cell)))
        lines = [f"| {' | '.join(row)} |" for row in (header, ["---", *["---:"] * (len(header) - 1)], *rows)]
        blocks.append("\n".join([f"**{markdown(cell.title)}**", "", *lines, "", markdown(_caption(cell))]))
    return "\n\n".join(blocks) + "\n"


def latex_table(analysis: Analysis) -> str:
    """A table environment per cell, a row per arm, with booktabs."""
    import pandas as pd

    blocks = [r"% needs \usepackage{booktabs}"]
    for number, cell in enumerate(analysis.cells, 1):
        rows = pd.DataFrame(_paper_rows(cell), columns=PAPER_HEADERS).style.hide().format(_latex)
        blocks.append(
            rows.format_index(_latex, axis="columns").to_latex(
                hrules=True,
                position_float="centering",
                column_format="l" + "r" * (len(PAPER_HEADERS) - 1),
                caption=_latex(f"{cell.title}. {_caption(cell)}"),
                label=f"tab:emoreg-{number}",
            )
        )
    return "\n\n".join(block.strip() for block in blocks) + "\n"


def markdown(text: str) -> str:
    """Text that no reader of Markdown takes for markup."""
    text = re.sub(r"([\\`*\[\]<>|~$&])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def _latex(text: object) -> str:
    return str(text).translate(LATEX)


def _terminal_table(cell: CellResult) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title_justify="left", title_style="bold")
    table.title, table.caption, table.caption_justify = Text(cell.title), Text(_caption(cell)), "left"
    table.add_column(Text(TERMINAL_HEADERS[0]), max_width=20, overflow="fold")
    for header in TERMINAL_HEADERS[1:]:
        table.add_column(Text(header), justify="right", no_wrap=True, overflow="fold")
    groups = by_experience(cell)
    for experience, arms in groups:
        if len(groups) > 1:
            table.add_row(Text(experience or WITHOUT_STAGE_1, style="italic"))
        for arm in arms:
            entries = [name_entry(arm), *_judged_entries(arm), lam_entry(arm), Entry(str(arm.accuracy.n))]
            table.add_row(*(Text.assemble(e.value, *([("\n" + e.below, "dim")] if e.below else [])) for e in entries))
    return table


def _paper_rows(cell: CellResult) -> list[list[str]]:
    return [
        [arm.label, str(arm.accuracy.n), *(_one_line(entry) for entry in _judged_entries(arm))]
        for _, arms in by_experience(cell)
        for arm in arms
    ]


def _judged_entries(arm: ArmResult) -> list[Entry]:
    """Accuracy; gain and its corrected p; emotion effect and its corrected p."""
    entries = [_half_interval(arm.accuracy, percent)]
    for judged in (arm.gain, arm.effect):
        if judged is None:
            entries += [ABSENT, ABSENT]
        else:
            entries += [_half_interval(judged.difference, points), Entry(p_value(judged.p_holm))]
    return entries


def _half_interval(interval: Interval, number: Callable[[float], str]) -> Entry:
    """A mean; below it half of its interval, which is symmetric."""
    entry = measured(interval, number)
    if not entry.below or interval.n == 1:
        return entry
    return entry._replace(below=f"±{decimal(50 * (interval.high - interval.low))}")


def _one_line(entry: Entry) -> str:
    return f"{entry.value} {entry.below.replace('±', '± ')}" if entry.below.startswith("±") else entry.value


def _caption(cell: CellResult) -> str:
    caption = (
        "Test accuracy, gain and emotion effect: mean over seeds ± half of the 95 % interval. p: exact, paired by "
        "seed, Holm-corrected over the study."
    )
    controls = dict.fromkeys(arm.effect.control for arm in cell.arms if arm.effect is not None)
    if not controls:
        return caption
    return (
        f"{caption} The emotion effect is the difference to the best control ({', '.join(controls)}); its p is for "
        "being above every control."
    )
