from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from emoreg.cli.main import main
from emoreg.config.read_recipe import read_recipe
from emoreg.config.recipe import TrainRecipe
from emoreg.errors import UserError
from emoreg.runs.run import FINAL, INPUTS
from emoreg.runtime.progress import Progress
from emoreg.stages.inputs import inputs_of
from emoreg.study import sweep as sweeping
from emoreg.study.columns import RunStatus
from emoreg.study.machine import Machine
from emoreg.study.plan import PlannedRun
from emoreg.study.run_one import RunOutcome
from emoreg.study.sweep import BEST, TRIALS, plan_sweep, run_sweep
from emoreg.study.sweep_file import Sweep, read_sweep


class Pretended:
    """A pool whose runs end at once, with a validation accuracy that follows from the learning rate.

    A run with 0.3 diverges; a run with 0.4 diverges with seed 0, and fails with seed 1.
    """

    size = 2

    def __init__(self) -> None:
        self.done, self.ready = list[str](), list[RunOutcome]()

    def start(self, run: PlannedRun) -> None:
        self.done.append(run.name)
        lr = run.recipe.optimizer.lr
        run.folder.mkdir(parents=True, exist_ok=True)
        if lr == 0.4 and run.seed == 1:
            self.ready.append(RunOutcome(run, RunStatus.FAILED, "it failed"))
            return
        if lr in (0.3, 0.4):
            self.ready.append(RunOutcome(run, RunStatus.DIVERGED, str(run.run.end_diverged("it diverged"))))
            return
        accuracy = lr + 0.01 * run.seed
        final = {"validation": {"accuracy": accuracy, "loss": 1 - accuracy, "images": 9}, "test": None, "seconds": 2.0}
        (run.folder / FINAL).write_text(json.dumps(final), encoding="utf-8")
        self.ready.append(RunOutcome(run, RunStatus.FINISHED))

    def wait(self) -> list[RunOutcome]:
        return [self.ready.pop()]

    def machine(self) -> Machine:
        return Machine()

    def close(self) -> None:
        pass


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    made = Pretended()
    monkeypatch.setattr(sweeping, "make_pool", lambda *_args, **_options: made)
    return made


def sweep_of(folder: Path, rates: list[float], more: str = "") -> Sweep:
    path = folder / "mine.yaml"
    path.write_text(f"seeds: 2\n{more}\nsearch: {{optimizer: {{lr: {rates}}}}}", encoding="utf-8")
    return read_sweep(path)


def rows(folder: Path) -> list[dict[str, Any]]:
    with (folder / TRIALS).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_best_trial_has_the_highest_mean_on_validation_images_and_is_written_as_a_recipe(
    tmp_path: Path, pool: Pretended, quiet: Progress
) -> None:
    result = run_sweep(sweep_of(tmp_path, [0.1, 0.3, 0.2]), tmp_path / "out", progress=quiet)
    assert result.best is not None and result.best.trial.values == {"optimizer.lr": 0.2}
    assert result.best.score == pytest.approx(0.205) and result.metric == "accuracy"
    best = read_recipe(TrainRecipe, tmp_path / "out" / BEST)
    assert best == result.best.trial.chosen and best.target.test and best.optimizer.lr == 0.2
    table = rows(tmp_path / "out")
    assert [row["optimizer.lr"] for row in table] == ["0.2", "0.1", "0.3"]
    assert [row["validation_accuracy"] for row in table] == ["0.205", "0.105", ""]
    errors = [row["error"].rpartition(": ")[2] for row in table]
    assert errors == ["", "", "it diverged"] and table[0]["seconds"] == "4.0"


def test_a_resumed_or_extended_sweep_repeats_no_finished_run(tmp_path: Path, pool: Pretended, quiet: Progress) -> None:
    run_sweep(sweep_of(tmp_path, [0.1, 0.3]), tmp_path / "out", progress=quiet)
    assert len(pool.done) == 4
    pool.done.clear()
    run_sweep(sweep_of(tmp_path, [0.1, 0.2, 0.3]), tmp_path / "out", progress=quiet)
    assert sorted(pool.done) == ["lr-0.2-seed0", "lr-0.2-seed1"]


def test_a_trial_that_diverged_is_a_result_and_one_that_failed_is_tried_again(
    tmp_path: Path, pool: Pretended, quiet: Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep_of(tmp_path, [0.1, 0.3])
    for _ in range(2):
        assert main(["sweep", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "out"), "--quiet"]) == 0
        shown = capsys.readouterr()
        assert " diverged " in shown.out and " failed " not in shown.out and ": it diverged" in shown.err
    assert len(pool.done) == 4
    pool.done.clear()
    sweep_of(tmp_path, [0.1, 0.4])
    for _ in range(2):
        assert main(["sweep", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "out"), "--quiet"]) == 1
        shown = capsys.readouterr()
        assert " failed " in shown.out and " diverged " not in shown.out and "trial 2: it failed" in shown.err
    assert sorted(pool.done) == ["lr-0.4-seed0", "lr-0.4-seed1", "lr-0.4-seed1"]


def test_a_trial_of_stage_1_that_diverged_is_a_result_too(tmp_path: Path, pool: Pretended, quiet: Progress) -> None:
    (tmp_path / "mine.yaml").write_text("stage: pretrain\nsearch: {optimizer: {lr: [0.3]}}")
    for _ in range(2):
        (trial,) = run_sweep(read_sweep(tmp_path / "mine.yaml"), tmp_path / "out", progress=quiet).results
        assert trial.has_diverged and trial.error == f"{trial.runs[0].folder}: it diverged"
    assert len(pool.done) == 1


