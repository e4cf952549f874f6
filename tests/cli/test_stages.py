from __future__ import annotations

import re
from pathlib import Path

import pytest

from emoreg.cli.main import main
from emoreg.cli.stages import _with_smoke_experience
from emoreg.config.read_recipe import build
from emoreg.config.recipe import TrainRecipe
from emoreg.errors import UserError
from emoreg.study import calibrate


def test_one_run_is_estimated_with_its_images_looked_at_first(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(calibrate, "SECONDS", 0.01)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("edition: 2\nbackbone: {name: resnet8}\ntarget: {image_size: 8, limit: 64}\n")
    assert main(["train", "recipe.yaml", "--dry-run", "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "64 images to train on, 7 for validation, 449 to test; 100 epochs of 1 steps of 64 images" in shown
    assert re.search(r"\n(a few seconds|about .+) on this machine \(", shown)
    recipe.write_text("edition: 2\nstimuli: {name: manifest, root: nowhere}\n")
    assert main(["pretrain", "recipe.yaml", "--dry-run", "--quiet"]) == main(["pretrain", "recipe.yaml"]) == 2
    shown = capsys.readouterr().out
    assert "[1] stimuli (1 run): nothing at nowhere" in shown and "no estimate, as the number of its images" in shown
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("encoder", "told"),
    [
        ("experience: nowhere", "encoder.experience: no run folder nowhere; make it with 'emoreg pretrain RECIPE'"),
        (
            "experience: nowhere, backbone: {name: resnet8, stem: cifar}",
            "encoder.experience: no run folder nowhere; make",
        ),
        ("takeover: shrunk", "encoder.takeover: must be as_is without encoder.experience"),
    ],
)
def test_a_dry_run_says_what_training_would_say_of_the_encoder_and_estimates_all_the_same(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(calibrate, "SECONDS", 0.01)
    settings = f"backbone: {{name: resnet8}}\ntarget: {{image_size: 8, limit: 64}}\nencoder: {{{encoder}}}\n"
    Path("recipe.yaml").write_text(f"edition: 2\n{settings}regulation: {{mode: learned}}\n")
    assert main(["train", "recipe.yaml", "--dry-run", "--quiet"]) == 2
    shown = capsys.readouterr().out
    assert told in shown and "on this machine (" in shown
    assert main(["train", "recipe.yaml", "--quiet"]) == 2
    assert told in capsys.readouterr().err


def test_what_will_be_downloaded_is_told_before_any_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(calibrate, "SECONDS", 0.01)
    Path("recipe.yaml").write_text("edition: 2\nbackbone: {name: resnet8}\ntarget: {name: cifar10}\n")
    assert main(["train", "recipe.yaml", "--dry-run", "--quiet"]) == 0
    assert "cifar10 is not in data: the first run downloads it there (170 MB)\n" in capsys.readouterr().out


def test_a_smoke_run_downloads_no_weights(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text("edition: 2\nbackbone: {name: resnet18, pretrained: true}\n")
    assert main(["train", "recipe.yaml", "--smoke", "--print-config"]) == 0
    shown = capsys.readouterr()
    assert "pretrained: false" in shown.out and "--smoke starts from drawn weights" in shown.err
    assert main(["train", "recipe.yaml", "--smoke", "--print-config", "--backbone.pretrained", "true"]) == 0
    assert "pretrained: true" in capsys.readouterr().out


def test_a_smoke_run_takes_the_smoke_run_of_its_stage_1_where_there_is_no_other(tmp_path: Path) -> None:
    named, smoke = tmp_path / "oasis-resnet20-seed3", tmp_path / "oasis-resnet20-smoke-seed3"
    changes = {"regulation": {"mode": "learned"}, "encoder": {"experience": str(named)}}
    recipe: TrainRecipe = build(TrainRecipe(), changes)
    with pytest.raises(UserError, match=r"and no smoke run .*oasis-resnet20-smoke-seed3; make one with"):
        _with_smoke_experience(recipe)
    smoke.mkdir()
    assert _with_smoke_experience(recipe).encoder.experience == str(smoke)
    named.mkdir()
    assert _with_smoke_experience(recipe) is recipe
    assert _with_smoke_experience(TrainRecipe()) == TrainRecipe()
