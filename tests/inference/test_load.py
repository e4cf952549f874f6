from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import EncoderSettings, RegulationSettings, StimuliSettings
from emoreg.data.stimuli.emotion import VALENCE_AROUSAL
from emoreg.errors import UserError
from emoreg.inference.export.export import export
from emoreg.inference.load import load_run
from emoreg.inference.predict import predict
from emoreg.models.backbones import build_backbone
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.run import Run
from emoreg.runtime.progress import Progress
from emoreg.stages.classify import train
from emoreg.stages.pretrain import AffectiveModel, load_encoder, pretrain


def test_a_run_can_be_given_instead_of_its_folder(runs: Path, photos: Path, tmp_path: Path) -> None:
    run = Run(runs / "learned")
    assert load_run(run).folder == load_run(runs / "learned").folder
    assert len(list(predict(run, photos, device="cpu"))) == 5
    assert export(run, tmp_path / "exported", "hub").folder == tmp_path / "exported"


def test_a_run_is_loaded_with_the_stage_1_head_of_its_encoder(runs: Path) -> None:
    loaded = load_run(runs / "learned")
    assert loaded.classes == tuple("0123456789") and loaded.image_size == 8 and not loaded.model.training
    readout = loaded.readout
    assert readout is not None and loaded.no_readout_reason == ""
    assert readout.heads[0].space == VALENCE_AROUSAL and readout.image_size == 16
    weights, _ = Run(runs / "experience").weights()
    images = torch.rand(3, 3, 16, 16)
    expected = AffectiveModel(load_encoder(runs / "experience"), 2)
    expected.load_state_dict(weights)
    with torch.no_grad():
        torch.testing.assert_close(readout.read(images), expected.eval()(images))


def test_the_head_can_read_the_encoder_that_stage_2_trained(runs: Path) -> None:
    loaded = load_run(runs / "learned")
    assert loaded.readout is not None and loaded.model.encoder is not None
    images = torch.rand(2, 3, 8, 8)
    felt = loaded.readout.read(images, loaded.model.encoder)
    expected = loaded.readout.model.head(loaded.model.encoder(images))
    torch.testing.assert_close(felt, expected.detach())


def test_without_an_emotional_branch_there_is_no_readout_and_a_reason(runs: Path) -> None:
    loaded = load_run(runs / "plain")
    assert loaded.readout is None and loaded.no_readout_reason == "the classifier has no emotional branch"


def test_a_moved_run_finds_its_stage_1_run_at_a_given_folder_or_as_a_copy_in_itself(runs: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "learned"
    shutil.copytree(runs / "learned", moved)
    recipe = (moved / "recipe.yaml").read_text().replace(str(runs / "experience"), "gone/experience")
    (moved / "recipe.yaml").write_text(recipe)
    loaded = load_run(moved)
    assert loaded.readout is None and loaded.no_readout_reason == "its stage-1 run gone/experience was not found"
    assert load_run(moved, runs / "experience").readout is not None
    shutil.copytree(runs / "experience", moved / "experience")
    assert load_run(moved).readout is not None


@pytest.mark.parametrize(
    "written", ["gone/runs/experience", "/gone/runs/experience", "C:\\\\gone\\\\runs\\\\experience"]
)
def test_runs_that_are_moved_together_find_each_other(written: str, runs: Path, tmp_path: Path) -> None:
    for name in ("learned", "experience"):
        shutil.copytree(runs / name, tmp_path / "elsewhere" / name)
    moved = tmp_path / "elsewhere" / "learned"
    recipe = (moved / "recipe.yaml").read_text().replace(str(runs / "experience"), f'"{written}"')
    (moved / "recipe.yaml").write_text(recipe)
    loaded = load_run(moved)
    assert loaded.readout is not None and loaded.readout.folder == tmp_path / "elsewhere" / "experience"


def test_a_relative_experience_is_found_from_any_folder_above_the_run(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "project"
    shutil.copytree(runs, root / "runs")
    path = root / "runs" / "learned" / "recipe.yaml"
    path.write_text(path.read_text().replace(str(runs / "experience"), "runs/experience"))
    monkeypatch.chdir(tmp_path)
    readout = load_run(root / "runs" / "learned").readout
    assert readout is not None and readout.folder == root / "runs" / "experience"


def test_another_stage_1_run_in_the_same_place_is_not_used(runs: Path, tmp_path: Path, quiet: Progress) -> None:
    shutil.copytree(runs / "learned", tmp_path / "learned")
    recipe = Run(runs / "experience").recipe
    assert isinstance(recipe, PretrainRecipe)
    pretrain(dataclasses.replace(recipe, seed=1), tmp_path / "learned" / "experience", progress=quiet)
    assert load_run(tmp_path / "learned").readout is not None  # the right one is where the recipe says
    with pytest.raises(UserError, match="differ from those that it was trained from"):
        load_run(tmp_path / "learned", tmp_path / "learned" / "experience")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pretext": "shuffled"}, "learned shuffled"),
        ({"pretext": "rotation"}, "learned rotation"),
        ({"stimuli": StimuliSettings("digits", image_size=16, limit=40)}, "learned classes and not emotion"),
    ],
)
def test_a_control_has_no_readout(
    changes: dict[str, Any], reason: str, runs: Path, tmp_path: Path, quiet: Progress
) -> None:
    recipe = Run(runs / "experience").recipe
    assert isinstance(recipe, PretrainRecipe)
    pretrain(dataclasses.replace(recipe, **changes), tmp_path / "control", progress=quiet)
    classifier = Run(runs / "learned").recipe
    assert isinstance(classifier, TrainRecipe)
    encoder = EncoderSettings(experience=str(tmp_path / "control"))
    run = train(dataclasses.replace(classifier, encoder=encoder), tmp_path / "run", progress=quiet)
    loaded = load_run(run.folder)
    assert loaded.readout is None and reason in loaded.no_readout_reason


