from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from emoreg.config.schema import TargetSettings
from emoreg.data.images.augment import normalise
from emoreg.errors import SettingError, UserError
from emoreg.models.regulation import RegulatedClassifier
from emoreg.suites.options import OtherSet, TransferOptions
from emoreg.suites.subject import Subject
from emoreg.suites.transfer import features_of, linear_accuracy, score
from tiny_backbone import TinyBackbone


def test_a_linear_classifier_finds_what_is_linear_whatever_the_scale() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(300, 5)) * [1e-3, 1, 1e3, 1, 1]
    y = (x[:, 0] * 1e3 + x[:, 1] > 0).astype(np.int64)
    assert linear_accuracy(x[:200], x[200:], y[:200], y[200:]) > 0.95
    noise = draw.integers(0, 2, 300)
    assert linear_accuracy(x[:200], x[200:], noise[:200], noise[200:]) < 0.65


def test_linear_classifiers_learn_only_from_training_images() -> None:
    x = np.random.default_rng(0).normal(size=(300, 4))
    y = (x[:, 0] > 0).astype(np.int64)
    assert linear_accuracy(x[:200], x[200:], y[:200], 1 - y[200:]) < 0.05


def test_features_are_those_of_both_branches_side_by_side(subject: Subject) -> None:
    found = features_of(subject, subject.scored)
    model, pixels = subject.classifier, subject.scored.pixels
    assert pixels is not None and model.encoder is not None
    with torch.no_grad():
        f, e = (network(normalise(pixels)) for network in (model.backbone, model.encoder))
    np.testing.assert_allclose(found, torch.cat([f, e], dim=1), atol=1e-5)
    plain = RegulatedClassifier(model.backbone, None, 2, mode="none").eval()
    np.testing.assert_allclose(
        features_of(dataclasses.replace(subject, classifier=plain), subject.scored), f, atol=1e-5
    )


def test_other_targets_are_learned_from_their_training_images(subject: Subject, image_folder: Path) -> None:
    before = {name: value.clone() for name, value in subject.classifier.state_dict().items()}
    sets = (OtherSet("folder", str(image_folder)), OtherSet("digits", classes=("0", "1")))
    scored = score(subject, TransferOptions(sets=sets, images=40))
    assert scored.images == "test images, 8 of flags after 24 and 40 of digits after 40 training images"
    assert set(scored.checksums) == {"test images", "flags", "digits"}
    for name in ("backbone_accuracy", "accuracy"):
        own = [scored.figures[f"{label}_{name}"] for label in ("flags", "digits")]
        assert scored.figures[name] == pytest.approx(sum(own) / 2) and min(own) >= 0
    assert scored.figures["flags_accuracy"] == 1.0  # two colours
    assert all(torch.equal(value, before[name]) for name, value in subject.classifier.state_dict().items())


def test_a_better_encoder_shows_only_in_the_features_of_both_branches(subject: Subject, image_folder: Path) -> None:
    class Blind(nn.Module):
        num_features = 3

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(images), 3)

    model = RegulatedClassifier(Blind(), TinyBackbone(), 2, mode="learned").eval()
    options = TransferOptions(sets=(OtherSet("folder", str(image_folder)),))
    found = score(dataclasses.replace(subject, classifier=model), options).figures
    assert found["flags_backbone_accuracy"] == 0.5 and found["flags_accuracy"] == 1.0


def test_the_runs_own_images_are_refused_as_another_target(subject: Subject) -> None:
    from emoreg.data.targets import read_target
    from emoreg.stages.target_images import load_target

    digits = OtherSet("digits")
    settings = digits.target(32, "crop")
    own = load_target(read_target(settings).test, settings, subject.recipe.training, subject.fabric, subject.progress)
    with pytest.raises(UserError, match="digits has the images of the run itself"):
        score(dataclasses.replace(subject, scored=own), TransferOptions(sets=(digits,), images=100))


def test_classes_that_a_run_has_not_seen_are_accepted_as_another_target(subject: Subject) -> None:
    recipe = dataclasses.replace(subject.recipe, target=TargetSettings("digits", classes=("0", "1")))
    own = dataclasses.replace(subject, recipe=recipe)
    found = score(own, TransferOptions(sets=(OtherSet("digits", classes=("2", "3")),), images=40))
    assert 0 <= found.figures["accuracy"] <= 1
    with pytest.raises(SettingError, match=r"sets\[0\]: is the run's own target"):
        score(own, TransferOptions(sets=(OtherSet("digits", classes=("1", "3")),), images=40))
