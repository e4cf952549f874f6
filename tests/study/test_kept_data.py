"""Studies that were moved, and studies whose images were moved, are missing or have changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from emoreg.cli.main import main
from emoreg.runs.run import FINAL, INPUTS, WEIGHTS
from emoreg.runtime.progress import Progress
from emoreg.stages.inputs import inputs_of
from emoreg.study import run_study as run_study_module
from emoreg.study import scheduler
from emoreg.study.columns import RunStatus
from emoreg.study.elsewhere import finished_elsewhere
from emoreg.study.kept_data import refuse_changed
from emoreg.study.machine import Machine
from emoreg.study.plan import PlannedRun, plan_runs, with_ids_elsewhere
from emoreg.study.read_study import read_study, with_data
from emoreg.study.results_table import read_results
from emoreg.study.run_one import RunOutcome
from emoreg.study.run_study import open_study, run_study
from refusing import refusal

STUDY = """\
edition: 2
modes: [learned]
experiences: [affect]
references: [backbone]
seeds: {seeds}
pretraining:
  stimuli: {{name: folder, root: {root}, image_size: 8}}
  training: &training {{epochs: 1, batch_size: 8, device: cpu, precision: 32-true, trackers: []}}
classifier:
  target: {{name: folder, root: {root}, image_size: 8}}
  backbone: {{name: resnet8}}
  training: {{epochs: 1, batch_size: 8, device: cpu, precision: 32-true, trackers: []}}
""".replace("&training ", "")


@pytest.fixture(autouse=True)
def _as_if_trained(monkeypatch: pytest.MonkeyPatch, finish: Callable[..., None]) -> None:
    """Replace training: a run whose images and stage-1 run exist looks trained afterwards."""

    def perform(run: PlannedRun, _progress: Progress) -> RunOutcome:
        inputs = inputs_of(run.recipe)
        assert inputs.data and (run.needs is None) == (inputs.experience is None)
        shutil.rmtree(run.folder, ignore_errors=True)
        finish(run, 4 / 9)  # as in its bits of right predictions
        (run.folder / INPUTS).write_text(json.dumps(inputs.record()))
        (run.folder / WEIGHTS).write_text(run.id)
        return RunOutcome(run, RunStatus.FINISHED)

    monkeypatch.setattr(scheduler, "perform", perform)


@pytest.fixture
def place(tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with images in data/flags and a study on them."""
    place = tmp_path / "work"
    (place / "data").mkdir(parents=True)
    image_folder.rename(place / "data" / "flags")
    monkeypatch.chdir(place)
    return place


def written(root: Path | str = "data/flags", seeds: int = 1, path: str = "study-of-flags.yaml") -> Path:
    Path(path).write_text(STUDY.format(root=root, seeds=seeds))
    return Path(path)


def done(study: Path | str, out: Path | str, quiet: Progress, runs: Path | None = None) -> pd.DataFrame:
    return run_study(read_study(study), out, runs, progress=quiet)


def planned(out: Path | str) -> list[PlannedRun]:
    return list(open_study(out).planned)


def ids(root: Path | str) -> list[str]:
    study = with_data(read_study(written(root, path="other.yaml")), None)
    return [run.id for run in plan_runs(study, Path("runs"))]


def test_ids_do_not_depend_on_paths(image_zip: Path, place: Path) -> None:
    first = ids("data/flags")
    (place / "link").symlink_to("data")
    for other in ("./data//flags/", place / "data" / "flags", "link/flags", image_zip, "data\\flags"):
        assert ids(other) == first, other
    assert ids("nowhere") != first


def test_other_images_under_the_same_path_give_other_runs(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: Progress
) -> None:
    """Otherwise the second study would use the runs of the first, and report that all is done."""
    shared = tmp_path / "shared"
    first = done(written(), "s", quiet, shared)
    shutil.copytree(place / "data", tmp_path / "other" / "data")
    (tmp_path / "other" / "data" / "flags" / "train" / "red" / "0000.png").unlink()
    monkeypatch.chdir(tmp_path / "other")
    second = done(written(), "s", quiet, shared)
    assert not set(first["id"]) & set(second["id"]) and set(second["status"]) == {"finished"}


