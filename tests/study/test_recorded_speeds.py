from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emoreg.config.read_recipe import build, recipe_yaml
from emoreg.config.recipe import TrainRecipe
from emoreg.runs.provenance import environment
from emoreg.study.kinds_of_run import kind_of
from emoreg.study.recorded_speeds import recorded_speeds, run_folders

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, stage2: TrainRecipe) -> Write:
    """Return a function that writes a run with 100 images in 4 seconds per epoch after the first."""

    def written(name: str, recipe: TrainRecipe = stage2, epochs: int = 3, **session: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "recipe.yaml").write_text(recipe_yaml(recipe), encoding="utf-8")
        sessions = [{**environment(), "processes": 1, **session}]
        (folder / "environment.json").write_text(json.dumps({"sessions": sessions}))
        rows = ["epoch,seconds,images_per_second", "1,40,2.5", *(f"{epoch},4,25" for epoch in range(2, epochs + 1))]
        (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
        return folder

    return written


def test_the_speed_of_a_kind_is_that_of_a_run_without_its_first_epoch(write: Write, stage2: TrainRecipe) -> None:
    other = build(stage2, {"backbone": {"name": "resnet14"}})
    runs = [write("runs/one"), write("study/runs/two", other)]
    wanted = {kind_of(stage2)}
    assert recorded_speeds(runs, wanted) == {kind_of(stage2): 1 / 25}


def test_runs_of_another_machine_software_or_number_of_processes_do_not_count(
    write: Write, stage2: TrainRecipe
) -> None:
    others = [
        write("a", cpu="another"),
        write("b", threads=99),
        write("c", packages={}),
        write("d", processes=2),
        write("e", epochs=2),  # four seconds are too few
        write("f", epochs=1),
    ]
    (write("g") / "environment.json").write_text("{}")
    (write("h") / "metrics.csv").write_text("damaged")
    assert recorded_speeds([*others, others[0].with_name("g"), others[0].with_name("h")], {kind_of(stage2)}) == {}


def test_runs_are_found_once_each_alone_and_in_studies(write: Write, tmp_path: Path) -> None:
    alone, of_study = write("runs/alone"), write("runs/study/runs/one")
    (tmp_path / "runs" / "empty").mkdir()
    assert set(run_folders([tmp_path / "runs", tmp_path / "runs" / "study"])) == {alone, of_study}
    assert run_folders([tmp_path / "nowhere"]) == []


def test_a_run_counts_for_the_precision_that_auto_was_resolved_to(write: Write, stage2: TrainRecipe) -> None:
    auto, half = (build(stage2, {"training": {"precision": precision}}) for precision in ("auto", "bf16-mixed"))
    runs, kinds = [write("one", auto, precision="bf16-mixed")], {kind_of(auto), kind_of(half)}
    assert len(kinds) == 2  # auto is 32-true in tests
    assert recorded_speeds(runs, kinds) == {kind_of(half): 1 / 25}
