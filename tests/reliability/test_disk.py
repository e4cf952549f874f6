"""A disk that is full or read-only, a folder that is deleted in mid-run: one line, and nothing finished is lost."""

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
Tell = Callable[..., str]


@pytest.fixture
def tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tell:
    """Runs a command that must end with this code, and returns its standard error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(CLASSIFIER.replace("epochs: 6", "epochs: 3"))
    (tmp_path / "study.yaml").write_text(STUDY)

    def call(*arguments: str, code: int) -> str:
        capsys.readouterr()
        assert main([*arguments, "--quiet"]) == code
        told = capsys.readouterr().err
        assert "Traceback" not in told
        return told

    return call


@pytest.fixture
def after_epoch(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], object]], None]:
    """Calls something when an epoch's line is first printed, which is after its checkpoint.

    The runs of a study are done in this process then.
    """
    monkeypatch.setattr(run_study, "LocalPool", lambda jobs, progress: InTurn(progress))

    def call(line: str, work: Callable[[], object]) -> None:
        waiting = [work]

        def detail(self: Progress, told: str) -> None:
            if waiting and told.startswith(line):
                waiting.pop()()

        monkeypatch.setattr(Progress, "detail", detail)

    return call


def parts(folder: Path) -> list[Path]:
    return list(folder.rglob(".*.part"))


# Runs

TRAIN = ("train", "recipe.yaml", "--out", "disk/run")


def test_a_run_on_a_full_disk_says_so_and_goes_on_when_there_is_room(
    tell: Tell, after_epoch: Callable[..., None], mount: Mount, fill: Fill, tmp_path: Path
) -> None:
    disk = mount(tmp_path / "disk", "size=4m")
    after_epoch("epoch 1/", lambda: fill(disk))
    told = tell(*TRAIN, code=2)
    assert told == (
        "emoreg: cannot write disk/run/metrics.csv: No space left on device; what was saved before is kept: run "
        "the same command again to resume\n"
    )
    saved = Run(disk / "run").load_checkpoint()
    assert saved is not None and len(saved["rows"]) == 1 and not parts(disk)
    assert tell(*TRAIN, code=2).count("\n") == 1  # still full
    (disk / ".filler").unlink()
    tell(*TRAIN, code=0)
    tell("train", "recipe.yaml", "--out", "whole", code=0)
    assert run_outcome(disk / "run") == run_outcome(tmp_path / "whole")


def test_a_run_cannot_begin_on_a_full_or_read_only_disk(tell: Tell, mount: Mount, fill: Fill, tmp_path: Path) -> None:
    disk = mount(tmp_path / "disk", "size=64k")
    fill(disk)
    assert "No space left on device" in tell(*TRAIN, code=2)
    mount(disk, "ro")
    assert tell("train", "recipe.yaml", "--out", "disk/other", code=2) == (
        "emoreg: cannot create the run folder disk/other: Read-only file system\n"
    )


def test_a_run_on_a_read_only_disk_does_not_go_on_and_a_finished_one_is_found(
    tell: Tell, after_epoch: Callable[..., None], mount: Mount, tmp_path: Path
) -> None:
    disk = mount(tmp_path / "disk", "size=8m")
    tell("train", "recipe.yaml", "--out", "disk/finished", code=0)

    def stop() -> None:
        raise KeyboardInterrupt

    after_epoch("epoch 1/", stop)
    tell(*TRAIN, code=130)
    mount(disk, "ro")
    assert tell(*TRAIN, code=2) == "emoreg: cannot write in disk/run: Read-only file system\n"
    tell("train", "recipe.yaml", "--out", "disk/finished", code=0)
    tell("evaluate", "disk/finished", code=0)
    mount(disk, "rw")
    tell(*TRAIN, code=0)
    assert run_outcome(disk / "run") == run_outcome(disk / "finished")


def test_a_run_whose_folder_is_deleted_in_mid_run_says_so_and_begins_anew(
    tell: Tell, after_epoch: Callable[..., None], tmp_path: Path
) -> None:
    after_epoch("epoch 1/", lambda: shutil.rmtree(tmp_path / "disk"))
    assert tell(*TRAIN, code=2) == (
        "emoreg: cannot write disk/run/metrics.csv: the run folder is gone; run the same command again to start over\n"
    )
    tell(*TRAIN, code=0)
    assert len(Run(Path("disk/run")).metrics) == 3


# Studies

GO = ("study", "study.yaml", "--out", "out")


def planned(tmp_path: Path) -> dict[str, Path]:
    """The run folders of the study, by arm."""
    from emoreg.study.plan import plan_runs
    from emoreg.study.read_study import read_study

    runs = plan_runs(read_study(tmp_path / "study.yaml"), tmp_path / "out" / "runs")
    return {run.mode or "pretraining": run.folder for run in runs}


@pytest.mark.parametrize(("fault", "reason"), [("size=64k", "No space left on device"), ("ro", "Read-only file")])
def test_a_study_goes_on_when_one_run_cannot_be_written(
    fault: str, reason: str, tell: Tell, mount: Mount, tmp_path: Path
) -> None:
    folders = planned(tmp_path)
    mount(folders["none"], fault)
    told = tell(*GO, code=1).splitlines()
    assert told[0].startswith("emoreg: failed: digits-resnet8-backbone-seed0: cannot write ") and reason in told[0]
    assert told[1].startswith("emoreg: 1 of 3 runs failed") and len(told) == 2
    table = pd.read_parquet("out/results.parquet").set_index("mode")
    assert table.status["none"] == "failed" and table.status["learned"] == "finished"
    mount(folders["none"], "rw,size=8m")
    tell(*GO, code=0)
    assert (pd.read_parquet("out/results.parquet").status == "finished").all()


def test_a_study_goes_on_when_a_runs_folder_is_deleted_in_mid_run(
    tell: Tell, after_epoch: Callable[..., None], tmp_path: Path
) -> None:
    after_epoch("epoch 1/2  train_loss", lambda: shutil.rmtree(planned(tmp_path)["none"]))
    told = tell(*GO, code=1)
    assert "the run folder is gone; run the same command again to start over" in told and "1 of 3 runs failed" in told
    tell(*GO, code=0)


def test_a_study_whose_folder_is_deleted_in_mid_run_does_its_other_runs(
    tell: Tell, after_epoch: Callable[..., None], tmp_path: Path
) -> None:
    after_epoch("epoch 1/2  train_loss", lambda: shutil.rmtree(tmp_path / "out"))
    assert "the run folder is gone" in tell(*GO, code=1)
    assert Run(planned(tmp_path)["learned"]).is_finished
    tell(*GO, code=0)


def test_a_study_that_cannot_write_its_table_keeps_its_runs(
    tell: Tell, after_epoch: Callable[..., None], mount: Mount, fill: Fill, tmp_path: Path
) -> None:
    disk = mount(tmp_path / "out", "size=256k")
    after_epoch("epoch 2/2", lambda: fill(disk))  # of the first run
    elsewhere = (*GO, "--runs", "runs")
    assert tell(*elsewhere, code=2) == (
        "emoreg: cannot write the table of results out/results.parquet: No space left on device; the runs are kept\n"
    )
    runs = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")}
    assert len(list(Path("runs").glob("*/final.json"))) == 3
    (disk / ".filler").unlink()
    tell(*elsewhere, code=0)
    assert runs == {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")}
    assert (pd.read_parquet("out/results.parquet").status == "finished").all()


def test_the_results_of_a_study_on_a_read_only_disk_can_be_read(
    mount: Mount, tell: Tell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = mount(tmp_path / "out", "size=8m")
    shutil.copy("study.yaml", disk)
    mount(disk, "ro")
    assert main(["results", "out"]) == 0
    captured = capsys.readouterr()
    assert "backbone" in captured.out and captured.err == (
        "emoreg: cannot write the table of results out/results.parquet: Read-only file system; the runs are kept\n"
    )
    assert tell(*GO, code=2) == "emoreg: cannot write in out: Read-only file system\n"


# Packs

PACK = CASES["pack"].command[:-1]  # but for --quiet


def test_a_pack_on_a_full_disk_says_so_and_goes_on_when_there_is_room(
    tell: Tell, mount: Mount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CASES["pack"].prepare(tmp_path)
    tell(*PACK, code=0)
    (tmp_path / "pack").rename(tmp_path / "whole")
    disk = mount(tmp_path / "pack", "size=96k")
    assert "but 0.0 GiB are free there" in tell(*PACK, code=2)  # before it begins
    monkeypatch.setattr(packing, "SPARE_BYTES", -(2**30))
    monkeypatch.setattr(packing, "NOTED_EVERY_BYTES", 4096)
    assert tell(*PACK, code=2) == (
        "emoreg: cannot write the pack pack: No space left on device; run the same command again to resume\n"
    )
    mount(disk, "size=4m")
    decode, decoded = packing._decode, [0]

    def counted(image: object, size: int, fit: Fit) -> object:
        decoded[0] += 1
        return decode(image, size, fit)

    monkeypatch.setattr(packing, "_decode", counted)
    tell(*PACK, code=0)
    assert 0 < decoded[0] < 240  # what was packed before is not packed again
    outcome = CASES["pack"].outcome
    assert outcome(disk) == outcome(tmp_path / "whole")


def test_a_pack_on_a_read_only_disk_or_in_a_deleted_folder_says_so(
    tell: Tell, mount: Mount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CASES["pack"].prepare(tmp_path)
    disk = mount(tmp_path / "disk", "ro")
    there = [*PACK[:-3], "--out", "disk/pack", "--skip-unreadable"]
    assert disk.is_dir() and tell(*there, code=2) == (
        "emoreg: cannot write the pack disk/pack: Read-only file system; run the same command again to resume\n"
    )

    def deleted(*_: object) -> None:
        shutil.rmtree(tmp_path / "pack")
        (tmp_path / "pack" / "names.npy").open("wb")

    monkeypatch.setattr(packing, "_finish", deleted)
    assert tell(*PACK, code=2) == (
        "emoreg: cannot write the pack pack: its folder is gone; run the same command again to start over\n"
    )