def moves() -> Iterator[tuple[str, Callable[[Path], Path | str]]]:
    def moved(place: Path) -> Path:
        return Path(shutil.move(place / "s", place.parent / "renamed"))

    def linked(place: Path) -> str:
        (place / "link").symlink_to("s")
        return "link"

    def whole_tree(place: Path) -> Path:
        (place.parent / "b").mkdir()
        return Path(shutil.move(place, place.parent / "b" / "work")) / "s"

    yield "moved and renamed", moved
    yield "by its absolute path", lambda place: place / "s"
    yield "through a link", linked
    yield "together with its images", whole_tree


@pytest.mark.parametrize(("move", "elsewhere"), [(move, cwd) for _, move in moves() for cwd in (False, True)])
def test_a_study_that_was_moved_or_renamed_continues(
    move: Callable[[Path], Path | str],
    elsewhere: bool,
    place: Path,
    tmp_path: Path,
    quiet: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = done(written(seeds=2), "s", quiet)
    (Path("s") / before["folder"].iloc[-1] / FINAL).unlink()  # the last run must be repeated
    out = Path(move(place)).absolute()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere" if elsewhere or not place.exists() else place)
    after = done(out / "study.yaml", out, quiet)
    assert after["id"].tolist() == before["id"].tolist() and set(after["status"]) == {"finished"}
    assert after["recipe.target.root"].dropna().unique().tolist() == ["data/flags"]


def test_neither_reports_nor_plans_need_images(place: Path, quiet: Progress, capfd: pytest.CaptureFixture[str]) -> None:
    done(written(), "s", quiet)
    before = [run.id for run in planned("s")]
    shutil.rmtree(place / "data")
    assert [run.id for run in planned("s")] == before and all(run.run.is_finished for run in planned("s"))
    assert main(["report", "s"]) == main(["results", "s"]) == main(["study", "s", "--quiet"]) == 0
    assert main(["results", "s", "s/results.parquet", "--merge", "all.parquet"]) == 0
    assert len(read_results(Path("all.parquet"))) == 3
    capfd.readouterr()
    assert main(["study", "s", "--dry-run", "--quiet"]) == 0 and "is not here" not in capfd.readouterr().out
    assert main(["study", "s", "--seeds", "2", "--dry-run", "--quiet"]) == 2
    shown = capfd.readouterr().out
    assert (
        "data/flags (folder) is not here: it was 32 files of" in shown
        and "6 runs, 3 done, 3 to do: no estimate" in shown
    )
    assert main(["study", str(written("never/there", path="n.yaml")), "--dry-run", "--quiet"]) == 2
    message = refusal(lambda: done("s/study.yaml", "s", quiet) if rewritten_with(2) else None)
    assert "data/flags (folder) is not here: it was 32 files of" in message


def rewritten_with(seeds: int) -> bool:
    """Raise the number of seeds in the copy of a study's file."""
    path = Path("s/study.yaml")
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"run_seeds": seeds}))
    return True


def test_changed_images_are_refused_if_runs_remain(place: Path, quiet: Progress) -> None:
    done(written(), "s", quiet)
    (place / "data" / "flags" / "train" / "red" / "more.png").write_bytes(b"x")
    assert set(done(written(), "s", quiet)["status"]) == {"finished"}  # nothing to do
    message = refusal(lambda: run_study(read_study(written(), seeds=2), "s", progress=quiet))
    assert "data/flags (folder) has changed: 32 files of" in message and "33 files of" in message and "--out" in message
    assert main(["report", "s"]) == 0