def test_each_of_several_stimulus_sets_has_its_own_head(runs: Path, tmp_path: Path, quiet: Progress) -> None:
    recipe = Run(runs / "experience").recipe
    assert isinstance(recipe, PretrainRecipe)
    polarity = StimuliSettings(name="procedural", count=40, image_size=16, labels="polarity")
    pretrain(dataclasses.replace(recipe, also=(polarity,)), tmp_path / "union", progress=quiet)
    classifier = Run(runs / "learned").recipe
    assert isinstance(classifier, TrainRecipe)
    frozen = dataclasses.replace(
        classifier,
        encoder=EncoderSettings(experience=str(tmp_path / "union"), frozen=True),
        regulation=RegulationSettings(mode="fixed"),
    )
    readout = load_run(train(frozen, tmp_path / "run", progress=quiet).folder).readout
    assert readout is not None
    assert [head.space.names for head in readout.heads] == [("valence", "arousal"), ("negative", "positive")]
    felt = readout.read(torch.rand(4, 3, 16, 16))
    assert felt.shape == (4, 4)
    torch.testing.assert_close(felt[:, 2:].sum(dim=1), torch.ones(4))


def test_a_stage_1_run_is_refused(runs: Path) -> None:
    with pytest.raises(UserError, match="is a run of stage 1; it holds no classifier"):
        load_run(runs / "experience")


def test_a_run_of_a_user_model_reads_emotion_with_the_stage_1_run_of_its_encoder(
    runs: Path, stage2: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    shutil.copytree(runs / "experience", tmp_path / "felt")

    def own(encoder: nn.Module) -> RegulatedClassifier:
        return RegulatedClassifier(build_backbone("resnet8"), encoder, 10)

    run = train(stage2, tmp_path / "run", own(load_encoder(tmp_path / "felt")), quiet)
    readout = load_run(run, model=own(build_backbone("resnet8"))).readout
    assert readout is not None and readout.folder == tmp_path / "felt"
    (tmp_path / "felt").rename(tmp_path / "moved")
    lost = load_run(run, model=own(build_backbone("resnet8")))
    assert lost.readout is None and lost.no_readout_reason == "its stage-1 run felt was not found"
    assert load_run(run, tmp_path / "moved", own(build_backbone("resnet8"))).readout is not None
    fresh = train(stage2, tmp_path / "fresh", own(build_backbone("resnet8")), quiet)
    reason = load_run(fresh, model=own(build_backbone("resnet8"))).no_readout_reason
    assert reason == "its emotional encoder was given in Python, and what it had learned is not recorded"
