from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from emoreg.cli.main import main
from emoreg.cli.study import idle_looks
from emoreg.config.recipe import PretrainRecipe
from emoreg.errors import Diverged, UserError
from emoreg.stages import pretrain
from emoreg.study import calibrate, run_study
from emoreg.study.machine import this_machine
from emoreg.study.plan import plan_runs
from emoreg.study.read_study import read_study
from emoreg.study.results_table import write_results
from emoreg.study.scheduler import InTurn
from emoreg.training.launch import RunContext
from result_rows import results, stage_2

STUDIES = sorted((Path(__file__).parents[2] / "recipes" / "studies").glob("*.yaml"))
FIRST_EDITION = Path(__file__).parents[1] / "first_edition" / "results.parquet"
STUDY = """\
edition: 2
modes: [learned]
experiences: [affect, fresh]
references: [backbone]
seeds: 2
pretraining:
  stimuli: {count: 20}
  training: {epochs: 1, batch_size: 16, device: cpu}
classifier:
  target: {name: digits, image_size: 8, limit: 64}
  backbone: {name: resnet8}
  training: {epochs: 1, batch_size: 16, device: cpu}
"""


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run studies in this process, since a new one would import all of PyTorch again."""
    monkeypatch.setattr(run_study, "LocalPool", lambda jobs, progress: InTurn(progress))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "pilot.yaml"
    path.write_text(STUDY)
    return path


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(arguments) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_a_plan_does_not_change_once_there_are_results(
    file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file.write_text(STUDY.replace("learned", "fixed").replace("[affect, fresh]", "[affect]"))
    told(capsys, "study", "pilot.yaml", "--seeds", "1", "--quiet")
    assert "run_seeds" not in (tmp_path / "runs" / "pilot" / "study.yaml").read_text()
    file.write_text(file.read_text().replace("seeds: 2", "seeds: 1"))
    message = told(capsys, "study", "pilot.yaml", "--quiet", code=2)
    assert "planned confirmation, seeds 0 to 1, looks [2]; this one plans confirmation, seeds 0 to 0," in message
    file.write_text(STUDY.replace("seeds: 2", "seeds: 2\nfirst_seed: 100"))
    message = told(capsys, "study", "pilot.yaml", "--quiet", code=2)
    assert "seeds 0 to 1, looks [2]; this one plans confirmation, seeds 100 to 101, looks [2]." in message


@pytest.mark.thorough
def test_a_study_from_its_plan_to_its_report(file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shown = told(capsys, "study", "pilot.yaml", "--quiet")
    folder = tmp_path / "runs" / "pilot"
    assert "Learn-E-Reg" in shown and f"page: {folder / 'report.html'}" in shown
    made = {path.name for path in folder.glob("[!.]*")}
    assert made == {"study.yaml", "results.parquet", "report.html", "report.json", "report.md", "report.tex", "runs"}
    assert len(pd.read_parquet(folder / "results.parquet")) == 2 * 4

    # The folder works as the study's name, and nothing is trained again.
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*")}
    page = (folder / "report.html").read_bytes()
    assert told(capsys, "report", "runs/pilot") == told(capsys, "report", "pilot.yaml")
    assert told(capsys, "study", str(folder), "--quiet") == shown
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*")}
    assert (folder / "report.html").read_bytes() == page

    rows = json.loads(told(capsys, "results", "runs/pilot", "--where", "experience == 'affect'", "--format", "json"))
    assert [row["seed"] for row in rows] == [0, 1]
    csv = told(capsys, "results", "runs/pilot/results.parquet", "--columns", "mode,recipe.seed", "--format", "csv")
    assert csv.splitlines()[0] == "mode,recipe.seed" and len(csv.splitlines()) == 1 + 8
    assert "| learned |" in told(capsys, "results", "runs/pilot", "--columns", "mode", "--format", "markdown")
    shown = told(capsys, "results", "runs/pilot")
    assert "fresh" in shown and "train_loss" in shown and "test_accuracy" not in shown
    assert "test_accuracy" in told(capsys, "results", "runs/pilot", "--columns", "seed,test_accuracy")
    everything = json.loads(told(capsys, "results", "runs/pilot", "--columns", "all", "--format", "json"))
    assert {len(row["test_correct"]) for row in everything if row["stage"] == 2} == {76}  # 450 images in base64

    # The table alone gives the same report, including curves, without the runs.
    handed_on = tmp_path / "elsewhere" / "pilot.parquet"
    handed_on.parent.mkdir()
    (folder / "results.parquet").rename(handed_on)
    shutil.rmtree(tmp_path / "runs")
    told(capsys, "report", "elsewhere/pilot.parquet")
    assert (handed_on.parent / "pilot" / "report.html").read_bytes() == page
    # A list that no finished run has is stored as missing numbers.
    pd.read_parquet(handed_on).assign(lambda_per_class=float("nan")).to_parquet(handed_on.with_name("anew.parquet"))
    told(capsys, "report", "elsewhere/anew.parquet")
    anew = (handed_on.parent / "anew" / "report.html").read_text(encoding="utf-8")
    assert anew.replace("anew", "pilot") == page.decode()
    told(capsys, "report", "elsewhere/pilot.parquet", "--out", "pages/mine")
    assert (tmp_path / "pages" / "mine" / "report.md").exists()
    assert "cannot create the report's folder" in told(
        capsys, "report", "elsewhere/pilot.parquet", "--out", str(handed_on / "below"), code=2
    )


def test_a_dry_run_prints_the_plan_and_trains_nothing(
    file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "SECONDS", 0.01)
    shown = told(capsys, "study", "pilot.yaml", "--dry-run", "--quiet", "--seeds", "3")
    assert re.search(r"12 runs, 0 done, 12 to do: (a few seconds|about .+) on this machine \(", shown)
    assert "With 2 seeds no test can pass, whatever the results: plan more seeds." in shown
    assert not (tmp_path / "runs").exists()


def test_more_seeds_are_not_asked_for_if_there_are_more_arms_than_any_test_can_allow_for(
    file: Path, tmp_path: Path
) -> None:
    planned = plan_runs(read_study(file, seeds=1), tmp_path)
    arm = next(run for run in planned if run.mode == "learned" and run.experience == "affect")
    many = [dataclasses.replace(arm, variant=str(number)) for number in range(251)]
    assert idle_looks((100,), many[:250]) is None
    line = idle_looks((100,), many)
    assert line is not None and line.endswith("whatever the results and the seeds: plan at most 250.")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_test_can_pass_at_every_look_of_a_shipped_confirmation(path: Path, tmp_path: Path) -> None:
    study = read_study(path)
    if study.purpose == "confirmation":
        planned = plan_runs(read_study(path, seeds=1), tmp_path)  # as many arms as with all seeds
        assert idle_looks(study.looks or (study.seeds,), planned) is None


@pytest.mark.parametrize(("is_there", "code"), [(False, 2), (True, 1)], ids=["not here", "cannot be read"])
def test_a_dry_run_ends_with_the_exit_code_that_the_study_would_have(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, is_there: bool, code: int
) -> None:
    monkeypatch.setattr(calibrate, "SECONDS", 0.01)
    arms = STUDY.replace("[learned]", "[]").replace("seeds: 2", "seeds: 1")
    file.write_text(arms.replace("name: digits", "name: folder, root: photos"))
    if is_there:
        Path("photos").mkdir()
    assert main(["study", "pilot.yaml", "--dry-run", "--quiet"]) == code
    assert "1 runs, 0 done, 1 to do: no estimate" in capsys.readouterr().out
    assert main(["study", "pilot.yaml", "--quiet"]) == code


@pytest.mark.extra("suites")
def test_a_dry_run_says_which_suites_the_study_would_be_refused_for(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "SECONDS", 0.01)
    file.write_text(STUDY.replace("[learned]", "[]") + "suites: [corruptions]\n")
    assert main(["study", "pilot.yaml", "--dry-run", "--quiet"]) == 2
    shown, reason = capsys.readouterr().out, "target digits: corruptions need images of at least"
    assert reason in shown and "2 runs, 0 done, 2 to do" in shown
    assert reason in told(capsys, "study", "pilot.yaml", "--quiet", code=2)


def test_a_study_with_a_failed_run_exits_with_1_and_names_it_even_without_a_report(
    file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file.write_text(
        STUDY.replace("modes: [learned]", "modes: []").replace("seeds: 2", "seeds: 1")
        + "targets:\n  - target: {name: digits}\n  - target: {name: folder, root: nothing}\n"
    )
    (tmp_path / "nothing").mkdir()
    shown = told(capsys, "study", "pilot.yaml", "--quiet", code=1)
    assert "emoreg: failed: nothing-resnet8-backbone-seed0: " in shown and "nothing" in shown
    assert "1 of 2 runs failed; run the same command again" in shown and "Traceback" not in shown
    assert "failed" in told(capsys, "results", "pilot.yaml")
    (page := tmp_path / "runs" / "pilot" / "report.html").unlink()
    page.mkdir()  # it cannot be written, as on a full disk
    again = told(capsys, "study", "pilot.yaml", "--quiet", code=2)
    assert "1 of 2 runs failed" in again and "emoreg: cannot write runs/pilot/report.html: " in again


def test_existing_tracebacks_are_mentioned_and_blocked_runs_are_counted(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(context: RunContext[PretrainRecipe], *_: object) -> None:
        raise RuntimeError("a fault of the code") if context.recipe.seed in faults else UserError("an image is empty")

    monkeypatch.setattr(pretrain, "_pretrain", fail)
    file.write_text(STUDY.replace("[affect, fresh]", "[affect]").replace("references: [backbone]", "references: []"))
    where = "runs/pilot/failures.json"
    faults = {0, 1}
    for told_of in (f"; their tracebacks are in {where}", f"; tracebacks of 1 of them are in {where}", ""):
        shown = told(capsys, "study", "pilot.yaml", "--quiet", code=1)
        assert f"emoreg: 2 of 4 runs failed{told_of}; run the same command again to retry them" in shown
        assert "emoreg: 2 of 4 runs are blocked: not started, as they need a stage-1 run named above" in shown
        faults.discard(len(faults) - 1)


def test_a_study_with_a_diverged_run_is_complete_and_reports_it(
    file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    diverging = "  optimizer: {lr: 1.0e+38}\n"
    file.write_text(STUDY.replace("modes: [learned]", "modes: []").replace("seeds: 2", "seeds: 1") + diverging)
    for _ in range(2):
        assert main(["study", "pilot.yaml", "--quiet"]) == 0
        shown = capsys.readouterr().err
        assert "emoreg: diverged: digits-resnet8-backbone-seed0: " in shown
        assert "1 of 1 runs diverged: they count as collapsed, and are not trained again; to retry one" in shown
        assert "failed" not in shown
    (folder,) = (tmp_path / "runs" / "pilot" / "runs").iterdir()
    assert len(json.loads((folder / "environment.json").read_text())["sessions"]) == 1


def test_for_a_diverged_encoder_the_message_says_what_to_delete_and_promises_no_traceback(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: object) -> None:
        raise Diverged("the loss is not finite")

    monkeypatch.setattr(pretrain, "_pretrain", diverge)
    study = STUDY.replace("[affect, fresh]", "[affect]").replace("references: [backbone]", "references: []")
    file.write_text(study.replace("seeds: 2", "seeds: 1"))
    for _ in range(2):
        shown = told(capsys, "study", "pilot.yaml", "--quiet", code=1)
        assert "emoreg: diverged: pretraining-resnet8-procedural-affect-seed0: " in shown
        assert (
            "emoreg: 1 of 2 runs diverged in stage 1: they block runs that need them, and are not trained again; to "
            "retry one that was trained here, delete its folder ('emoreg runs delete')\n" in shown
        )
        assert "tracebacks" not in shown and "failed" not in shown


def test_a_study_whose_runs_all_diverged_has_a_report_of_collapses_and_nothing_to_score(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    diverging = "  optimizer: {lr: 1.0e+38}\n"
    file.write_text(STUDY.replace("modes: [learned]", "modes: []").replace("seeds: 2", "seeds: 1") + diverging)
    assert "page: " in told(capsys, "study", "pilot.yaml", "--quiet")
    assert "Backbone" in told(capsys, "report", "runs/pilot")
    shown = told(capsys, "suites", "runs/pilot", "--suites", "calibration", code=2)
    assert "all runs of stage 2 that have ended in runs/pilot diverged: there is nothing to score" in shown
    assert "no two arms" in told(capsys, "power", "runs/pilot", code=2)


def test_smoke_runs_the_whole_study_in_a_folder_of_its_own(
    file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file.write_text(STUDY.replace("epochs: 1", "epochs: 99").replace("modes: [learned]", "modes: []"))
    told(capsys, "study", "pilot.yaml", "--smoke", "--quiet")
    assert (tmp_path / "runs" / "pilot-smoke" / "report.html").exists() and not (tmp_path / "runs" / "pilot").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study"], "the following arguments are required: STUDY"),
        (["study", "pilot.yml"], "no study file pilot.yml; give a YAML file"),
        (["study", "pilot.yaml", "--jobs", "0"], "--jobs is 0; it must be at least 1"),
        (["study", "pilot.yaml", "--gpus-per-run", "0.5"], "--gpus-per-run is for --ray"),
        (["study", "pilot.yaml", "--ray", "auto", "--jobs", "2"], "--jobs is for this machine without Ray"),
        (["study", "pilot.yaml", "--ray", "--cpus-per-run", "0"], "--cpus-per-run is 0; it must be at least 1"),
        (["study", "pilot.yaml", "--seeds", "0"], "run_seeds: must be 1 to 1,000, not 0"),
        (["study", "pilot.yaml", "--dryrun"], "unknown option '--dryrun' (did you mean '--dry-run'?)"),
        (["report", "pilot.yaml"], "no run of this study is finished in runs/pilot/runs; run 'emoreg study' first, or"),
        (["power", "pilot.yaml"], "no run of this study is finished in runs/pilot/runs; run 'emoreg study' first, or"),
        (["power", "pilot.yaml", "--effect", "-1"], "--effect is -1.0; it must be a number of points above 0"),
        (["results", "nothing.parquet"], "nothing.parquet cannot be read as a table of results"),
        (["results", "pilot.yaml", "--merge", "all.csv"], "--merge: all.csv must end in .parquet"),
        (
            ["results", "a", "--merge", "a.parquet", "--where", "seed < 3"],
            "--merge writes whole tables; leave out --where",
        ),
        (
            ["results", "a", "--merge", "a.parquet", "--columns", "all"],
            "--merge writes whole tables; leave out --columns",
        ),
        (
            ["results", "a", "--merge", "a.parquet", "--format", "csv"],
            "--merge writes whole tables; leave out --format",
        ),
        (["results", "pilot.yaml", "--columns", "modes"], "no column is called 'modes' (did you mean 'mode'?)"),
    ],
)
def test_an_error_is_one_line(
    file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    shown = told(capsys, *arguments, code=2)
    assert message in shown and len(shown.splitlines()) == 1


def test_a_report_of_own_results_first_prints_how_they_were_interpreted(
    file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.csv").write_text('arm,seed,accuracy\nBackbone,0,0.70\nE-Reg,0,0.72\n"E-Reg, fresh",0,0.71\n')
    shown = told(capsys, "report", "mine.csv")
    assert shown.startswith("mine.csv: 3 runs, from your own training loop\n")
    assert re.search(r"E-Reg, fresh +fixed +fresh +twin +1: 0", shown)
    assert shown.index("Not checked:") < shown.index("Gain over") and "only the author's word" in shown
    assert (tmp_path / "mine" / "report.html").exists()
    (tmp_path / "mine.csv").write_text("arm,seed,acc\nBackbone,0,0.70\n")
    message = told(capsys, "report", "mine.csv", code=2)
    assert "mine.csv, row 1: the table has no column 'accuracy' (rename 'acc' if that is it)" in message


@pytest.mark.parametrize("options", [[], ["--smoke"]])
def test_a_study_can_be_named_from_inside_its_folder(
    options: list[str], file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "SECONDS", 0.01)
    file.rename(file.with_name("study.yaml"))
    assert "runs, 0 done" in told(capsys, "study", "study.yaml", "--dry-run", "--quiet", *options)


def test_a_dry_run_of_a_study_with_a_root_beside_a_forgotten_name_says_that_it_would_not_start(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "SECONDS", 0.01)
    file.write_text(STUDY.replace("name: digits", "name: digits, root: photos"))
    assert main(["study", "pilot.yaml", "--dry-run", "--quiet"]) == 2
    shown = " ".join(capsys.readouterr().out.split())
    assert "target.root: must be null for digits" in shown


def test_finished_runs_of_another_machine_are_used_and_tables_are_joined(
    file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file.write_text(STUDY.replace("modes: [learned]", "modes: []"))
    first = told(capsys, "study", "pilot.yaml", "--seeds", "1", "--out", "there", "--quiet")
    assert "1 of 2 planned seeds are complete: verdicts wait for the look at 2" in first and "Backbone" not in first
    assert "Backbone" in told(capsys, "report", "there")  # explicitly requested
    plan = told(capsys, "study", "pilot.yaml", "--with", "there/results.parquet", "--dry-run", "--quiet")
    assert "2 runs, 1 done, 1 to do" in plan and not (tmp_path / "runs").exists()
    shown = told(capsys, "study", "pilot.yaml", "--with", "there/results.parquet", "--quiet")
    assert "Backbone" in shown and "verdicts wait" not in shown
    assert len(list((tmp_path / "runs" / "pilot" / "runs").glob("digits-*"))) == 1
    assert [*pd.read_parquet("runs/pilot/results.parquet").status] == ["finished"] * 2

    told(capsys, "results", "there", "runs/pilot", "--merge", "all.parquet")
    joined = pd.read_parquet("all.parquet")
    assert joined["seed"].tolist() == [0, 1] and joined["id"].is_unique
    assert "--runs is for one study" in told(capsys, "results", "there", "all.parquet", "--runs", "x", code=2)
    other = told(capsys, "study", "pilot.yaml", "--out", "x", "--with", str(FIRST_EDITION), "--quiet", code=2)
    assert "has no run of this study: its closest run differs in edition (1 there, 2 here)" in other


def test_joining_tables_prints_their_number_of_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [stage_2({"unregulated": [0.9, 0.8]}, variant=name) for name in ("own", "mixture")]
    table = results(*rows)
    write_results(tmp_path / "one.parquet", table.assign(id=table["run"]))
    shown = told(capsys, "results", str(tmp_path / "one.parquet"), "--merge", str(tmp_path / "all.parquet"))
    assert shown.endswith("all.parquet: 2 runs of 1 tables\n")


@pytest.mark.parametrize("command", ["report", "results"])
def test_a_table_has_no_folder_of_runs(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = told(capsys, command, "results.parquet", "--runs", "runs", code=2)
    assert message == "emoreg: --runs is for a study; leave it out for the table results.parquet\n"


def test_a_smoke_run_has_one_seed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = told(capsys, "study", "pilot.yaml", "--smoke", "--seeds", "3", code=2)
    assert message == "emoreg: --smoke trains one seed; leave out --seeds\n"


def test_while_a_study_runs_the_test_split_stays_unseen(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(STUDY.replace("modes: [learned]", "modes: []").replace("seeds: 2", "seeds: 1"))
    assert main(["study", "pilot.yaml"]) == 0
    assert re.search(r"digits-resnet8-backbone-seed0: training loss \d\.\d{4}, ", capsys.readouterr().err)
    file.write_text(file.read_text().replace("limit: 64", "limit: 64, validation: 0.5"))
    assert main(["study", "pilot.yaml", "--out", "runs/another"]) == 0
    assert re.search(r"digits-resnet8-backbone-seed0: validation accuracy \d\.\d{4}, ", capsys.readouterr().err)


def test_the_copy_in_a_study_s_folder_says_how_auto_was_resolved(
    file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = STUDY.replace("modes: [learned]", "modes: []").replace(", device: cpu", "")
    file.write_text(text)
    told(capsys, "study", "pilot.yaml", "--quiet", "--smoke")
    kept = yaml.safe_load((tmp_path / "runs" / "pilot-smoke" / "study.yaml").read_text())
    assert kept["machine"] == dataclasses.asdict(this_machine())
    (recipe,) = (tmp_path / "runs" / "pilot-smoke" / "runs").glob("*/recipe.yaml")
    training = yaml.safe_load(recipe.read_text())["training"]
    assert {key: training[key] for key in kept["machine"]} == kept["machine"]


def test_the_assumed_edition_is_printed_for_a_file_without_one(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = "training: {epochs: 1, device: cpu}\ntarget: {image_size: 8, limit: 32}\nbackbone: {name: resnet8}\n"
    Path("mine.yaml").write_text(small)
    for text, expected in ((small, 1), (f"edition: 2\n{small}", 0)):
        Path("mine.yaml").write_text(text)
        assert main(["train", "mine.yaml", "--quiet", "--out", f"run-{expected}"]) == 0
        line = "emoreg: mine.yaml: edition 2 of the method; write 'edition: 2' to keep it"
        assert capsys.readouterr().err.count(line) == expected
    file.write_text(STUDY.replace("edition: 2\n", "").replace("modes: [learned]", "modes: []"))
    assert main(["study", "pilot.yaml", "--smoke", "--quiet"]) == 0
    assert "emoreg: pilot.yaml: edition 2 of the method" in capsys.readouterr().err
