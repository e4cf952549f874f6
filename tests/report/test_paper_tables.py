from __future__ import annotations

import dataclasses
import io
import re

import pytest
from rich.console import Console

from emoreg.report.analysis import Analysis
from emoreg.report.paper_tables import latex_report, markdown_report, markdown_table, results_table
from emoreg.report.statistics import Interval
from report.made_up import between_looks, made_up

CELLS = (("cifar10", "resnet20"), ("cifar100", "vit_tiny_patch16_224"))


def terminal(analysis: Analysis) -> list[str]:
    console = Console(width=80, record=True, file=io.StringIO(), color_system=None)
    console.print(results_table(analysis))
    return [line.rstrip() for line in console.export_text().splitlines()]


def named(name: str) -> Analysis:
    """A study with this name for its target, backbone and stimuli."""
    return made_up(stimuli=(name, "oasis"), cells=((name, name),))


def rows_of(markdown: str) -> list[list[str]]:
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


@pytest.mark.parametrize("seeds", [1, 4])
def test_the_terminal_has_every_arm_whole_within_80_columns(seeds: int) -> None:
    lines = terminal(made_up(seeds))
    contrasts, accuracies = lines[: lines.index("cifar10, resnet20: accuracies")], lines
    labels = [
        line.removeprefix("Arm: ").partition(" ")[0] for line in contrasts
    ]  # one line per column if the columns do not fit
    assert all(labels.count(label) == 1 for label in ("E-Reg", "Learn-E-Reg"))
    for label in ("Backbone", "Ensemble", "Wide", "Transfer", "fresh", "moments", "neutral", "rotation"):
        assert sum(line.startswith(f"{label} ") for line in accuracies) == 1
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)


def test_large_numbers_and_long_names_stay_within_80_columns() -> None:
    analysis = named("stimuli with a name that goes on and on")
    wide = Interval(-0.1234, -0.9876, 0.7408, (-0.1, 0.1))
    cell = analysis.cells[0]
    arms = [
        dataclasses.replace(
            arm,
            contrasts={name: dataclasses.replace(c, size=wide) for name, c in arm.contrasts.items()},
            lam=(0.0, 1.0),
        )
        for arm in cell.arms
    ]
    lines = terminal(dataclasses.replace(analysis, cells=(dataclasses.replace(cell, arms=tuple(arms)),)))
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    assert any("−98.76, +74.08" in line for line in lines)


def test_the_terminal_has_two_tables_per_cell() -> None:
    lines = terminal(made_up(cells=CELLS))
    assert [line for line in lines if line.endswith((": contrasts", ": accuracies"))] == [
        "cifar10, resnet20: contrasts",
        "cifar10, resnet20: accuracies",
        "cifar100, vit_tiny_patch16_224: contrasts",
        "cifar100, vit_tiny_patch16_224: accuracies",
    ]
    assert sum(line.startswith("Backbone ") for line in lines) == 2


def test_user_supplied_names_are_not_markup_in_the_terminal() -> None:
    assert "[b]x[/b]" in "\n".join(terminal(named("[b]x[/b]")))


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_missing_number_is_never_written_as_nan(seeds: int) -> None:
    analysis = made_up(seeds)
    texts = ["\n".join(terminal(analysis)), markdown_table(analysis), latex_report(analysis, "")]
    assert not any(re.search(r"\bnan\b", text, re.IGNORECASE) for text in texts)


def test_markdown_has_the_contrasts_of_regulated_arms_and_the_accuracy_of_all() -> None:
    analysis = made_up()
    contrasts, accuracies = (rows_of(block) for block in markdown_table(analysis).split("accuracies**"))
    assert contrasts[0] == [
        *("Arm", "Gain over Backbone, points", "Over the ensemble, points", "Over transfer, points"),
        *("Label effect, points", "Emotion effect, points"),
    ]
    assert [row[0] for row in contrasts[2:]] == ["E-Reg", "Learn-E-Reg"]
    assert [row[0] for row in accuracies[2:]][:6] == [
        *("Backbone", "Ensemble", "Wide", "Transfer", "E-Reg", "E-Reg, shuffled")
    ]
    learned = next(arm for arm in analysis.cells[0].arms if arm.label == "Learn-E-Reg")
    row = next(row for row in accuracies if row[0] == "Learn-E-Reg")
    low, high = (f"{100 * value:.2f}" for value in (learned.score.low, learned.score.high))
    assert row[1:3] == ["4", f"{100 * learned.score.mean:.2f} ({low} to {high})"]
    assert accuracies[2][3:] == ["–", "–"]
    assert re.fullmatch(r"[+−]\d.\d\d \(.+ to .+; vs \w+; .+\)", contrasts[3][5])


