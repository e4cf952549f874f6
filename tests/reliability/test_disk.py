"""Full or read-only disks and folders deleted during a run end in one line of error; nothing finished is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from emoreg.cli.main import main
from emoreg.config.schema import Fit
from emoreg.data.tools import pack as packing
from emoreg.runs.run import Run
from emoreg.runtime.progress import Progress
from emoreg.study import run_study
from emoreg.study.scheduler import InTurn
from reliability.kill import CASES, CLASSIFIER, STUDY, run_outcome

Mount = Callable[[Path, str], Path]
Fill = Callable[[Path], Path]
RunEmoreg = Callable[..., str]


@pytest.fixture
def run_emoreg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunEmoreg:
    """Run a command, require this exit code, and return its standard error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(CLASSIFIER.replace("epochs: 6", "epochs: 3"))
    (tmp_path / "study.yaml").write_text(STUDY)

    def call(*arguments: str, code: int) -> str:
        capsys.readouterr()
        assert main([*arguments, "--quiet"]) == code
        stderr = capsys.readouterr().err
        assert "Traceback" not in stderr
        return stderr

    return call


@pytest.fixture
def after_epoch(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], object]], None]:
    """Call `work` once, when a line with this start is printed after an epoch, which is after its checkpoint.

    Runs of a study then run in this process.
    """
    monkeypatch.setattr(run_study, "LocalPool", lambda jobs, progress: InTurn(progress))

    def call(start: str, work: Callable[[], object]) -> None:
        pending = [work]

        def detail(self: Progress, line: str) -> None:
            if pending and line.startswith(start):
                pending.pop()()

        monkeypatch.setattr(Progress, "detail", detail)

    return call


# Runs

TRAIN = ("train", "recipe.yaml", "--out", "disk/run")


def test_a_run_on_a_full_disk_is_an_error_and_resumes_when_there_is_space(
    run_emoreg: RunEmoreg, after_epoch: Callable[..., None], mount: Mount, fill: Fill, tmp_path: Path
) -> None:
    disk = mount(tmp_path / "disk", "size=4m")
    after_epoch("epoch 1/", lambda: fill(disk))
    assert run_emoreg(*TRAIN, code=2) == (
        "emoreg: cannot write disk/run/metrics.csv: No space left on device; what was saved before is kept: run "
        "the same command again to resume\n"
    )
    saved = Run(disk / "run").load_checkpoint()
    assert saved is not None and len(saved["rows"]) == 1 and not list(disk.rglob(".*.part"))
    assert run_emoreg(*TRAIN, code=2).count("\n") == 1  # still full
    (disk / ".filler").unlink()
    run_emoreg(*TRAIN, code=0)
    run_emoreg("train", "recipe.yaml", "--out", "whole", code=0)
    assert run_outcome(disk / "run") == run_outcome(tmp_path / "whole")


def test_a_run_cannot_start_on_a_full_or_read_only_disk(
    run_emoreg: RunEmoreg, mount: Mount, fill: Fill, tmp_path: Path
) -> None:
    disk = mount(tmp_path / "disk", "size=64k")
    fill(disk)
    assert "No space left on device" in run_emoreg(*TRAIN, code=2)
    mount(disk, "ro")
    assert run_emoreg("train", "recipe.yaml", "--out", "disk/other", code=2) == (
        "emoreg: cannot create the run folder disk/other: Read-only file system\n"
    )


def test_a_run_on_a_read_only_disk_does_not_resume_but_a_finished_one_can_be_used(
    run_emoreg: RunEmoreg, after_epoch: Callable[..., None], mount: Mount, tmp_path: Path
) -> None:
    disk = mount(tmp_path / "disk", "size=8m")
    run_emoreg("train", "recipe.yaml", "--out", "disk/finished", code=0)

    def stop() -> None:
        raise KeyboardInterrupt

    after_epoch("epoch 1/", stop)
    run_emoreg(*TRAIN, code=130)
    mount(disk, "ro")
    assert run_emoreg(*TRAIN, code=2) == "emoreg: cannot write in disk/run: Read-only file system\n"
    run_emoreg("train", "recipe.yaml", "--out", "disk/finished", code=0)
    run_emoreg("evaluate", "disk/finished", code=0)
    mount(disk, "rw")
    run_emoreg(*TRAIN, code=0)
    assert run_outcome(disk / "run") == run_outcome(disk / "finished")


def test_a_run_whose_folder_is_deleted_is_an_error_and_starts_over(
    run_emoreg: RunEmoreg, after_epoch: Callable[..., None], tmp_path: Path
) -> None:
    after_epoch("epoch 1/", lambda: shutil.rmtree(tmp_path / "disk"))
    assert run_emoreg(*TRAIN, code=2) == (
        "emoreg: cannot write disk/run/metrics.csv: the run folder is gone; run the same command again to start over\n"
    )
    run_emoreg(*TRAIN, code=0)
    assert len(Run(Path("disk/run")).metrics) == 3


# Studies

STUDY_COMMAND = ("study", "study.yaml", "--out", "out")


def planned(tmp_path: Path) -> dict[str, Path]:
    """The run folders of the study, by arm."""
    from emoreg.study.plan import plan_runs
    from emoreg.study.read_study import read_study

    runs = plan_runs(read_study(tmp_path / "study.yaml"), tmp_path / "out" / "runs")
    return {run.mode or "pretraining": run.folder for run in runs}


