"""A study's folder keeps its plan, and the suites that were added."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import yaml
from PIL import Image

from emoreg.cli.main import main
from emoreg.runtime.lock import hold
from emoreg.runtime.progress import Progress
from emoreg.study import run_study as run_study_module
from emoreg.study import scheduler
from emoreg.study import score_study as score_study_module
from emoreg.study.columns import RunStatus
from emoreg.study.definition import Study
from emoreg.study.differences import BEFORE_ADDED
from emoreg.study.machine import Machine
from emoreg.study.plan import PlannedRun
from emoreg.study.read_study import read_study
from emoreg.study.results_table import read_results, write_results
from emoreg.study.run_one import Job, RunOutcome
from emoreg.study.run_study import open_study, prepare_study, run_study
from emoreg.study.score_study import score_study
from emoreg.suites.options import parse_suites
from refusing import refusal
from study_arms import BACKBONE

STUDY = """\
edition: 2
modes: []
references: [backbone]
seeds: 2
classifier:
  target: {name: digits, image_size: 8}
  backbone: {name: resnet8}
  training: {epochs: 1, device: cpu}
"""


@pytest.fixture(autouse=True)
def _as_if_trained(monkeypatch: pytest.MonkeyPatch, finish: Callable[..., None]) -> None:
    def perform(run: Job, _progress: Progress) -> RunOutcome:
        if isinstance(run, PlannedRun):
            finish(run)
        return RunOutcome(run, RunStatus.FINISHED)

    monkeypatch.setattr(scheduler, "perform", perform)
    monkeypatch.setattr(run_study_module, "LocalPool", lambda jobs, progress: scheduler.InTurn(progress))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study's file, whose folder is runs/mine."""
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(STUDY)
    return Path("mine.yaml")


def test_a_plan_that_was_changed_after_results_is_refused(file: Path, quiet: Progress) -> None:
    run_study(read_study(file, seeds=1), "runs/mine", progress=quiet)
    assert len(open_study(file).table()) == 2 and len(run_study(read_study(file, seeds=3), "runs/mine")) == 3
    for changed in (STUDY.replace("seeds: 2", "seeds: 3"), f"{STUDY}looks: [1, 2]\n", f"{STUDY}first_seed: 100\n"):
        for path in (file, Path("runs/mine/study.yaml")):
            kept = path.read_text()
            path.write_text(changed)
            error = refusal(functools.partial(open_study, path))
            assert (
                "runs/mine holds results of a study that planned confirmation, seeds 0 to 1, looks [2]; this" in error
            )
            path.write_text(kept)
    # The third seed, which is beyond the plan, stays in the table, unless fewer seeds are requested.
    assert len(open_study(file).table()) == len(open_study("runs/mine").table()) == 3
    assert len(run_study(read_study(file), "runs/mine", progress=quiet)) == 3
    assert len(run_study(read_study(file, seeds=1), "runs/mine", progress=quiet)) == 1


def test_the_plan_of_a_study_without_a_table_is_protected_too(file: Path, quiet: Progress) -> None:
    run_study(read_study(file), "runs/mine", progress=quiet)
    Path("runs/mine/results.parquet").unlink()
    file.write_text(STUDY.replace("seeds: 2", "seeds: 3"))
    assert "seeds 0 to 1, looks [2]; this one plans confirmation, seeds 0 to 2" in refusal(lambda: open_study(file))


def test_without_a_result_the_plan_may_change(file: Path, quiet: Progress) -> None:
    study = open_study(file)
    study.out.mkdir(parents=True)
    write_results(study.out / "results.parquet", study.table())
    file.write_text(STUDY.replace("seeds: 2", "seeds: 3"))
    assert len(open_study(file).table()) == 3


