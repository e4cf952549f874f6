from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest

import extras
from emoreg.config.recipe import TrainRecipe
from emoreg.runs.run import CHECKPOINT
from emoreg.runtime.progress import Progress
from emoreg.study.definition import Study
from emoreg.study.plan import plan_runs
from emoreg.study.ray_pool import Ray, RayPool
from emoreg.study.run_study import run_study
from emoreg.study.scheduler import execute
from refusing import refusal
from study_arms import BACKBONE

extras.load("ray", "ray")
pytestmark = pytest.mark.extra("ray")


class Noting(Progress):
    """Prints nothing and keeps how sets were read."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.notes: list[str] = []

    def report_notes(self, notes: Sequence[str], left_out: Sequence[str] = ()) -> None:
        self.notes += [*notes, *left_out]


MEASURED = ["mode", "experience", "seed", "status", "test_accuracy", "validation_loss", "lambda", "id"]


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Ray]:
    """A cluster on this machine with two cores."""
    import ray

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "src"))
    monkeypatch.chdir(tmp_path)
    init = ray.init
    monkeypatch.setattr(ray, "init", lambda **options: init(**options | {"num_cpus": 2, "num_gpus": 0}))
    yield Ray()
    ray.shutdown()


def test_a_study_on_ray_gives_the_same_table_as_without(
    tiny_study: Study, tmp_path: Path, quiet: Progress, two_cores: Ray
) -> None:
    small = dataclasses.replace(tiny_study, seeds=1)
    here = run_study(small, "here", progress=quiet)
    there = run_study(small, "there", progress=quiet, ray=two_cores)
    pd.testing.assert_frame_equal(here[MEASURED], there[MEASURED])
    assert set(there["env.threads"]) == {1}
    commands = there["env.command"].unique()
    assert all(command != here["env.command"][0] for command in commands)  # another process
    assert run_study(small, "there", progress=quiet, ray=two_cores)["env.sessions"].tolist() == [1] * len(there)


def test_notes_on_images_of_a_worker_are_printed_by_the_main_process(
    tiny_study: Study, tmp_path: Path, two_cores: Ray
) -> None:
    (run,) = plan_runs(dataclasses.replace(tiny_study, arms=(BACKBONE,), seeds=1), tmp_path / "runs")
    assert isinstance(run.recipe, TrainRecipe)
    target = dataclasses.replace(run.recipe.target, label_noise="symmetric", noise_share=0.5)
    run = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, target=target))
    progress = Noting()
    with contextlib.closing(RayPool(two_cores, progress)) as pool:
        assert execute([run], tmp_path, pool, progress) == {}
    assert any("training labels are wrong" in note for note in progress.notes)


@pytest.mark.slow
def test_a_run_whose_worker_is_killed_resumes_from_its_checkpoint(
    tiny_study: Study, quiet: Progress, two_cores: Ray
) -> None:
    cell = tiny_study.grid[0]
    training = dataclasses.replace(cell.recipe.training, epochs=100)
    recipe = dataclasses.replace(cell.recipe, training=training)
    study = dataclasses.replace(tiny_study, grid=(dataclasses.replace(cell, recipe=recipe),), arms=(BACKBONE,), seeds=2)
    victim = plan_runs(study, Path("out/runs"))[0]
    killed: list[int] = []

    def kill() -> None:
        for _ in range(4000):
            if (victim.folder / CHECKPOINT).exists():
                process = json.loads((victim.folder / ".holder.json").read_text())["process"]
                os.kill(process, signal.SIGKILL)
                killed.append(process)
                return
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    table = run_study(study, "out", progress=quiet, ray=two_cores)
    killer.join()
    assert killed and killed[0] != os.getpid()
    assert (table.status == "finished").all()
    assert table["env.sessions"].tolist() == [2, 1]
    assert victim.run.metrics["epoch"].tolist() == list(range(1, 101))


def test_more_resources_than_the_cluster_has_are_refused(tiny_study: Study, quiet: Progress, two_cores: Ray) -> None:
    cluster = dataclasses.replace(two_cores, gpus_per_run=0.25)
    message = refusal(lambda: run_study(tiny_study, "out", progress=quiet, ray=cluster))
    assert "--gpus-per-run is 0.25, but the cluster has 0 GPUs" in message
    assert "--cpus-per-run is 0" in refusal(lambda: Ray(cpus_per_run=0))