def test_a_sweep_with_a_further_setting_finds_its_runs_and_their_precision(
    tmp_path: Path, pool: Pretended, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = "search: {optimizer: {lr: [0.1], weight_decay: %s}}"
    (tmp_path / "mine.yaml").write_text(search % "[0.0005]")
    run_sweep(read_sweep(tmp_path / "mine.yaml"), tmp_path / "out", progress=quiet)
    pool.done.clear()
    monkeypatch.setattr(pool, "machine", lambda: Machine("cpu", "bf16-mixed"))
    (tmp_path / "mine.yaml").write_text(search % "[0.0005, 0.001]")
    result = run_sweep(read_sweep(tmp_path / "mine.yaml"), tmp_path / "out", progress=quiet)
    assert pool.done == ["weight_decay-0.001-seed0"] and len(list((tmp_path / "out" / "runs").iterdir())) == 2
    assert {run.recipe.training.precision for each in result.results for run in each.runs} == {"32-true"}


def test_a_lower_loss_is_better(tmp_path: Path, pool: Pretended, quiet: Progress) -> None:
    result = run_sweep(sweep_of(tmp_path, [0.1, 0.2], "metric: loss"), tmp_path / "out", progress=quiet)
    assert result.best is not None and result.best.trial.values == {"optimizer.lr": 0.2}


def test_a_metric_that_all_runs_lack_is_named_after_the_table_is_written(
    tmp_path: Path, pool: Pretended, quiet: Progress
) -> None:
    with pytest.raises(UserError, match="metric: no run has top5_accuracy on validation images"):
        run_sweep(sweep_of(tmp_path, [0.1], "metric: top5_accuracy"), tmp_path / "out", progress=quiet)
    assert [row["validation_top5_accuracy"] for row in rows(tmp_path / "out")] == [""]


def test_a_run_without_the_metric_is_a_row_without_a_score(tmp_path: Path, pool: Pretended, quiet: Progress) -> None:
    first = run_sweep(sweep_of(tmp_path, [0.1, 0.2]), tmp_path / "out", progress=quiet)
    final = first.results[0].runs[0].folder / FINAL
    final.write_text(json.dumps({"validation": {"loss": 1.0}, "test": None}))
    result = run_sweep(sweep_of(tmp_path, [0.1, 0.2]), tmp_path / "out", progress=quiet)
    assert [each.score for each in result.results] == [None, first.results[1].score]
    assert result.best is not None and result.best.trial.number == 2


def test_trials_that_ended_with_other_images_are_not_ranked_beside_new_ones(
    image_folder: Path, tmp_path: Path, pool: Pretended, quiet: Progress
) -> None:
    more = "recipe: base.yaml"
    (tmp_path / "base.yaml").write_text(f"edition: 2\ntarget: {{name: folder, root: {image_folder}}}", "utf-8")
    sweep = sweep_of(tmp_path, [0.1], more)
    run = run_sweep(sweep, tmp_path / "out", progress=quiet).results[0].runs[0]
    (run.folder / INPUTS).write_text(json.dumps(inputs_of(run.recipe).record()))
    run_sweep(sweep, tmp_path / "out", progress=quiet)
    pool.done.clear()
    picture = next(image_folder.rglob("*.png"))
    shutil.copy(picture, picture.with_name("another.png"))
    with pytest.raises(UserError, match=r"trained from something else \(target.root: .* files.*--out"):
        run_sweep(sweep_of(tmp_path, [0.1, 0.2], more), tmp_path / "out", progress=quiet)
    assert not pool.done


def test_errors_advise_only_what_a_sweep_can_do(
    tmp_path: Path, pool: Pretended, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base.yaml").write_text("edition: 2\ntarget: {name: folder, root: nowhere}", "utf-8")
    sweep = sweep_of(tmp_path, [0.1], "recipe: base.yaml")
    with pytest.raises(UserError, match=r"^an image set is not here, and no run was started: \[1\] target"):
        run_sweep(sweep, tmp_path / "out", progress=quiet)
    assert not (tmp_path / "out").exists()
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="a sweep is not for torchrun"):
        run_sweep(sweep, tmp_path / "out", progress=quiet)


def test_the_id_of_a_trial_depends_on_what_auto_is_resolved_to(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, [0.1])
    ((here, _),), ((there, _),) = (
        plan_sweep(sweep, tmp_path, machine) for machine in (Machine(), Machine("cuda", "bf16-mixed"))
    )
    assert here.recipe.training.device == "cpu" and there.recipe.training.device == "cuda" and here.id != there.id


def test_a_sweep_continues_in_the_precision_it_was_started_in(
    tmp_path: Path, pool: Pretended, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_sweep(sweep_of(tmp_path, [0.1]), tmp_path / "out", progress=quiet)
    pool.done.clear()
    monkeypatch.setattr(pool, "machine", lambda: Machine("cpu", "bf16-mixed"))
    lines: list[str] = []
    monkeypatch.setattr(quiet, "say", lines.append)
    run_sweep(sweep_of(tmp_path, [0.1, 0.2]), tmp_path / "out", progress=quiet)
    assert sorted(pool.done) == ["lr-0.2-seed0", "lr-0.2-seed1"]
    message = f"{tmp_path / 'out'} was started in 32-true, and its remaining runs are trained in it too"
    assert [line for line in lines if "started in" in line] == [message]
    run_sweep(sweep_of(tmp_path, [0.1]), tmp_path / "another", progress=quiet)
    assert len(pool.done) == 4 and sum("started in" in line for line in lines) == 1
