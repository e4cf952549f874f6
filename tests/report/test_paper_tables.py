from __future__ import annotations

import dataclasses
import io
import re

import pytest
from rich.console import Console

from emoreg.report.analysis import Analysis
from emoreg.report.paper_tables import latex_table, markdown_table, results_table
from emoreg.report.statistics import Interval
from report.made_up import made_up

LABELS = ("Backbone", "E-Reg", "Rand-E-Reg", "Learn-E-Reg", "Rand-Learn-E-Reg", "random_encoder", "ensemble")
CELLS = (("cifar10", "resnet20"), ("cifar100", "vit_tiny_patch16_224"))


def terminal(analysis: Analysis) -> list[str]:
    console = Console(width=80, record=True, file=io.StringIO(), color_system=None)
    console.print(results_table(analysis))
    return [line.rstrip() for line in console.export_text().splitlines()]


def named(name: str) -> Analysis:
    """A study whose target, backbone and experience have this name."""
    return made_up(experiences=(name,), cells=((name, name),))


def rows_of(markdown: str) -> list[list[str]]:
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_terminal_has_every_arm_whole_within_80_columns(seeds: int) -> None:
    lines = terminal(made_up(seeds))
    assert all(sum(line.startswith(f"{label} ") for line in lines) == 1 for label in LABELS)
    assert sum(line.startswith("control") for line in lines) == 4
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)


def test_large_numbers_and_long_names_stay_within_80_columns() -> None:
    analysis = named("an experience with a name that goes on and on")
    wide = Interval(-0.1234, -0.9876, 0.7408, (-0.1, 0.1))
    cell = analysis.cells[0]
    arms = []
    for arm in cell.arms:
        gain = arm.gain and dataclasses.replace(arm.gain, difference=wide, p_holm=0.0001)
        effect = arm.effect and dataclasses.replace(arm.effect, difference=wide, p_holm=0.0001)
        accuracy = dataclasses.replace(arm.accuracy, mean=1.0, low=0.5, high=1.5)
        arms.append(dataclasses.replace(arm, gain=gain, effect=effect, accuracy=accuracy, lam=(0.0, 1.0)))
    lines = terminal(dataclasses.replace(analysis, cells=(dataclasses.replace(cell, arms=tuple(arms)),)))
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    assert any("−12.34" in line for line in lines)
    assert any("±86.42" in line for line in lines)


def test_the_terminal_has_a_table_a_cell() -> None:
    lines = terminal(made_up(cells=CELLS))
    assert [line for line in lines if line in ("cifar10, resnet20", "cifar100, vit_tiny_patch16_224")] == [
        "cifar10, resnet20",
        "cifar100, vit_tiny_patch16_224",
    ]
    assert sum(line.startswith("Backbone ") for line in lines) == 2


def test_what_others_named_is_not_markup_in_the_terminal() -> None:
    assert "[b]x[/b]" in "\n".join(terminal(named("[b]x[/b]")))


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_number_that_is_not_there_is_never_written_as_nan(seeds: int) -> None:
    analysis = made_up(seeds)
    texts = ["\n".join(terminal(analysis)), markdown_table(analysis), latex_table(analysis)]
    assert not any(re.search(r"\bnan\b", text, re.IGNORECASE) for text in texts)


def test_markdown_has_a_row_an_arm_with_half_of_the_interval() -> None:
    analysis = made_up()
    header, _, *rows = rows_of(markdown_table(analysis))
    assert header[:4] == ["Arm", "Seeds", "Accuracy, %", "Gain, points"]
    assert [row[0] for row in rows][:4] == ["Backbone", "random_encoder", "ensemble", "E-Reg (oasis)"]
    learned = next(arm for arm in analysis.cells[0].arms if arm.name == "learned")
    half = 50 * (learned.accuracy.high - learned.accuracy.low)
    row = next(row for row in rows if row[0] == "Learn-E-Reg (oasis)")
    assert row[1:3] == ["3", f"{100 * learned.accuracy.mean:.2f} ± {half:.2f}"]
    assert row[5] != "–"
    assert rows[0][3:] == ["–"] * 4


def test_one_seed_has_no_plus_or_minus() -> None:
    rows = rows_of(markdown_table(made_up(1)))[2:]
    assert all("±" not in part for row in rows for part in row)


def test_a_pipe_in_a_name_ends_no_column_in_markdown() -> None:
    text = markdown_table(named("a|b `c` <script> *d* _e_ $f$"))
    assert {len(row) for row in rows_of(text)} == {7}
    assert r"a\|b \`c\` \<script\> \*d\* \_e\_ \$f\$" in text


def test_names_with_underscores_stay_as_they_are_in_markdown() -> None:
    assert "| random_encoder |" in markdown_table(made_up())


def test_latex_escapes_what_others_named() -> None:
    text = latex_table(named(r"50% \of {a}_b & #c $d$ ~^"))
    escaped = r"50\% \textbackslash{}of \{a\}\_b \& \#c \$d\$ \textasciitilde{}\textasciicircum{}"
    assert escaped in text
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body.strip().splitlines()} == {6}


def test_latex_is_a_table_a_cell_with_booktabs_and_balanced_braces() -> None:
    text = latex_table(made_up(cells=CELLS))
    assert text.startswith(r"% needs \usepackage{booktabs}")
    for mark in (r"\begin{table}", r"\end{table}", r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}"):
        assert text.count(mark) == 2
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert len(set(re.findall(r"\\label\{.*?\}", text))) == 2
    assert r"\(\pm\)" in text
    assert not set("±−–λ") & set(text)  # any LaTeX can set it, with any font


def test_nothing_finished_makes_empty_tables() -> None:
    empty = dataclasses.replace(made_up(), cells=())
    assert terminal(empty) == []
    assert rows_of(markdown_table(empty)) == []
    assert "tabular" not in latex_table(empty)