def test_results_from_other_machines_stay_in_the_table(
    file: Path, quiet: Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    run_study(read_study(file), "runs/mine", "shared", progress=quiet)
    assert main(["results", "runs/mine"]) == 0
    assert "runs/mine/results.parquet is left as it is: runs/mine/runs lacks 2 of its runs;" in capsys.readouterr().err
    assert (read_results(Path("runs/mine/results.parquet")).status == RunStatus.FINISHED).all()
    assert main(["results", "runs/mine", "--runs", "shared"]) == 0
    assert "is left as it is" not in capsys.readouterr().err


def test_a_study_made_in_python_keeps_its_plan_too(tiny_study: Study, tmp_path: Path, quiet: Progress) -> None:
    study = dataclasses.replace(tiny_study, arms=(BACKBONE,))
    run_study(study, tmp_path, progress=quiet)
    assert len(run_study(dataclasses.replace(study, run_seeds=4), tmp_path, progress=quiet)) == 4
    error = refusal(lambda: run_study(dataclasses.replace(study, seeds=4), tmp_path, progress=quiet))
    assert (
        "planned confirmation, seeds 0 to 1, looks [2]; this one plans confirmation, seeds 0 to 3, looks [4]" in error
    )


@pytest.mark.extra("suites")
def test_added_suites_stay_when_the_file_is_run_again(
    file: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(f"{STUDY}suites: [calibration]\n")
    run_study(read_study(file), "runs/mine", progress=quiet)
    score_study("runs/mine", parse_suites(["adversarial: {images: 4}", "calibration"]), progress=quiet)
    said: list[str] = []
    monkeypatch.setattr(quiet, "say", said.append)
    run_study(read_study(file, seeds=3), "runs/mine", progress=quiet)
    assert [line for line in said if line.startswith("scored too")] == [
        "scored too, as runs/mine/study.yaml names them: adversarial; to drop one, delete it there"
    ]
    for path in (file, "runs/mine"):
        assert [suite.name for suite in open_study(path).study.suites] == ["calibration", "adversarial"]
    file.write_text(f"{STUDY}suites: [adversarial: {{images: 8}}]\n")
    assert [suite.public_options["images"] for suite in open_study(file).study.suites if suite.adversarial] == [8]


@pytest.mark.extra("suites")
def test_suites_that_two_commands_add_at_once_both_stay(
    file: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_study(read_study(file), "runs/mine", progress=quiet)

    def after_another(folder: Path) -> AbstractContextManager[None]:
        monkeypatch.setattr(score_study_module, "hold", hold)
        score_study("runs/mine", parse_suites(["calibration"]), progress=quiet)
        return hold(folder)

    monkeypatch.setattr(score_study_module, "hold", after_another)
    score_study("runs/mine", parse_suites(["adversarial: {images: 4}"]), progress=quiet)
    assert {suite.name for suite in open_study("runs/mine").study.suites} == {"calibration", "adversarial"}


SETTINGS = """\
edition: 2
purpose: confirmation
modes: [learned]
experiences: [affect, shuffled]
references: [backbone]
seeds: 1
pretraining: {training: {epochs: 1, device: cpu}}
classifier:
  target: {name: digits, image_size: 8}
  backbone: {name: resnet8}
  training: {epochs: 1, device: cpu}
"""
CHANGES = [
    ("image_size: 8}\n  backbone", "image_size: 8, limit: 64}\n  backbone", "classifier.target.limit was null, is 64"),
    ("pretraining: {", "pretraining: {optimizer: {lr: 0.001}, ", "pretraining.optimizer.lr was 0.002, is 0.001"),
    ("[affect, shuffled]", "[affect]", "runs such as digits-resnet8-learned-shuffled-procedural-seed0 are left out"),
    ("  backbone:", "  optimizer: {lr: 0.05}\n  backbone:", "classifier.optimizer.lr was 0.1, is 0.05"),
]


@pytest.mark.parametrize(("old", "new", "reason"), CHANGES, ids=["target", "stage 1", "arms", "stage 2"])
@pytest.mark.parametrize("has_table", [True, False], ids=["by its table", "by its copy"])
def test_the_runs_of_a_confirmation_with_results_cannot_be_changed_by_any_command(
    file: Path, quiet: Progress, old: str, new: str, reason: str, has_table: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(SETTINGS)
    run_study(read_study(file), "runs/mine", progress=quiet)
    if not has_table:
        Path("runs/mine/results.parquet").unlink()
    assert old in SETTINGS
    file.write_text(SETTINGS.replace(old, new))
    expected = (
        f"runs/mine holds results of a study that was planned differently: {reason}. A confirmation does not change "
        "once results are there: put that back, or choose another folder for another study (--out)"
    )
    assert refusal(lambda: run_study(read_study(file), "runs/mine", progress=quiet)) == expected
    doors: list[tuple[str, ...]] = [("study",), ("study", "--dry-run"), ("results",), ("report",)]
    for command, *options in doors + [("study", "--with", "runs/mine/results.parquet")] * has_table:
        assert main([command, "mine.yaml", *options]) == 2
        assert expected in capsys.readouterr().err
    assert len(run_study(read_study(file), "runs/other", progress=quiet))


@pytest.mark.parametrize("is_added", [True, False], ids=["added", "waiting"])
def test_arms_done_after_the_table_was_written_cannot_be_dropped_from_a_confirmation(
    file: Path, quiet: Progress, is_added: bool
) -> None:
    file.write_text(SETTINGS)
    table = run_study(read_study(file), "runs/mine", progress=quiet)
    is_later = table["experience"] == "shuffled"
    table.loc[is_later, "status"] = "waiting"
    write_results(Path("runs/mine/results.parquet"), table[~is_later] if is_added else table)
    assert open_study(file).fallen_out is None
    file.write_text(SETTINGS.replace("[affect, shuffled]", "[affect]"))
    error = refusal(lambda: open_study(file))
    assert "runs such as digits-resnet8-learned-shuffled-procedural-seed0 are left out" in error


def test_a_confirmation_of_another_machine_needs_its_machine_or_its_folder(
    file: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(SETTINGS.replace(", device: cpu", ""))
    monkeypatch.setattr(scheduler, "this_machine", lambda: Machine("cuda", "bf16-mixed"))
    run_study(read_study(file), "runs/mine", progress=quiet)
    error = refusal(lambda: prepare_study(read_study(file), Path("runs/mine"), machine=Machine))
    machine = "machine: {device: cuda, precision: bf16-mixed}"
    assert "classifier.training.device was cuda, is cpu" in error and "put that back" not in error
    assert f"results are there: write {machine} into the file, or give runs/mine in its place, or choose" in error
    assert (
        prepare_study(read_study(Path("runs/mine/study.yaml")), Path("runs/mine"), machine=Machine).fallen_out is None
    )
    file.write_text(f"{file.read_text()}{machine}\n")
    assert prepare_study(read_study(file), Path("runs/mine"), machine=Machine).fallen_out is None
    file.write_text(SETTINGS)  # now the file specifies cpu
    assert "results are there: put that back, or" in refusal(lambda: open_study(file))


def test_settings_added_after_a_table_was_written_are_not_changes(file: Path, quiet: Progress) -> None:
    file.write_text(SETTINGS)
    table = run_study(read_study(file), "runs/mine", progress=quiet)
    unused = [name for name, value in BEFORE_ADDED.items() if table[name].dropna().eq(value).all()]
    assert {"recipe.encoder.anchor", "recipe.target.labels", "recipe.stimuli.valence"} <= set(unused)
    write_results(Path("runs/mine/results.parquet"), table.assign(**dict.fromkeys(unused)))
    file.write_text(SETTINGS.replace("  backbone:", "  optimizer: {lr: 0.05}\n  backbone:"))
    assert "differently: classifier.optimizer.lr was 0.1, is 0.05. A" in refusal(lambda: open_study(file))


def test_a_confirmation_whose_images_differ_is_refused_with_their_old_root(file: Path, quiet: Progress) -> None:
    for name, count in (("one", 10), ("two", 11)):
        for path in (Path(name, label, f"{number}.png") for label in "ab" for number in range(count)):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(path)
    file.write_text(STUDY.replace("name: digits", "name: folder, root: one"))
    run_study(read_study(file), "runs/mine", progress=quiet)
    file.write_text(STUDY.replace("name: digits", "name: folder, root: two"))
    assert "classifier.target.root was one, is two" in refusal(lambda: open_study(file))


def test_a_confirmation_with_results_accepts_more_arms_sets_and_seeds_and_other_execution_settings(
    file: Path, quiet: Progress
) -> None:
    file.write_text(SETTINGS)
    before = run_study(read_study(file), "runs/mine", progress=quiet)
    more = SETTINGS.replace("[affect, shuffled]", "[affect, fresh, shuffled]").replace("device", "devices: 1, device")
    more += "targets:\n  - {}\n  - target: {limit: 64}\nstimuli:\n  - {}\n  - stimuli: {count: 20}\n"
    file.write_text(more + "suites: [calibration]\n")
    after = run_study(read_study(file, seeds=2), "runs/mine", progress=quiet)
    assert set(before.id) < set(after.id)


def test_an_exploration_says_which_results_of_an_earlier_plan_are_not_in_its_table(
    file: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(SETTINGS.replace("confirmation", "exploration"))
    run_study(read_study(file), "runs/mine", progress=quiet)
    file.write_text(file.read_text().replace("  backbone:", "  optimizer: {lr: 0.05}\n  backbone:"))
    expected = "3 finished runs of the earlier plan are not in this table: classifier.optimizer.lr was 0.1, is 0.05"
    assert main(["results", "mine.yaml"]) == 0
    assert f"emoreg: runs/mine/results.parquet is left as it is: {expected}\n" in capsys.readouterr().err
    assert main(["report", "mine.yaml"]) == 2
    assert f"emoreg: {expected}\n" in capsys.readouterr().err
    said: list[str] = []
    monkeypatch.setattr(quiet, "say", said.append)
    run_study(read_study(file), "runs/mine", progress=quiet)
    run_study(read_study(file), "runs/mine", progress=quiet)
    assert said.count(expected) == 1


def test_the_plan_of_a_smoke_run_may_change(file: Path, quiet: Progress) -> None:
    file.write_text(SETTINGS)
    run_study(read_study(file, smoke=True), "runs/mine-smoke", progress=quiet)
    file.write_text(SETTINGS.replace("confirmation", "exploration"))
    run_study(read_study(file, smoke=True), "runs/mine-smoke", progress=quiet)
    file.write_text(SETTINGS.replace("  backbone:", "  optimizer: {lr: 0.05}\n  backbone:"))
    assert len(run_study(read_study(file, smoke=True), "runs/mine-smoke", progress=quiet)) == 5


def test_a_study_that_is_as_small_as_a_smoke_run_is_not_one(file: Path, quiet: Progress) -> None:
    small = read_study(file, smoke=True)
    assert small.values is not None
    file.write_text(yaml.safe_dump({key: value for key, value in small.values.items() if key != "smoke"}))
    assert read_study(file) == read_study(file, smoke=True)
    run_study(read_study(file), "runs/mine", progress=quiet)
    error = refusal(lambda: run_study(read_study(file, smoke=True), "runs/mine", progress=quiet))
    assert error.startswith("runs/mine holds results of a study that is not known to be a smoke run")


def test_a_smoke_run_is_recognised_by_its_folder(file: Path, quiet: Progress) -> None:
    run_study(read_study(file, smoke=True), "runs/mine-smoke", progress=quiet)
    assert open_study("runs/mine-smoke").study.is_smoke and not open_study(file).study.is_smoke


@pytest.mark.parametrize("purpose", ["confirmation", "exploration"])
def test_a_smoke_run_does_not_replace_a_study_nor_a_study_a_smoke_run(
    file: Path, quiet: Progress, purpose: str
) -> None:
    file.write_text(SETTINGS.replace("confirmation", purpose) + "suites: [calibration]\n")
    run_study(read_study(file), "runs/mine", progress=quiet)
    run_study(read_study(file, smoke=True), "runs/mine-smoke", progress=quiet)
    before = [Path("runs/mine", name).read_bytes() for name in ("study.yaml", "results.parquet")]
    assert refusal(lambda: run_study(read_study(file, smoke=True), "runs/mine", progress=quiet)) == (
        "runs/mine holds results of a study that is not known to be a smoke run: choose another folder for this one "
        "(--out), or delete that one"
    )
    assert before == [Path("runs/mine", name).read_bytes() for name in ("study.yaml", "results.parquet")]
    if purpose == "confirmation":
        error = refusal(lambda: run_study(read_study(file), "runs/mine-smoke", progress=quiet))
        assert "runs/mine-smoke holds results of a study that was planned differently" in error
    file.write_text(file.read_text().replace("seeds: 1", "seeds: 2"))
    error = refusal(lambda: run_study(read_study(file), "runs/mine-smoke", progress=quiet))
    assert "runs/mine-smoke holds results of a study that planned" in error


def test_one_label_is_taken_as_text(tiny_study: Study, tmp_path: Path, quiet: Progress) -> None:
    message = refusal(lambda: run_study(tiny_study, tmp_path / "out", progress=quiet, only="lerned"))
    assert "called 'lerned' (did you mean 'learned'?)" in message


@pytest.mark.parametrize("table", ["nowhere.parquet", Path("nowhere.parquet")])
def test_one_table_is_taken_by_its_path(table: Path | str, tiny_study: Study, tmp_path: Path, quiet: Progress) -> None:
    message = refusal(lambda: run_study(tiny_study, tmp_path / "out", progress=quiet, elsewhere=table))
    assert message.startswith("nowhere.parquet")
