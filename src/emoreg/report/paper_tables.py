"""The results as tables to take along: for the terminal, in Markdown, and in LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from emoreg.report.analysis import Analysis, ArmResult, Cell
from emoreg.report.page_tables import (
    WITHOUT_STAGE_1,
    Entry,
    by_experience,
    gain_points,
    lam_entry,
    measured,
    name_entry,
    p_value,
    percent,
)
from emoreg.report.statistics import Interval

if TYPE_CHECKING:  # imported where they are used, so that the command line's help is instant
    from rich.console import Group
    from rich.table import Table

LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "\n": " ", "±": r"\(\pm\)", "–": "--"},
}


def results_table(analysis: Analysis) -> Group:
    """For the terminal: a table a cell, a row an arm, within 80 columns."""
    from rich.console import Group

    return Group(*(_terminal_table(cell) for cell in analysis.cells))


def markdown_table(analysis: Analysis) -> str:
    """All arms of each cell, as GitHub and Pandoc read it."""
    blocks = []
    for cell in analysis.cells:
        rows = [[markdown(value) for value in row] for row in _paper_rows(cell)]
        rows.insert(1, ["---", *["---:"] * (len(rows[0]) - 1)])
        lines = [f"| {' | '.join(row)} |" for row in rows]
        blocks.append("\n".join([f"**{markdown(cell.title)}**", "", *lines, "", markdown(_paper_caption(cell))]))
    return "\n\n".join(blocks) + "\n"


def latex_table(analysis: Analysis) -> str:
    """All arms of each cell: a table environment a cell, with booktabs."""
    blocks = [r"% needs \usepackage{booktabs}"]
    for number, cell in enumerate(analysis.cells, 1):
        header, *rows = ([_latex(value) for value in row] for row in _paper_rows(cell))
        columns = "l" + "r" * (len(header) - 1)
        blocks.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"  \centering",
                    rf"  \caption{{{_latex(f'{cell.title}. {_paper_caption(cell)}')}}}",
                    rf"  \label{{tab:emoreg-{number}}}",
                    rf"  \begin{{tabular}}{{{columns}}}",
                    r"    \toprule",
                    rf"    {' & '.join(header)} \\",
                    r"    \midrule",
                    *(rf"    {' & '.join(row)} \\" for row in rows),
                    r"    \bottomrule",
                    r"  \end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(blocks) + "\n"


def _terminal_table(cell: Cell) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    headers = ["Arm", "Accuracy,\n%", "Gain over\nBackbone,\npoints", "p,\nHolm"]
    headers += ["Emotion\neffect,\npoints", "p,\nHolm", "λ at\nend", "Seeds"]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title_justify="left", title_style="bold")
    table.title, table.caption, table.caption_justify = Text(cell.title), Text(_paper_caption(cell)), "left"
    for number, header in enumerate(headers):
        table.add_column(
            Text(header),
            justify="right" if number else "left",
            no_wrap=bool(number),
            max_width=None if number else 20,
            overflow="fold",
        )
    groups = by_experience(cell)
    for experience, arms in groups:
        if len(groups) > 1:
            table.add_row(Text(experience or WITHOUT_STAGE_1, style="italic"))
        for arm in arms:
            gain, gain_p, effect, effect_p = _judged(arm)
            entries = [name_entry(arm), _half(arm.accuracy, percent), _half(gain, gain_points), Entry(p_value(gain_p))]
            entries += [
                _half(effect, gain_points),
                Entry(p_value(effect_p)),
                lam_entry(arm),
                Entry(str(arm.accuracy.n)),
            ]
            cells = [Text.assemble(e.value, *([("\n" + e.below, "dim")] if e.below else [])) for e in entries]
            table.add_row(*cells)
    return table


def _judged(arm: ArmResult) -> tuple[Interval | None, float, Interval | None, float]:
    """Gain and emotion effect, each with its corrected p."""
    gain, effect = arm.gain, arm.effect
    return (
        None if gain is None else gain.difference,
        math.nan if gain is None else gain.p_holm,
        None if effect is None else effect.size.difference,
        math.nan if effect is None else effect.p_holm,
    )


def _half(interval: Interval | None, number: Callable[[float], str]) -> Entry:
    """A mean, and below it half of its interval, which lies evenly around it."""
    entry = measured(interval, number)
    if interval is None or not entry.below or interval.n == 1:
        return entry
    return entry._replace(below=f"±{_half_width(interval)}")


def _half_width(interval: Interval) -> str:
    return f"{50 * (interval.high - interval.low):.2f}"


def _paper_caption(cell: Cell) -> str:
    caption = (
        "Test accuracy, gain and emotion effect: mean over seeds and half of the 95 % interval. p: exact, paired by "
        "seed, corrected over the study (Holm)."
    )
    controls = dict.fromkeys(arm.effect.control for arm in cell.arms if arm.effect is not None)
    if not controls:
        return caption
    return (
        f"{caption} The emotion effect is the difference to the best control ({', '.join(controls)}); its p is of "
        "being above every control."
    )


def _paper_rows(cell: Cell) -> list[list[str]]:
    """For Markdown and LaTeX: a header, and a row an arm."""
    header = ["Arm", "Seeds", "Accuracy, %", "Gain, points", "p (Holm)", "Emotion effect, points", "p (Holm)"]
    rows = [header]
    for arm in (arm for _, arms in by_experience(cell) for arm in arms):
        gain, gain_p, effect, effect_p = _judged(arm)
        row = [arm.label, str(arm.accuracy.n), _plus_minus(arm.accuracy, percent)]
        row += [_plus_minus(gain, gain_points), p_value(gain_p), _plus_minus(effect, gain_points), p_value(effect_p)]
        rows.append(row)
    return rows


def _plus_minus(interval: Interval | None, number: Callable[[float], str]) -> str:
    value, below, _ = _half(interval, number)
    return value if not below.startswith("±") else f"{value} ± {below.removeprefix('±')}"


def markdown(text: str) -> str:
    """Text that no reader of Markdown takes for markup."""
    text = re.sub(r"([\\`*\[\]<>|~$&])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def _latex(text: str) -> str:
    escaped = "".join(LATEX.get(sign, sign) for sign in text)
    return re.sub(r"−(?=\d)", r"\\(-\\)", escaped)