def test_a_study_with_paths_in_its_ids_continues(
    place: Path, tmp_path: Path, quiet: Progress, capfd: pytest.CaptureFixture[str]
) -> None:
    study = read_study(written(seeds=2), seeds=1)
    as_then = plan_runs(study, tmp_path / "then" / "runs")  # without records of the images
    done(written(), tmp_path / "then", quiet)
    for run, then in zip(planned(tmp_path / "then"), as_then, strict=True):
        assert run.id != then.id and run.path_id == then.id
        run.folder.rename(then.folder)
        (then.folder / INPUTS).unlink()
    kept = yaml.safe_load((tmp_path / "then" / "study.yaml").read_text())
    (tmp_path / "then" / "study.yaml").write_text(yaml.safe_dump({k: v for k, v in kept.items() if k != "data"}))
    table = run_study(read_study(written(seeds=1), seeds=2), tmp_path / "then", progress=Progress())
    assert table["id"].tolist()[:3] == [run.id for run in as_then] and set(table["status"]) == {"finished"}
    assert (
        "3 of 6 runs were started by an earlier emoreg, with the paths of images in their ids" in capfd.readouterr().err
    )
    assert len(list((tmp_path / "then" / "runs").iterdir())) == 6

    # Another machine, which plans them by their contents, counts them as done.
    here = plan_runs(with_data(read_study(written(seeds=1), seeds=2), None), tmp_path / "runs")
    found = finished_elsewhere([("then", table)], here)
    assert set(found["id"]) == set(table["id"])
    renamed = with_ids_elsewhere(here, set(found["id"]))
    assert [run.id for run in renamed] == table["id"].tolist()
    assert {run.needs for run in renamed} - {None} <= {run.id for run in renamed}


def test_a_run_with_a_path_in_its_id_is_not_used_if_its_images_are_known_to_differ(
    place: Path, tmp_path: Path, quiet: Progress
) -> None:
    as_then = plan_runs(read_study(written()), tmp_path / "runs")
    done(written(), "s", quiet, tmp_path / "runs")
    for run, then in zip(open_study("s", tmp_path / "runs").planned, as_then, strict=True):
        run.folder.rename(then.folder)
    (place / "data" / "flags" / "train" / "red" / "more.png").write_bytes(b"x")
    study = with_data(read_study(written()), None)
    assert not any(run.run.is_finished for run in plan_runs(study, tmp_path / "runs"))


def test_one_set_of_images_under_two_paths_is_not_two_targets(place: Path) -> None:
    (place / "same").symlink_to("data/flags")
    targets = "targets: [{target: {root: data/flags}}, {target: {root: same}}]\n"
    path = written()
    path.write_text(path.read_text() + targets)
    message = refusal(lambda: plan_runs(with_data(read_study(path), None), Path("runs")))
    assert "the target flags and same are the same images" in message


def test_a_study_continues_in_the_precision_it_was_started_in_and_says_so(
    place: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written()
    file.write_text(file.read_text().replace(", precision: 32-true", ""))
    first = done(file, "out", quiet)
    lines: list[str] = []
    monkeypatch.setattr(quiet, "say", lines.append)
    for module in (scheduler, run_study_module):  # as if on a processor that computes in bfloat16
        monkeypatch.setattr(module, "this_machine", lambda: Machine("cpu", "bf16-mixed"))
    more = run_study(read_study(file, seeds=2), "out", progress=quiet)
    assert len(more) == 2 * len(first) and {*first["id"]} < {*more["id"]}
    assert {run.recipe.training.precision for run in planned("out")} == {"32-true"}
    assert {run.recipe.training.precision for run in planned(file)} == {"bf16-mixed"}  # its folder does not exist yet
    (line,) = (line for line in lines if "started in" in line)
    assert line.startswith(
        "out was started in 32-true, and its remaining runs are trained in it too; training.precision"
    )

    lines.clear()
    assert {*done(file, "another", quiet)["id"]}.isdisjoint(more["id"]) and "started in" not in " ".join(lines)
    assert {run.recipe.training.precision for run in planned("another")} == {"bf16-mixed"}


def test_changed_images_are_refused_with_what_the_command_can_do() -> None:
    refuse_changed([], Path("out"))
    message = "photos (folder) has changed: restore the images that the study out started with{}; reports on"
    faults = ["photos (folder) has changed"]
    assert refusal(lambda: refuse_changed(faults, Path("out"))).startswith(message.format(""))
    other = refusal(lambda: refuse_changed(faults, Path("out"), "choose another folder"))
    assert other.startswith(message.format(", or choose another folder"))
