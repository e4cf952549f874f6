from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from emoreg.cli.main import main
from emoreg.cli.stages import _with_smoke_experience
from emoreg.config.read_recipe import build, read_recipe
from emoreg.config.recipe import TrainRecipe
from emoreg.errors import UserError
from emoreg.runs.run import start_run
from emoreg.runtime.lock import hold
from emoreg.stages.classifier import with_encoder_architecture
from emoreg.stages.inputs import inputs_of
from emoreg.study import calibrate


def test_a_dry_run_counts_the_images_and_estimates_the_duration(
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
def test_a_dry_run_reports_errors_of_the_encoder_like_training_and_estimates_nevertheless(
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_dry_run_refuses_a_missing_device_like_training(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text("edition: 2\nbackbone: {name: resnet8}\ntarget: {image_size: 8, limit: 64}\n")
    command = ["train", "recipe.yaml", "--quiet", "--training.device", "cuda"]
    assert main([*command, "--dry-run"]) == main(command) == 2
    captured, told = capsys.readouterr(), "training.device is cuda, but PyTorch finds none here"
    assert captured.out.startswith(told) and told in captured.err and "64 images to train on" in captured.out


@pytest.mark.parametrize("broken", ["a/0.png", "test/b/1.png"])
def test_a_dry_run_finds_an_empty_file_like_training_and_names_the_command_that_finds_other_damage(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(calibrate, "SECONDS", 0.01)
    for path in (Path("images", part, label, f"{n}.png") for part in ("train", "test") for label in "ab" for n in "01"):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    text = "edition: 2\nbackbone: {name: resnet8}\ntarget: {name: folder, root: images, image_size: 8}\n"
    Path("recipe.yaml").write_text(text)
    command = ["train", "recipe.yaml", "--quiet"]
    assert main([*command, "--dry-run"]) == 0
    assert "emoreg data verify" in capsys.readouterr().out
    (file := Path("images", broken if broken.startswith("test") else f"train/{broken}")).write_bytes(b"")
    assert main([*command, "--dry-run"]) == main(command) == 2
    captured = capsys.readouterr()
    told = f"cannot decode {file}: it is empty (0 bytes) (skip_unreadable: true skips such images)"
    assert told in captured.out and told in captured.err
    assert main([*command, "--dry-run", "--target.skip_unreadable", "true"]) == 0
    is_read = broken.startswith("test")  # an epoch of two training images may leave the broken one out
    assert main([*command, "--dry-run", "--target.limit", "2"]) == (2 if is_read else 0)


@pytest.mark.parametrize("how_far", ["new", "begun", "finished", "diverged", "other", "no run", "in use"])
def test_a_dry_run_says_what_training_would_do_in_the_run_s_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how_far: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(calibrate, "SECONDS", 0.01)
    for path in (Path("images", label, f"{number}.png") for label in "ab" for number in range(10)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    text = "edition: 2\nbackbone: {name: resnet8}\ntarget: {name: folder, root: images, image_size: 8}\n"
    Path("recipe.yaml").write_text(f"{text}training: {{epochs: 3, trackers: []}}\n")
    command, folder = ["train", "recipe.yaml", "--out", "run", "--quiet"], Path("run")
    if how_far not in ("new", "no run"):
        recipe = with_encoder_architecture(read_recipe(TrainRecipe, Path("recipe.yaml")))
        run = start_run(folder, recipe, inputs_of(recipe))
        run.save_checkpoint({"rows": [{"epoch": 1}], "seconds": 1.0, "begun": None})
    if how_far == "finished":
        (folder / "final.json").write_text("{}")
        shutil.move("images", "elsewhere")
    if how_far == "diverged":
        run.end_diverged("the loss is not finite")
    if how_far == "other":
        command += ["--optimizer.lr", "0.05"]
    if how_far == "no run":
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    expected = {
        "new": "run: a new run\n",
        "begun": "run: resumes in epoch 2 of 3; what follows is for the whole run\n",
        "finished": "run: already finished, nothing to train\n",
        "diverged": "run: the loss is not finite\n",
        "other": "run holds a run with other settings (optimizer.lr: 0.1 -> 0.05); choose another folder",
        "no run": "run is not empty and holds no run; choose another folder\n",
        "in use": "run is being worked on by process",
    }
    before = {path: path.read_bytes() for path in folder.rglob("*")}
    with hold(folder) if how_far == "in use" else contextlib.nullcontext():
        code = main([*command, "--dry-run"])
    shown = capsys.readouterr().out
    assert shown.startswith(expected[how_far]) and ("on this machine (" in shown) == (how_far != "finished")
    assert code == (0 if how_far in ("new", "begun", "finished") else 2)
    if how_far != "in use":
        assert {path: path.read_bytes() for path in folder.rglob("*")} == before
    if code == 2 and how_far != "in use":
        assert main(command) == 2 and expected[how_far].strip() in capsys.readouterr().err


def test_a_dry_run_lists_downloads(
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
    assert "pretrained: false" in shown.out and "--smoke starts from random weights" in shown.err
    assert main(["train", "recipe.yaml", "--smoke", "--print-config", "--backbone.pretrained", "true"]) == 0
    assert "pretrained: true" in capsys.readouterr().out


def test_a_smoke_run_uses_the_smoke_run_of_its_stage_1_if_there_is_no_other(tmp_path: Path) -> None:
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
