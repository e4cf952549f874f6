"""Suites of finished runs: the remaining ones, their scoring by a pool, and their columns."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import emoreg.suites.score
from emoreg.config.recipe import TrainRecipe
from emoreg.errors import UserError
from emoreg.runs.run import Run
from emoreg.runtime.progress import Progress
from emoreg.study.definition import Study
from emoreg.study.plan import PlannedRun, plan_runs
from emoreg.study.read_study import read_study
from emoreg.study.results import results_of
from emoreg.study.results_table import read_results, write_results
from emoreg.study.scheduler import InTurn, failed_scorings, read_failures, recorded_failures, score_runs
from emoreg.study.scorings import check_scorable, left_to_score, plan_line
from emoreg.study.suite_columns import suite_columns
from emoreg.suites.options import Suite, parse_suites, read_suites
from emoreg.suites.results import file_of, write_result

SUITES = parse_suites(["calibration", "adversarial: {images: 4}"])


@pytest.fixture
def planned(tiny_study: Study, tmp_path: Path, finish: Callable[..., None]) -> list[PlannedRun]:
    """The plan of a study whose runs are finished, except the last."""
    found = plan_runs(tiny_study, tmp_path / "runs")
    for run in found[:-1]:
        finish(run)
    return found


def ids_of(planned: Sequence[PlannedRun]) -> list[str]:
    return [run.id for run in planned]


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Replace scoring, and return the runs and suites that are scored."""
    done: list[tuple[str, str]] = []

    def pretend(run: Path, suites: Sequence[Suite], *_: Any, recipe: TrainRecipe, **__: Any) -> None:
        for suite in suites:
            done.append((run.name, suite.name))
            content = {"figures": {"ece": 0.1}, "images": "9 test images", "environment": {}, "seconds": 1.0}
            write_result(Run(run), suite, content)

    monkeypatch.setattr(emoreg.suites.score, "score_suites", pretend)
    return done


def test_every_finished_run_of_stage_2_is_scored_once(
    planned: list[PlannedRun], scored: list[tuple[str, str]], tmp_path: Path, quiet: Progress
) -> None:
    classifiers = [run for run in planned if run.mode is not None and run.run.is_finished]
    assert [job.planned for job in left_to_score(planned, SUITES)] == classifiers
    assert score_runs(planned, SUITES, tmp_path, InTurn(quiet), quiet) == []
    assert len(scored) == 2 * len(classifiers) and left_to_score(planned, SUITES) == []
    assert score_runs(planned, SUITES, tmp_path, InTurn(quiet), quiet) == [] and len(scored) == 2 * len(classifiers)
    file_of(classifiers[0].run, SUITES[1]).unlink()
    (job,) = left_to_score(planned, SUITES)
    assert (job.planned, job.suites) == (classifiers[0], SUITES[1:])


def test_runs_that_were_scored_on_other_files_in_a_folder_of_the_same_name_are_left_to_score(
    planned: list[PlannedRun], tmp_path: Path
) -> None:
    places = [tmp_path / place / "textures" for place in ("one", "other")]
    for number, place in enumerate(places):
        place.mkdir(parents=True)
        (place / f"{number}.png").touch()
    here, there = (read_suites([{"transfer": {"sets": [{"name": "folder", "root": str(each)}]}}]) for each in places)
    jobs = left_to_score(planned, here)
    for job in jobs:
        write_result(job.planned.run, here[0], {"figures": {"accuracy": 0.5}, "images": "9 test images"})
    assert left_to_score(planned, here) == [] and len(left_to_score(planned, there)) == len(jobs) > 0
    columns = [suite_columns(jobs[0].planned.run, suites) for suites in (here, there)]
    assert columns[0] == columns[1] and json.loads(columns[0]["suites"])["transfer"]["contents"].keys() == {"textures"}
    shutil.rmtree(places[1])
    assert left_to_score(planned, there) == []  # reports need no images