@pytest.mark.parametrize(("fault", "reason"), [("size=64k", "No space left on device"), ("ro", "Read-only file")])
def test_a_study_continues_if_one_run_cannot_be_written(
    fault: str, reason: str, run_emoreg: RunEmoreg, mount: Mount, tmp_path: Path
) -> None:
    folders = planned(tmp_path)
    mount(folders["none"], fault)
    first, second = run_emoreg(*STUDY_COMMAND, code=1).splitlines()
    assert first.startswith("emoreg: failed: digits-resnet8-backbone-seed0: cannot write ") and reason in first
    assert second.startswith("emoreg: 1 of 3 runs failed")
    table = pd.read_parquet("out/results.parquet").set_index("mode")
    assert table.status["none"] == "failed" and table.status["learned"] == "finished"
    mount(folders["none"], "rw,size=8m")
    run_emoreg(*STUDY_COMMAND, code=0)
    assert (pd.read_parquet("out/results.parquet").status == "finished").all()


def test_a_study_continues_if_the_folder_of_a_run_is_deleted(
    run_emoreg: RunEmoreg, after_epoch: Callable[..., None], tmp_path: Path
) -> None:
    after_epoch("epoch 1/2  train_loss", lambda: shutil.rmtree(planned(tmp_path)["none"]))
    stderr = run_emoreg(*STUDY_COMMAND, code=1)
    assert "the run folder is gone; run the same command again to start over" in stderr
    assert "1 of 3 runs failed" in stderr
    run_emoreg(*STUDY_COMMAND, code=0)


def test_a_study_whose_folder_is_deleted_finishes_its_other_runs(
    run_emoreg: RunEmoreg, after_epoch: Callable[..., None], tmp_path: Path
) -> None:
    after_epoch("epoch 1/2  train_loss", lambda: shutil.rmtree(tmp_path / "out"))
    assert "the run folder is gone" in run_emoreg(*STUDY_COMMAND, code=1)
    assert Run(planned(tmp_path)["learned"]).is_finished
    run_emoreg(*STUDY_COMMAND, code=0)


def test_a_study_that_cannot_write_its_table_keeps_its_runs(
    run_emoreg: RunEmoreg, after_epoch: Callable[..., None], mount: Mount, fill: Fill, tmp_path: Path
) -> None:
    disk = mount(tmp_path / "out", "size=256k")
    after_epoch("epoch 2/2", lambda: fill(disk))  # in the first run
    elsewhere = (*STUDY_COMMAND, "--runs", "runs")
    assert run_emoreg(*elsewhere, code=2) == (
        "emoreg: cannot write the table of results out/results.parquet: No space left on device; the runs are kept\n"
    )
    runs = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")}
    assert len(list(Path("runs").glob("*/final.json"))) == 3
    (disk / ".filler").unlink()
    run_emoreg(*elsewhere, code=0)
    assert runs == {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")}
    assert (pd.read_parquet("out/results.parquet").status == "finished").all()


def test_the_results_of_a_study_on_a_read_only_disk_can_be_read(
    mount: Mount, run_emoreg: RunEmoreg, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = mount(tmp_path / "out", "size=8m")
    shutil.copy("study.yaml", disk)
    mount(disk, "ro")
    assert main(["results", "out"]) == 0
    captured = capsys.readouterr()
    assert "backbone" in captured.out and captured.err == (
        "emoreg: cannot write the table of results out/results.parquet: Read-only file system; the runs are kept\n"
    )
    assert run_emoreg(*STUDY_COMMAND, code=2) == "emoreg: cannot write in out: Read-only file system\n"


# Packs

PACK = CASES["pack"].command[:-1]  # without --quiet


def test_a_pack_on_a_full_disk_is_an_error_and_resumes_when_there_is_space(
    run_emoreg: RunEmoreg, mount: Mount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CASES["pack"].prepare(tmp_path)
    run_emoreg(*PACK, code=0)
    (tmp_path / "pack").rename(tmp_path / "whole")
    disk = mount(tmp_path / "pack", "size=96k")
    assert "but 0.0 GiB are free there" in run_emoreg(*PACK, code=2)  # before it starts
    monkeypatch.setattr(packing, "SPARE_BYTES", -(2**30))
    monkeypatch.setattr(packing, "NOTED_EVERY_BYTES", 4096)
    assert run_emoreg(*PACK, code=2) == (
        "emoreg: cannot write the pack pack: No space left on device; run the same command again to resume\n"
    )
    mount(disk, "size=4m")
    decode, decoded = packing._decode, [0]

    def counted(image: object, size: int, fit: Fit) -> object:
        decoded[0] += 1
        return decode(image, size, fit)

    monkeypatch.setattr(packing, "_decode", counted)
    run_emoreg(*PACK, code=0)
    assert 0 < decoded[0] < 240  # images that were packed before are not decoded again
    outcome = CASES["pack"].outcome
    assert outcome(disk) == outcome(tmp_path / "whole")


def test_a_pack_on_a_read_only_disk_or_in_a_deleted_folder_is_an_error(
    run_emoreg: RunEmoreg, mount: Mount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CASES["pack"].prepare(tmp_path)
    disk = mount(tmp_path / "disk", "ro")
    on_disk = [*PACK[:-3], "--out", "disk/pack", "--skip-unreadable"]
    assert disk.is_dir() and run_emoreg(*on_disk, code=2) == (
        "emoreg: cannot write the pack disk/pack: Read-only file system; run the same command again to resume\n"
    )

    def deleted(*_: object) -> None:
        shutil.rmtree(tmp_path / "pack")
        (tmp_path / "pack" / "names.npy").open("wb")

    monkeypatch.setattr(packing, "_finish", deleted)
    assert run_emoreg(*PACK, code=2) == (
        "emoreg: cannot write the pack pack: its folder is gone; run the same command again to start over\n"
    )
