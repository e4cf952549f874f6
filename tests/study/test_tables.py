from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from emoreg.config.read_recipe import build
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.runtime.progress import in_words
from emoreg.study.arms import factorial
from emoreg.study.costs import Costs
from emoreg.study.definition import GridPoint, StimuliRecipe, Study, Variant
from emoreg.study.machine import Machine
from emoreg.study.plan import plan_runs
from emoreg.study.tables import plan_table, rows_table, rows_text

TABLE = pd.DataFrame({"mode": ["learned", None], "test_accuracy": [0.91239, float("nan")], "seed": [0, 1]})


def test_markdown_rounds_numbers_and_shows_missing_values_as_a_dash() -> None:
    assert rows_text(TABLE, "markdown").splitlines() == [
        "| mode | test_accuracy | seed |",
        "| --- | --- | --- |",
        "| learned | 0.9124 | 0 |",
        "| – | – | 1 |",
    ]


def test_rows_as_csv_and_json_keep_all_digits() -> None:
    assert rows_text(TABLE, "csv") == "mode,test_accuracy,seed\nlearned,0.91239,0\n,,1\n"
    text = rows_text(TABLE, "json")
    assert text.endswith("]\n") and json.loads(text)[1] == {"mode": None, "test_accuracy": None, "seed": 1}


def test_names_in_the_terminal_are_not_interpreted_as_markup() -> None:
    console = Console(width=60)
    with console.capture() as captured:
        console.print(rows_table(TABLE.rename(columns={"mode": "[red]mode"}).replace("learned", "a\x1b[31mb")))
    shown = captured.get()
    assert "[red]mode" in shown and "\x1b" not in shown and "0.9124" in shown


def test_bytes_are_written_as_base64_and_shown_as_their_number() -> None:
    table = pd.DataFrame({"test_correct": [b"\xff\x00", None]})
    assert rows_text(table, "csv") == 'test_correct\n/wA=\n""\n'
    assert json.loads(rows_text(table, "json"))[0] == {"test_correct": "/wA="}
    console = Console(width=60)
    with console.capture() as captured:
        console.print(rows_table(table))
    assert "2 bytes" in captured.get()


@pytest.fixture
def study() -> Study:
    base = build(TrainRecipe(), {"regulation": {"mode": "learned"}, "backbone": {"name": "resnet8"}})
    mixture = {"loss": {"regulated": 1.0, "non_emotional": 0.0, "emotional": 0.0}}
    sets = (StimuliRecipe("procedural", PretrainRecipe()),)
    variants = (Variant("own", base, sets), Variant("mixture", build(base, mixture), sets))
    point = GridPoint("digits", "resnet8", base, sets, variants)
    return Study("s", (point,), factorial(), seeds=4, looks=(2, 4), run_seeds=2, machine=Machine())


def test_the_rows_of_a_plan_count_a_run_that_variants_share_once(study: Study, tmp_path: Path) -> None:
    shared = dataclasses.replace(study, arms=factorial(references=("backbone", "unregulated")))
    planned = plan_runs(shared, tmp_path)
    console = Console(width=200)
    with console.capture() as captured:
        console.print(plan_table(shared, planned, Costs({}), 1))
    lines = captured.get().splitlines()
    counts = [int(found[1]) for line in lines if (found := re.search(r" (\d+) +0 +–$", line.rstrip()))]
    assert sum(counts) == len({run.id for run in planned}) < len(planned)
    assert any("Unregulated" in line and "own, mixture" in line for line in lines)


def test_a_plan_lists_all_arms_that_share_a_run(tmp_path: Path) -> None:
    """Without a loss on the regulated response the twin fresh is the ensemble, and affect is unregulated."""
    apart = {"regulated": 0.0, "non_emotional": 1.0, "emotional": 1.0}
    base = build(TrainRecipe(), {"regulation": {"mode": "fixed"}, "loss": apart, "backbone": {"name": "resnet8"}})
    point = GridPoint("digits", "resnet8", base, (StimuliRecipe("procedural", PretrainRecipe()),))
    arms = factorial(("fixed",), ("affect", "fresh"), ("backbone", "ensemble", "unregulated"))
    study = Study("s", (point,), arms, seeds=2, machine=Machine())
    console = Console(width=200)
    with console.capture() as captured:
        console.print(plan_table(study, plan_runs(study, tmp_path), Costs({}), 1))
    shown = captured.get()
    counts = {line.split()[3]: int(line.split()[-3]) for line in shown.splitlines() if line.startswith((" 1", " 2"))}
    assert counts == {"(encoder)": 2, "Backbone": 2, "E-Reg": 4, "Ensemble": 2, "Unregulated": 2}
    assert "gradient budget, E-Reg, Ensemble, Unregulated:" in shown
    assert "4 of the listed runs are those of another arm with the same recipe" in shown
    assert "stage 1: 2 runs; stage 2: 6 runs" in shown and "8 runs, 0 done, 8 to do" in shown


def test_seeds_beyond_the_plan_are_reported_as_such(study: Study, tmp_path: Path) -> None:
    more = dataclasses.replace(study, run_seeds=5)
    console = Console(width=200)
    with console.capture() as captured:
        console.print(plan_table(more, plan_runs(more, tmp_path), Costs({}), 1))
    assert "confirmation: 5 seeds, 1 more than planned, 0 to 4; verdicts at 2 and 4 seeds" in captured.get()


def test_a_plan_shows_factors_looks_budgets_what_is_left_out_and_the_cost(study: Study, tmp_path: Path) -> None:
    planned = plan_runs(study, tmp_path)
    console = Console(width=200)
    with console.capture() as captured:
        costs = Costs({run.id: 7200.0 for run in planned}, timed=2, recorded=1, machine="ACME 1, 2 cores, 32-true")
        console.print(plan_table(study, planned, costs, 2, {planned[0].id}, on_gpu="on a GPU, less"))
    shown = captured.get()
    regulated = [line.split() for line in shown.splitlines() if "Learn-E-Reg" in line and "budget" not in line]
    assert [line[4] for line in regulated] == ["own", "mixture"]
    assert all("affect, fresh, moments, shuffled, rotation" in " ".join(line) for line in regulated)
    assert "confirmation: 2 seeds of 4 planned, 0 to 1; verdicts at 2 and 4 seeds" in shown
    assert "gradient budget, Learn-E-Reg (own), Ensemble: matched: gradients at z_n and z_e divided by 1.00" in shown
    assert "gradient budget, Learn-E-Reg (mixture): matched: gradients at z_n and z_e divided by 0.50" in shown
    assert "digits, resnet8: neutral is left out for procedural: " in shown
    runs, encoders = len({run.id for run in planned}), len({run.id for run in planned if run.mode is None})
    time = f"about {in_words(3600 * (runs - 1))} on this machine (ACME 1, 2 cores, 32-true), 2 at a time"
    assert f"{runs} runs, 1 done, {runs - 1} to do: {time}" in shown and "2 hours" in shown
    assert "recorded on this machine for 1 kind of step and steps on random images, timed now, for 2 kinds" in shown
    assert shown.rstrip().endswith("on a GPU, less")
    assert f"stage 1: {encoders} runs; stage 2: {runs - encoders} runs" in shown


def test_a_plan_for_a_missing_device_has_no_estimate(study: Study, tmp_path: Path) -> None:
    planned = plan_runs(dataclasses.replace(study, machine=Machine("mps")), tmp_path)
    console = Console(width=200)
    with console.capture() as captured:
        console.print(plan_table(study, planned, Costs({}), jobs=1))
    assert "to do: no estimate, as there is no mps here" in captured.get()
