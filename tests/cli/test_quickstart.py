from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from emoreg.cli import quickstart as module
from emoreg.cli.main import main
from emoreg.cli.quickstart import quickstart
from emoreg.config.recipe import PretrainRecipe
from emoreg.stages import pretrain
from emoreg.study.arms import EXPERIENCES, LABELS


@pytest.fixture
def _shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quickstart with one epoch on few small images."""
    one, two = module.STAGE_1, module.STAGE_2
    training = dataclasses.replace(one.training, epochs=1, batch_size=16)
    stimuli = dataclasses.replace(one.stimuli, count=40, image_size=8)
    target = dataclasses.replace(two.target, limit=48, image_size=8)
    monkeypatch.setattr(module, "STAGE_1", dataclasses.replace(one, stimuli=stimuli, training=training))
    monkeypatch.setattr(module, "STAGE_2", dataclasses.replace(two, target=target, training=training))
    monkeypatch.setattr(module, "JOBS", 1)  # starting a process takes longer than these runs
    monkeypatch.setenv("COLUMNS", "120")


@pytest.mark.thorough
@pytest.mark.usefixtures("_shrunk")
def test_all_arms_are_in_the_table_and_on_the_page_and_nothing_is_trained_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quickstart(out=tmp_path / "out", seeds=2, quiet=True)
    page = tmp_path / "out" / "report.html"
    shown = capsys.readouterr().out
    content = page.read_text(encoding="utf-8")
    for label in (LABELS["none"], *(LABELS[mode] for mode in ("ensemble", "learned")), *EXPERIENCES[1:]):
        if label != "neutral":  # procedural stimuli have no neutral label
            assert re.search(rf"^\s*{re.escape(label)}", shown, re.MULTILINE), label
            assert label in content
    assert "procedural" in content and "not rated by people" in content
    assert "neutral is left out for procedural" in shown and "neutral is left out for procedural" in content
    assert f"page: {page.resolve()}" in shown
    assert shown.index("page: ") < shown.index("\nNo verdict on the label effect")  # the verdict comes last
    assert (tmp_path / "out" / "read-out.png").read_bytes().startswith(b"\x89PNG")
    folders = [path for path in (tmp_path / "out" / "runs").iterdir() if path.is_dir()]
    assert len(folders) == 2 * (5 + 4 + 3)  # experiences, references, pretexts

    runs = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "runs").glob("*/*")}
    assert main(["quickstart", "--out", str(tmp_path / "out"), "--seeds", "2", "--quiet"]) == 0
    assert runs == {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "runs").glob("*/*")}
    captured = capsys.readouterr()
    assert captured.out == shown and captured.err == ""


@pytest.mark.thorough
@pytest.mark.usefixtures("_shrunk")
def test_what_is_finished_is_reported_and_drawn_when_runs_fail_and_the_exit_code_is_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, out = pretrain.pretrain, tmp_path / "out"
    broken: set[int] = set()

    def failing(recipe: PretrainRecipe, *given: Any, **named: Any) -> Any:
        if recipe.pretext == "affect" and recipe.seed in broken:
            raise RuntimeError("this one fails")
        return trained(recipe, *given, **named)

    monkeypatch.setattr(pretrain, "pretrain", failing)
    for seeds, is_drawn in (({0, 1}, False), ({0}, True)):
        broken = seeds
        assert main(["quickstart", "--out", str(out), "--seeds", "2", "--quiet"]) == 1
        told = capsys.readouterr()
        assert "this one fails" in told.err and "runs failed; their tracebacks" in told.err
        assert f"page: {out / 'report.html'}" in told.out
        assert ("picture: " in told.out) == is_drawn == (out / "read-out.png").exists()


def test_both_stages_see_images_of_the_same_size_and_run_alike_on_every_machine() -> None:
    one, two = module.STAGE_1, module.STAGE_2
    assert one.stimuli.image_size == two.target.image_size
    assert one.backbone == two.backbone
    for training in (one.training, two.training):
        assert (training.device, training.precision) == ("cpu", "32-true")
    assert not two.augment.flip  # a mirrored digit is another digit
