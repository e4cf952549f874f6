"""emoreg runs: list, compare and delete."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path

import pytest

from emoreg.cli.main import main
from emoreg.cli.runs import RUNS
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import RegulationSettings
from runs.test_catalogue import made


class Terminal(io.StringIO):
    """Input from a terminal."""

    def isatty(self) -> bool:
        """True, as of a terminal."""
        return True


@pytest.fixture(autouse=True)
def in_a_folder_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    made(Path("runs/one"), accuracy=0.75)
    learned = dataclasses.replace(TrainRecipe(), regulation=RegulationSettings(mode="learned"), seed=3)
    made(Path("runs/two"), learned, accuracy=0.8)


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(["runs", *arguments]) == code
    captured = capsys.readouterr()
    return captured.err if code == 2 else captured.out


def test_the_list_has_validation_scores_and_test_scores_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    shown = told(capsys, "list")
    assert "runs/one" in shown and "0.7500" in shown and "test_accuracy" not in shown
    assert "0.6500" in told(capsys, "list", "runs/one", "--test")


def test_the_list_is_filtered_by_settings_and_printed_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(told(capsys, "list", "--where", "`recipe.seed` > 1", "--columns", "run,mode", "--format", "json"))
    assert rows == [{"run": "runs/two", "mode": "learned"}]
    assert "did you mean 'status'?" in told(capsys, "list", "--where", "statu == 'finished'", code=2)


def test_a_damaged_run_is_listed_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs/one/recipe.yaml").write_text("target: [")
    assert main(["runs", "list"]) == 0
    captured = capsys.readouterr()
    assert "damaged" in captured.out and "emoreg: damaged: runs/one is not a run folder" in captured.err


def test_a_diverged_run_is_listed_and_compared_with_its_reason_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    made(Path("runs/three")).end_diverged("stage 2 diverged: the loss became nan")
    assert main(["runs", "list"]) == 0
    captured = capsys.readouterr()
    assert "diverged" in captured.out and captured.err == ""
    assert "stage 2 diverged: the loss became nan" in told(capsys, "list", "--columns", "run,error")
    assert "diverged" in told(capsys, "compare", "runs/one", "runs/three")


def test_compare_shows_the_settings_that_differ_and_the_scores(capsys: pytest.CaptureFixture[str]) -> None:
    shown = told(capsys, "compare", "runs/one", "runs/two")
    names = [line.split()[0] for line in shown.splitlines() if line.strip()]
    assert names[:3] == ["setting", "regulation.mode", "seed"] and "validation accuracy" in shown
    assert "is one run; give two or more" in told(capsys, "compare", "runs/one", code=2)


def test_settings_that_only_one_run_has_are_compared_too(capsys: pytest.CaptureFixture[str]) -> None:
    made(Path("runs/first"), PretrainRecipe())
    lines = [line.split() for line in told(capsys, "compare", "runs/one", "runs/first").splitlines()]
    assert ["also", "–", "[]"] in lines
    (count,) = (line for line in lines if line[:1] == ["stimuli.count"])
    assert count[1:] == ["–", str(PretrainRecipe().stimuli.count)]
    assert ["validation", "accuracy", "0.7500", "–"] in lines


def test_nothing_is_deleted_without_confirmation(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert "give --yes to delete" in told(capsys, "delete", "runs/one", code=2)
    monkeypatch.setattr("sys.stdin", Terminal("\n"))
    assert "nothing is deleted" in told(capsys, "delete", "runs/one", code=1)
    assert Path("runs/one").exists()
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert "deleted: runs/one" in told(capsys, "delete", "runs/one")
    assert "deleted: runs/two" in told(capsys, "delete", "runs/two", "--yes")
    assert not list(Path("runs").iterdir())


def test_nothing_is_deleted_if_one_folder_is_not_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert "runs is not a run folder" in told(capsys, "delete", "runs/one", "runs", "--yes", code=2)
    assert Path("runs/one").exists()


@pytest.mark.parametrize("command", RUNS.commands)
def test_backticks_in_an_example_are_quoted_for_the_shell(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["runs", command, "--help"])
    examples = capsys.readouterr().out.partition("examples:\n")[2]
    assert "emoreg" in examples and "`" not in re.sub("'[^']*'", "", re.sub('"[^"`]*"', "", examples))
