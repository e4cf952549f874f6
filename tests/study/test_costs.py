from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from emoreg.config.read_recipe import build
from emoreg.config.recipe import TrainRecipe
from emoreg.runtime.progress import Progress
from emoreg.study import costs
from emoreg.study.costs import FORWARD, Costs, estimate
from emoreg.study.definition import Study
from emoreg.study.image_counts import CountedSets, Counts, count_images
from emoreg.study.measured_speeds import gpu_estimate
from emoreg.study.plan import PlannedRun, plan_runs


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[TrainRecipe]:
    """The kinds that are timed, at 10 ms per image."""
    kinds: list[TrainRecipe] = []

    def seconds_per_image(kind: TrainRecipe) -> float:
        kinds.append(kind)
        return 0.01

    monkeypatch.setattr(costs, "seconds_per_image", seconds_per_image)
    return kinds


def seconds_of(planned: list[PlannedRun], quiet: Progress) -> dict[str, float]:
    recipes = {run.id: run.recipe for run in planned}
    found = estimate(recipes, count_images(recipes.values(), quiet), quiet, jobs=2)
    assert set(found.seconds) == set(recipes) and found.machine.endswith("1 core a run, 32-true")
    return {run.name: found.seconds[run.id] for run in planned}


def test_an_estimate_grows_with_epochs_and_every_kind_of_step_is_timed_once(
    tiny_study: Study, tmp_path: Path, quiet: Progress, timed: list[TrainRecipe]
) -> None:
    cell = tiny_study.grid[0]
    longer = dataclasses.replace(cell.recipe, training=dataclasses.replace(cell.recipe.training, epochs=10))
    study = dataclasses.replace(tiny_study, grid=(cell, dataclasses.replace(cell, target="longer", recipe=longer)))
    threads = torch.get_num_threads()
    by_name = seconds_of(plan_runs(study, tmp_path), quiet)
    assert len(timed) == 3  # an encoder, a plain and a regulated network
    assert torch.get_num_threads() == threads and not list(tmp_path.iterdir())
    short, long = by_name["digits-resnet8-backbone-seed0"], by_name["longer-resnet8-backbone-seed0"]
    validation = 7  # images, from 10 % held out and a limit
    assert (long - short) / 9 == pytest.approx(0.01 * (64 + FORWARD * validation), rel=0.01)
    assert short > 0.01 * 64


def test_a_busy_machine_is_reported() -> None:
    timed = Costs({"": 60.0}, timed=1, machine="here", waiting=3.14, cores=2)
    assert timed.sources.endswith("The machine was busy, with 3.1 processes on 2 cores: left alone it is faster")
    for quiet in (dataclasses.replace(timed, waiting=0.9), dataclasses.replace(timed, timed=0, recorded=1)):
        assert "busy" not in quiet.sources
    assert "busy" not in dataclasses.replace(timed, waiting=None).sources


def test_large_networks_on_a_cpu_are_timed_alone_and_added(
    tiny_study: Study, tmp_path: Path, quiet: Progress, timed: list[TrainRecipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "is_large", lambda kind: True)
    by_name = seconds_of(plan_runs(dataclasses.replace(tiny_study, seeds=1), tmp_path), quiet)
    assert len(timed) == 2  # the encoder in stage 1, and the network of stage 2
    regulated = by_name["digits-resnet8-learned-affect-procedural-seed0"]
    assert regulated == pytest.approx(
        2 * by_name["digits-resnet8-backbone-seed0"], rel=0.2
    )  # slightly more, as it is scored more


def test_runs_on_a_missing_device_or_of_unknown_images_have_no_estimate(
    stage2: TrainRecipe, quiet: Progress, timed: list[TrainRecipe]
) -> None:
    recipes = {"mps": build(stage2, {"training": {"device": "mps"}}), "unknown": stage2}
    counted = CountedSets({}, {})
    assert estimate(recipes, counted, quiet).seconds == {} and not timed
    counted = CountedSets({stage2.target: Counts(10, 0, 0)}, {})
    assert set(estimate(recipes, counted, quiet).seconds) == {"unknown"}


def test_a_gpu_is_estimated_only_from_speeds_measured_on_it() -> None:
    known = build(TrainRecipe(), {"target": {"name": "cifar10"}, "backbone": {"name": "resnet18"}})
    counted = CountedSets({known.target: Counts(45_000, 0, 0)}, {})
    line = gpu_estimate([known], counted)
    assert line is not None and line.startswith("it takes about 5.7 minutes on one NVIDIA H200")  # 100 epochs
    regulated = build(known, {"regulation": {"mode": "learned"}})
    unknown = build(known, {"training": {"batch_size": 64}})
    line = gpu_estimate([known, regulated, unknown], counted)
    assert line is not None and line.startswith("2 of them (resnet18 in batches of 128) take about 18 minutes on")
    assert "docs/speed.md" in line
    others: list[dict[str, Any]] = [
        {"backbone": {"width": 32}},
        {"optimizer": {"name": "muon"}},
        {"encoder": {"frozen": True}},
    ]
    assert gpu_estimate([unknown, *(build(regulated, other) for other in others)], counted) is None
