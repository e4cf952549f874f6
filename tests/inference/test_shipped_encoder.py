"""The encoder in results/encoders is a finished run of its recipe, and can be used in stage 2."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from emoreg.config.read_recipe import read_recipe
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.inference.load import load_readout
from emoreg.runs.run import WEIGHTS, Run
from emoreg.stages.classifier import build_classifier
from emoreg.stages.pretrain import load_encoder

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "results" / "encoders" / "bass-procedural-resnet20"


def test_it_was_trained_by_its_recipe_and_is_small() -> None:
    run, recipe = Run(FOLDER), read_recipe(PretrainRecipe, ROOT / "recipes" / "experience" / f"{FOLDER.name}.yaml")
    stored = run.recipe
    assert isinstance(stored, PretrainRecipe)
    for section in ("also", "backbone", "augment", "optimizer", "pretext", "seed"):
        ours, there = getattr(recipe, section), getattr(stored, section)
        if section == "backbone":
            ours = ours.for_images(32)
        assert ours == there, section
    assert dataclasses.replace(stored.stimuli, root=None) == dataclasses.replace(recipe.stimuli, root=None)
    assert stored.training.epochs == recipe.training.epochs and (FOLDER / WEIGHTS).stat().st_size < 1_200_000


def test_it_reads_emotion_and_can_be_an_experience() -> None:
    readout = load_readout(FOLDER)
    assert [head.name for head in readout.heads] == ["manifest", "procedural"]
    images = torch.randn(2, 3, 32, 32, generator=torch.manual_seed(0))
    assert torch.isfinite(readout.read(images)).all()
    values = {"backbone.name": "resnet20", "regulation.mode": "learned", "encoder.experience": str(FOLDER)}
    classifier = build_classifier(read_recipe(TrainRecipe, None, values), 10)
    loaded = load_encoder(FOLDER)
    assert classifier.encoder is not None
    for name, tensor in classifier.encoder.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


def test_its_card_names_its_sources_and_licence() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in card and "Kawai" in card and "Changed:" in card and "no proof" in card
