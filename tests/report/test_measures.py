from __future__ import annotations

import dataclasses
from typing import Any

import torch

from emoreg.config.outcomes import OUTCOMES
from emoreg.config.schema import Task
from emoreg.report.measures import MEASURES, measures_grid
from emoreg.report.page_tables import ABSENT
from emoreg.report.statistics import Interval
from emoreg.stages.task_metrics import label_metrics, value_metrics
from emoreg.study.columns import OF_CLASSES, type_of
from report.made_up import FEW, made_up


def test_arms_have_the_measured_figures_and_older_runs_have_no_table() -> None:
    cell = made_up(arms=FEW).cells[0]
    without = dataclasses.replace(cell, arms=tuple(dataclasses.replace(arm, measures={}) for arm in cell.arms))
    assert measures_grid(without) is None
    some = {"macro_f1": Interval(0.5, 0.4, 0.6, (0.45, 0.55))}
    arms = (dataclasses.replace(cell.arms[0], measures=some), *without.arms[1:])
    grid = measures_grid(dataclasses.replace(cell, arms=arms))
    assert grid is not None and grid.headers == ("Arm", MEASURES["macro_f1"])
    entries = [row[1] for _, rows in grid.groups for row in rows]
    assert [entry.value for entry in entries if entry != ABSENT] == ["50.00"]


def test_every_figure_is_a_column_of_the_table_of_results() -> None:
    assert all(type_of(f"test_{name}") is not None for name in MEASURES)
    assert {*OF_CLASSES} - {*MEASURES} == {"answered_classes"}


def test_figures_for_several_labels_and_values_match_those_measured() -> None:
    z, several = torch.randn(4, 2, generator=torch.manual_seed(0)), torch.tensor([[0.0, 1], [1, 0], [1, 1], [0, 0]])
    measured: dict[Task, dict[str, Any]] = {
        "multilabel": label_metrics(z, several),
        "regression": value_metrics(z, several, ("valence", "arousal")),
    }
    for task, found in measured.items():
        shown = {name for name in found if name in MEASURES}
        assert shown and {*found} - shown <= {OUTCOMES[task].name, "loss", "per_class"}, task