def test_between_looks_differences_give_their_seeds_and_width() -> None:
    analysis = between_looks()
    contrasts, accuracies = (rows_of(block) for block in markdown_table(analysis).split("accuracies**"))
    assert all("; 99.7 %, 6 seeds; " in value for value in contrasts[2][1:])
    learned = next(row for row in accuracies if row[0] == "Learn-E-Reg")
    assert learned[1] == "8" and learned[3].endswith("; 99.7 %, 6 seeds)")
    lines = terminal(analysis)
    assert max(map(len, lines)) <= 80
    assert sum(line.count("99.7 %, 6 seeds") for line in lines) == 3 + 6
    for text in (markdown_table(analysis), " ".join(lines)):
        assert "interval has another width" in text
    assert "interval has another width" not in markdown_table(made_up())


def test_one_seed_has_no_interval() -> None:
    rows = rows_of(markdown_table(made_up(1)).split("accuracies**")[1])[2:]
    assert all(row[2].endswith("(one seed)") for row in rows)


def test_a_pipe_in_a_name_ends_no_column_in_markdown() -> None:
    text = markdown_table(named("a|b `c` <script> *d* _e_ $f$"))
    assert {len(row) for row in rows_of(text)} == {5, 6}
    assert r"a\|b \`c\` \<script\> \*d\* \_e\_ \$f\$" in text


def test_names_with_underscores_stay_as_they_are_in_markdown() -> None:
    assert "vit_tiny_patch16_224" in markdown_table(made_up(cells=CELLS))


def test_latex_escapes_user_supplied_names() -> None:
    text = latex_report(named(r"50% \of {a}_b & #c $d$ ~^"), "")
    escaped = r"50\% \textbackslash{}of \{a\}\_b \& \#c \$d\$ \textasciitilde{}\textasciicircum{}"
    assert escaped in text
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    rows = [line for line in body.strip().splitlines() if line != r"\addlinespace"]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {5}


def test_latex_is_two_tables_per_cell_with_booktabs_and_balanced_braces() -> None:
    text = latex_report(made_up(cells=CELLS), "")
    assert text.startswith(r"% needs \usepackage{booktabs}")
    for mark in (r"\begin{table}", r"\end{table}", r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}"):
        assert text.count(mark) == 4
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert len(set(re.findall(r"\\label\{.*?\}", text))) == 4
    assert not set("−–λ") & set(text)  # characters that some LaTeX engines and fonts lack


def test_latex_tables_are_narrow_and_rows_start_with_no_argument_of_the_row_before() -> None:
    text = latex_report(named("[b]*"), "")
    rows = [line.split(" & ") for line in text.splitlines() if line.endswith(r"\\")]
    assert rows[:3][0][:3] == ["Arm", "Gain over", "Over the"] and rows[2][1] == r"points"
    assert max(len(cell.removesuffix(r" \\").replace(r"\(-\)", "-")) for row in rows for cell in row[1:]) <= 24
    assert not any(row[0].startswith(("[", "*")) for row in rows)


def test_both_kinds_of_reports_begin_with_the_verdict() -> None:
    verdict = "No label effect is shown: 0.1 < 0.2."
    text = markdown_report(made_up(), verdict)
    assert text.startswith("# A study\n\nNo label effect is shown: 0.1 \\< 0.2.\n\n**cifar10")
    latex, paragraph = latex_report(made_up(), verdict), "No label effect is shown: 0.1 \\textless{} 0.2.\n"
    assert latex.index("booktabs") < latex.index(paragraph) < latex.index("\\begin{table}")


def test_nothing_finished_makes_empty_tables() -> None:
    empty = dataclasses.replace(made_up(), cells=())
    assert terminal(empty) == []
    assert rows_of(markdown_table(empty)) == []
    assert "tabular" not in latex_report(empty, "")


def test_the_tables_of_an_exploration_speak_of_no_tests() -> None:
    confirmation = made_up(arms=("none", "learned", "learned shuffled"))
    cells = tuple(dataclasses.replace(cell, purpose="exploration") for cell in confirmation.cells)
    explored = dataclasses.replace(confirmation, cells=cells)
    for report in (markdown_report, latex_report):
        assert "a test passes" in report(confirmation, "")
        assert "a test passes" not in report(explored, "") and "Nothing is tested." in report(explored, "")