def test_a_scoring_that_fails_is_recorded_and_tried_again_and_its_run_stays_finished(
    planned: list[PlannedRun], tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(emoreg.suites.score, "score_suites", refuse)
        failed = score_runs(planned, SUITES, tmp_path, InTurn(quiet), quiet)
    names = {outcome.run.name for outcome in failed}
    assert {each["error"] for each in failed_scorings(tmp_path, ids_of(planned))} == {"the images are gone"}
    assert {each["run"] for each in failed_scorings(tmp_path, ids_of(planned))} == names
    assert all("suites" in name for name in names)
    assert recorded_failures(planned, tmp_path) == {}
    monkeypatch.setattr(emoreg.suites.score, "score_suites", lambda *_, **__: None)
    score_runs(planned, SUITES, tmp_path, InTurn(quiet), quiet)
    assert failed_scorings(tmp_path, ids_of(planned)) == []


def refuse(*_: Any, **__: Any) -> None:
    """Replace a scoring."""
    raise UserError("the images are gone")


def test_a_failed_scoring_is_reported_only_while_it_remains_to_be_done(
    planned: list[PlannedRun],
    scored: list[tuple[str, str]],
    tmp_path: Path,
    quiet: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(emoreg.suites.score, "score_suites", refuse)
            assert score_runs(planned, SUITES, tmp_path, InTurn(quiet), quiet)
        assert failed_scorings(tmp_path, ids_of(planned))

    (tmp_path / "failures.json").write_text(json.dumps({"0123": {"run": "a run", "error": "the disk is full"}}))
    fail()
    score_runs(planned, (), tmp_path, InTurn(quiet), quiet)  # the suites were dropped from the study's file
    assert failed_scorings(tmp_path, ids_of(planned)) == []
    fail()
    for job in left_to_score(planned, SUITES):  # like emoreg suites RUN
        emoreg.suites.score.score_suites(job.folder, job.suites, recipe=job.recipe)
    score_runs(planned, SUITES, tmp_path, InTurn(quiet), quiet)
    assert failed_scorings(tmp_path, ids_of(planned)) == [] and [*read_failures(tmp_path)] == ["0123"]


def test_a_failed_scoring_stays_recorded_while_another_part_of_the_study_runs(
    planned: list[PlannedRun],
    scored: list[tuple[str, str]],
    tmp_path: Path,
    quiet: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = [[run for run in planned if run.seed == seed] for seed in (0, 1)]
    with monkeypatch.context() as patch:
        patch.setattr(emoreg.suites.score, "score_suites", refuse)
        failed = score_runs(parts[0], SUITES, tmp_path, InTurn(quiet), quiet)
    score_runs(parts[1], SUITES, tmp_path, InTurn(quiet), quiet)
    assert scored and len(failed_scorings(tmp_path, ids_of(planned))) == len(failed) > 0
    assert failed_scorings(tmp_path, ids_of(parts[1])) == []  # a run that is no longer planned is not reported
    score_runs(planned, SUITES, tmp_path, InTurn(quiet), quiet)
    assert failed_scorings(tmp_path, ids_of(planned)) == []


def test_the_table_has_a_column_for_each_figure_and_one_for_the_options(
    planned: list[PlannedRun], tiny_study: Study, scored: list[tuple[str, str]], tmp_path: Path, quiet: Progress
) -> None:
    score_runs(planned, SUITES, tmp_path, InTurn(quiet), quiet)
    study = dataclasses.replace(tiny_study, suites=SUITES)
    write_results(tmp_path / "results.parquet", results_of(study, planned, {}, out=tmp_path))
    table = read_results(tmp_path / "results.parquet")
    is_scored = (table["stage"] == 2) & (table["status"] == "finished")
    assert (table.loc[is_scored, "suite.calibration.ece"] == 0.1).all()
    assert table.loc[~is_scored, "suite.calibration.ece"].isna().all()
    suites = json.loads(table.loc[is_scored, "suites"].iloc[0])
    assert suites["adversarial"]["options"]["images"] == 4 and suites["calibration"]["images"] == "9 test images"
    before = results_of(tiny_study, planned, {}, out=tmp_path)
    assert before["suites"].isna().all() and "suite.calibration.ece" not in before


def test_suites_in_a_file_change_no_run(tmp_path: Path) -> None:
    text = "modes: [learned]\nexperiences: [affect]\nreferences: [backbone]\nseeds: 1\n"
    more = "suites:\n  - calibration\n  - out_of_distribution: {sets: [svhn]}\n"
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "b.yaml").write_text(text + more)
    one, other = (read_study(tmp_path / name) for name in ("a.yaml", "b.yaml"))
    assert [suite.name for suite in other.suites] == ["calibration", "out_of_distribution"] and one.suites == ()
    ids = [[run.id for run in plan_runs(study, tmp_path / "runs")] for study in (one, other)]
    assert ids[0] == ids[1]
    assert read_study(tmp_path / "b.yaml", smoke=True).suites[1].public_options["images"] == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("suites: [calibraton]", r"b\.yaml.*calibraton.*did you mean"),
        ("suites: calibration", "suites: must be a list"),
        ("suites: [{adversarial: {epsilon: 3}}]", r"suites\[0\]\.adversarial\.epsilon: unknown setting"),
        ("suites: [calibration, calibration]", r"suites\[1\]: 'calibration' appears twice"),
        ("suites: [out_of_distribution]", r"at least one other set"),
        (
            "suites: [calibration]\nclassifier: {target: {name: oasis, labels: dimensions}}",
            r"suites: must be left out with the target oasis.*: suites score classifiers of one class per image",
        ),
    ],
)
def test_an_error_in_suites_names_the_key(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "b.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_study(tmp_path / "b.yaml")


def test_what_cannot_be_scored_is_refused_before_any_run(
    planned: list[PlannedRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emoreg.suites.score, "is_installed", lambda package: True)
    with pytest.raises(UserError, match="target digits: corruptions need images of at least 32 pixels"):
        check_scorable(planned, [], parse_suites(["corruptions"]))
    gone = parse_suites([f"out_of_distribution: {{sets: [{{name: folder, root: {tmp_path / 'nowhere'}}}]}}"])
    with pytest.raises(UserError, match="out_of_distribution: nowhere: nothing at"):
        check_scorable([], left_to_score(planned, gone), gone)
    monkeypatch.setattr(emoreg.suites.score, "is_installed", lambda package: False)
    with pytest.raises(UserError, match=r"pip install 'emoreg\[suites\]'"):
        check_scorable([], left_to_score(planned, SUITES), SUITES)


def test_scored_runs_need_neither_libraries_nor_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emoreg.suites.score, "is_installed", lambda package: False)
    check_scorable([], [], parse_suites(["corruptions", "adversarial"]))


def test_a_plan_has_no_scorings_of_a_run_that_diverged(planned: list[PlannedRun]) -> None:
    classifiers = sum(run.mode is not None for run in planned)
    planned[-1].folder.mkdir()
    planned[-1].run.end_diverged("the loss is not finite")
    left = 2 * (classifiers - 1)
    assert f"{left} scorings, 0 done, {left} to do" in str(plan_line(planned, SUITES))


def test_a_plan_counts_scorings(planned: list[PlannedRun], scored: list[tuple[str, str]], quiet: Progress) -> None:
    assert plan_line(planned, ()) is None
    classifiers = sum(run.mode is not None for run in planned)
    line = plan_line(planned, SUITES)
    assert line is not None and f"{2 * classifiers} scorings, 0 done, {2 * classifiers} to do" in line
