"""Only run folders are deleted, only as a whole, and none that is in use."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import EncoderSettings, RegulationSettings
from emoreg.inference.confusion_files import write_confusion
from emoreg.runs import catalogue, delete
from emoreg.runs.delete import check_deletable, delete_run
from emoreg.runs.run import FILES, RECIPE, Run
from emoreg.runtime.lock import hold, holder
from refusing import refusal
from runs.test_catalogue import made


def test_a_run_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    made(tmp_path / "one", accuracy=0.7)
    made(tmp_path / "other")
    write_confusion(tmp_path / "one", [[1, 0], [0, 1]], ("cat", "dog"))  # as `emoreg train` does
    (tmp_path / "one" / "explain").mkdir()  # as `emoreg explain` does
    for run in check_deletable([tmp_path / "one", tmp_path / "one"]):
        delete_run(run)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / RECIPE).unlink(), "is not a run folder"),
        (lambda run: (run / RECIPE).write_text("- a list"), "is not a run folder"),
        (lambda run: (run / "thesis.tex").touch(), "holds something that no run has (thesis.tex); move it elsewhere"),
        (lambda run: run.rename(run.with_name("two")), "there is no such folder"),
        (lambda run: run.symlink_to(run.rename(run.with_name("two"))), "is a link"),
    ],
    ids=["no recipe", "another recipe", "something else", "gone", "link"],
)
def test_anything_but_a_run_folder_is_refused(tmp_path: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(made(tmp_path / "one").folder)
    assert message in refusal(lambda: check_deletable([tmp_path / "one"]))


def test_a_run_that_is_being_trained_is_refused(tmp_path: Path) -> None:
    run = made(tmp_path / "one; two")
    with hold(run.folder):
        told = refusal(lambda: check_deletable([run.folder]))
        assert told.startswith(f"{run.folder} is being worked on by process") and told.endswith("; stop it first")
        assert "is being worked on" in refusal(lambda: delete_run(run))
    assert (run.folder / RECIPE).exists()


def test_a_run_is_deleted_on_windows_which_renames_no_folder_with_an_open_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def renamed(folder: Path, target: Path) -> Path:
        if holder(folder) is not None:
            raise PermissionError(errno.EACCES, "Access is denied")
        return rename(folder, target)

    rename = Path.rename
    run = made(tmp_path / "one")
    monkeypatch.setattr(delete, "sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr(Path, "rename", renamed)
    with hold(run.folder):
        assert "is being worked on" in refusal(lambda: delete_run(run))
    delete_run(run)
    assert list(tmp_path.iterdir()) == []


def test_a_stage_1_run_is_deleted_only_together_with_the_unfinished_runs_that_need_it(tmp_path: Path) -> None:
    first = made(tmp_path / "stage1", PretrainRecipe())
    encoder = EncoderSettings(experience=str(tmp_path / "stage1"))
    second = made(tmp_path / "two", TrainRecipe(encoder=encoder, regulation=RegulationSettings(mode="learned")))
    assert f"is needed by {second.folder}, not finished" in refusal(lambda: check_deletable([first.folder]))
    assert check_deletable([first.folder, second.folder]) == [first, second]
    made(second.folder, second.recipe, accuracy=0.7)
    assert check_deletable([first.folder]) == [first]


def test_a_folder_is_searched_once_for_runs_that_need_those_to_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[Sequence[Path]] = []

    def find_runs(folders: Sequence[Path]) -> list[Run]:
        searched.append(folders)
        return catalogue.find_runs(folders)

    monkeypatch.setattr(delete, "find_runs", find_runs)
    first = [made(tmp_path / f"stage1-{seed}", PretrainRecipe()) for seed in range(3)]
    encoder = EncoderSettings(experience=str(first[2].folder))
    second = made(tmp_path / "two", TrainRecipe(encoder=encoder, regulation=RegulationSettings(mode="learned")))
    said = refusal(lambda: check_deletable([run.folder for run in first]))
    assert f"{first[2].folder} is needed by {second.folder}, not finished" in said
    assert searched == [[tmp_path]]


def test_a_diverged_run_can_be_deleted_and_needs_no_stage_1_run(tmp_path: Path) -> None:
    first = made(tmp_path / "stage1", PretrainRecipe())
    encoder = EncoderSettings(experience=str(tmp_path / "stage1"))
    second = made(tmp_path / "two", TrainRecipe(encoder=encoder, regulation=RegulationSettings(mode="learned")))
    second.end_diverged("the loss became nan")
    assert check_deletable([first.folder]) == [first]
    assert check_deletable([second.folder]) == [second]


def test_what_is_deleted_is_what_a_run_is_said_to_hold() -> None:
    rows = re.findall(r"^ *\| ([\w./, ]+) \| ", Run.__doc__ or "", re.MULTILINE)
    names = [name.rstrip("/") for row in rows[1:] for name in row.split(", ")]
    assert sorted(names) == sorted(FILES)
