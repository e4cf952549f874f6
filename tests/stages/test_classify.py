from __future__ import annotations

import base64
import dataclasses
import json
import math
import random
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from numpy.random import mtrand
from torch import Tensor, nn

import emoreg.training.loop
from emoreg.config.augment import AugmentSettings
from emoreg.config.loss import LossSettings, LossWeights
from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.read_recipe import build, recipe_yaml
from emoreg.config.recipe import PretrainRecipe, TrainRecipe, defaults, with_stems
from emoreg.config.schema import (
    BackboneSettings,
    EncoderSettings,
    Granularity,
    Mixing,
    Pretext,
    RegulationSettings,
    Takeover,
    TargetSettings,
)
from emoreg.config.training import Device
from emoreg.data.images.augment import normalise
from emoreg.data.images.batches import Batch, evaluation_batches, training_batches
from emoreg.data.images.files import File
from emoreg.data.images.image_set import ImageSet, load_images
from emoreg.data.images.mixing import draw_mixing
from emoreg.data.images.table import Table
from emoreg.data.targets import read_target
from emoreg.data.targets.training_part import training_part
from emoreg.errors import SettingError
from emoreg.inference.load import load_run
from emoreg.inference.predict import predict
from emoreg.models.backbones import build_backbone
from emoreg.models.regulation import RegulatedClassifier, Response, regulation_loss
from emoreg.models.regulation_loss import RegulationLoss
from emoreg.models.takeover import estimate_statistics, keep_moments, match_norms, shrink_and_perturb
from emoreg.runs.run import CHECKPOINT, RECIPE, SEEN, WEIGHTS, Run, start_run
from emoreg.runtime.progress import Progress
from emoreg.runtime.seeding import drawn_from
from emoreg.stages import classify, run_metrics, target_images
from emoreg.stages.classification_loss import classification_loss
from emoreg.stages.classifier import build_classifier, load_classifier, with_encoder_architecture
from emoreg.stages.classify import train
from emoreg.stages.evaluate import evaluate
from emoreg.stages.metrics import count_flops, measure
from emoreg.stages.pretrain import load_encoder, pretrain
from emoreg.stages.target_images import parts_of
from emoreg.study.arms import REFERENCES, Reference, recipe_of
from emoreg.training.fabric import make_fabric
from emoreg.training.loop import fit
from emoreg.training.step import Objective
from listening import Listening
from narrow import present
from refusing import refusal
from stopped_runs import stopped
from tiny_backbone import TinyBackbone

ARMS_OF_PLAIN: tuple[Reference, ...] = ("backbone", "ensemble")
VIT = BackboneSettings("test_vit", patch_size=8)
RESNET = BackboneSettings("resnet8", "cifar")


EVERYTHING = AugmentSettings(
    1, alternate_flip=True, policy="trivial", jitter=0.3, erase=0.3, cutout=0.2, mixup=0.8, cutmix=1.0
)


def epochs(recipe: TrainRecipe, count: int, **changes: Any) -> TrainRecipe:
    return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, epochs=count), **changes)


@pytest.fixture
def experience(tmp_path: Path, stage1: PretrainRecipe, quiet: Progress) -> Run:
    recipe = dataclasses.replace(stage1, training=dataclasses.replace(stage1.training, epochs=1))
    return pretrain(recipe, tmp_path / "experience", progress=quiet)


@pytest.fixture
def regulated(stage2: TrainRecipe, experience: Run) -> TrainRecipe:
    return epochs(
        stage2,
        1,
        encoder=EncoderSettings(experience=str(experience.folder)),
        regulation=RegulationSettings(mode="learned"),
    )


def part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys() and left
    assert all(torch.equal(value, right[name]) for name, value in left.items())


def scored_again(run: Run) -> dict[str, Any]:
    """The metrics of `evaluate` on the run's test split."""
    return {key: value for key, value in run.final["test"].items() if key not in ("correct", "checksum")}


# What is built


def arms(stage2: TrainRecipe, regulated: TrainRecipe) -> dict[str, TrainRecipe]:
    """Arms of one study, which differ only in the emotional branch."""
    return {
        "none": epochs(stage2, 1),
        "learned": regulated,
        "random": dataclasses.replace(regulated, regulation=RegulationSettings(mode="random")),
        "random_encoder": dataclasses.replace(regulated, encoder=EncoderSettings()),
    }


def test_arms_of_a_seed_start_from_the_same_backbone_and_head(stage2: TrainRecipe, regulated: TrainRecipe) -> None:
    starts = {name: build_classifier(recipe, 10).state_dict() for name, recipe in arms(stage2, regulated).items()}
    for weights in starts.values():
        for prefix in ("backbone.", "head."):
            assert_equal(part(weights, prefix), part(starts["none"], prefix))
    assert_equal(part(starts["random_encoder"], "emotional_head."), part(starts["learned"], "emotional_head."))
    first = {name: part(weights, "encoder.")["conv1.weight"] for name, weights in starts.items() if name != "none"}
    assert not part(starts["none"], "encoder.")
    assert not torch.equal(first["random_encoder"], first["learned"])
    assert not torch.equal(first["random_encoder"], starts["none"]["backbone.conv1.weight"])  # two draws, not one twice
    other = build_classifier(dataclasses.replace(regulated, seed=1), 10).state_dict()
    assert not torch.equal(other["backbone.conv1.weight"], starts["none"]["backbone.conv1.weight"])
    assert not torch.equal(other["head.weight"], starts["none"]["head.weight"])


def test_arms_of_a_seed_see_the_same_batches(
    stage2: TrainRecipe, regulated: TrainRecipe, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for name, recipe in arms(stage2, regulated).items():
        seen[name] = []

        def batches(*arguments: Any, to: str = name, **options: Any) -> Any:
            for batch in training_batches(*arguments, **options):
                seen[to].append((batch.images.clone(), batch.labels.clone()))
                yield batch

        monkeypatch.setattr(emoreg.training.loop, "training_batches", batches)
        train(epochs(recipe, 2), tmp_path / name, progress=quiet)
    assert len(seen["none"]) == 8
    for batches_of_arm in seen.values():
        for (batch, labels), (expected, expected_labels) in zip(batches_of_arm, seen["none"], strict=True):
            assert torch.equal(batch, expected) and torch.equal(labels, expected_labels)
    assert not torch.equal(seen["none"][0][0], seen["none"][4][0])  # another epoch, another draw


def test_the_encoder_starts_as_its_experience_left_it(regulated: TrainRecipe, experience: Run) -> None:
    classifier = build_classifier(regulated, 10)
    assert_equal(part(classifier.state_dict(), "encoder."), part(experience.weights()[0], "encoder."))


# How an encoder is taken over


def with_encoder(recipe: TrainRecipe, **changes: Any) -> TrainRecipe:
    return dataclasses.replace(recipe, encoder=dataclasses.replace(recipe.encoder, **changes))


def fresh_draw(recipe: TrainRecipe) -> nn.Module:
    """θ₀, as the first edition drew it."""
    with drawn_from(recipe.seed, "encoder"):
        return build_backbone("resnet8", recipe.target.image_size)


TAKEOVERS: dict[str, dict[str, Any]] = {
    "as is": {},
    "norm-matched": {"takeover": "norm_matched"},
    "shrunk": {"takeover": "shrunk", "shrink": 0.3},
    "moments": {"moments_only": True},
    "moments, norm-matched": {"takeover": "norm_matched", "moments_only": True},
    "moments, shrunk": {"takeover": "shrunk", "shrink": 0.3, "moments_only": True},
}


@pytest.mark.parametrize("changes", TAKEOVERS.values(), ids=list(TAKEOVERS))
def test_an_encoder_is_taken_over_against_the_draw_of_its_seed(regulated: TrainRecipe, changes: dict[str, Any]) -> None:
    recipe = with_encoder(dataclasses.replace(regulated, seed=5), **changes)
    expected, fresh = load_encoder(present(recipe.encoder.experience)), fresh_draw(recipe)
    if recipe.encoder.takeover == "norm_matched":
        match_norms(expected, fresh)
    if recipe.encoder.takeover == "shrunk":
        shrink_and_perturb(expected, fresh, 0.3)
    if recipe.encoder.moments_only:
        keep_moments(expected, fresh)
    encoder = present(build_classifier(recipe, 10).encoder)
    assert_equal(encoder.state_dict(), expected.state_dict())


def test_an_encoder_that_is_shrunk_to_nothing_is_the_fresh_twins(regulated: TrainRecipe, stage2: TrainRecipe) -> None:
    fresh = dataclasses.replace(stage2, regulation=regulated.regulation)
    twin = part(build_classifier(fresh, 10).state_dict(), "encoder.")
    assert_equal(twin, fresh_draw(fresh).state_dict())
    shrunk = part(build_classifier(with_encoder(regulated, takeover="shrunk", shrink=0.0), 10).state_dict(), "encoder.")
    parameters = {name for name, _ in fresh_draw(fresh).named_parameters()}
    assert_equal(
        {n: v for n, v in shrunk.items() if n in parameters}, {n: v for n, v in twin.items() if n in parameters}
    )


def from_weights(run: Run, folder: Path) -> tuple[Run, BackboneSettings]:
    """A copy of a stage-1 run as if it had started from the weights in a file, and the settings of that backbone."""
    with drawn_from(9, "published"):
        torch.save(build_backbone("resnet8", 16).state_dict(), folder / "published.pth")
    recipe = run.recipe
    started = dataclasses.replace(recipe.backbone, weights=str(folder / "published.pth"))
    shutil.copytree(run.folder, folder / "from-weights")
    (folder / "from-weights" / RECIPE).write_bytes(recipe_yaml(dataclasses.replace(recipe, backbone=started)).encode())
    return Run(folder / "from-weights"), started


@pytest.mark.parametrize("takeover", ["shrunk", "norm_matched"])
def test_an_encoder_is_taken_over_against_the_pretrained_weights_that_stage_1_started_from(
    takeover: Takeover, regulated: TrainRecipe, experience: Run, tmp_path: Path
) -> None:
    run, started = from_weights(experience, tmp_path)
    recipe = with_encoder(regulated, experience=str(run.folder), takeover=takeover, shrink=0.3)
    fresh = build_backbone(started, 8)
    expected = load_encoder(run)
    if takeover == "shrunk":
        shrink_and_perturb(expected, fresh, 0.3)
    else:
        match_norms(expected, fresh)
    assert_equal(present(build_classifier(recipe, 10).encoder).state_dict(), expected.state_dict())
    twin = with_encoder(regulated, experience=None, backbone=started)
    assert_equal(present(build_classifier(twin, 10).encoder).state_dict(), fresh.state_dict())
    Path(present(started.weights)).unlink()
    told = refusal(lambda: build_classifier(recipe, 10))
    assert f"the pretrained weights that {run.folder} started from" in told and "set as_is" in told
    told = refusal(lambda: build_classifier(with_encoder(recipe, takeover="as_is", moments_only=True), 10))
    assert told.startswith("encoder.moments_only needs the pretrained weights") and "set as_is" not in told


def test_twins_of_a_seed_differ_only_in_the_encoder(
    stage1: PretrainRecipe, regulated: TrainRecipe, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backbone, heads, the start of λ and all batches are bit-identical, whatever the encoder has experienced."""
    one_epoch = dataclasses.replace(stage1, training=dataclasses.replace(stage1.training, epochs=1))
    base = dataclasses.replace(regulated, regulation=RegulationSettings("random_learned"))
    twins = {"fresh": dataclasses.replace(base, encoder=EncoderSettings())}
    twins |= {name: with_encoder(base, **changes) for name, changes in TAKEOVERS.items()}
    pretexts: tuple[Pretext, ...] = ("shuffled", "rotation")
    for pretext in pretexts:
        run = pretrain(dataclasses.replace(one_epoch, pretext=pretext), tmp_path / "1" / pretext, progress=quiet)
        twins[pretext] = with_encoder(base, experience=str(run.folder), takeover="shrunk")
    starts = {name: build_classifier(recipe, 10).state_dict() for name, recipe in twins.items()}
    shared = [name for name in starts["fresh"] if not name.startswith("encoder.")]
    assert {name.split(".")[0] for name in shared} == {"backbone", "head", "emotional_head", "regulation"}
    for weights in starts.values():
        assert_equal({name: weights[name] for name in shared}, {name: starts["fresh"][name] for name in shared})
    assert len({weights["encoder.conv1.weight"].numpy().tobytes() for weights in starts.values()}) == len(starts)

    seen: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for name, recipe in twins.items():
        seen[name] = []

        def batches(*arguments: Any, to: str = name, **options: Any) -> Any:
            for batch in training_batches(*arguments, **options):
                seen[to].append((batch.images.clone(), torch.get_rng_state()))
                yield batch

        monkeypatch.setattr(emoreg.training.loop, "training_batches", batches)
        train(epochs(recipe, 2), tmp_path / "2" / name, progress=quiet)
        for (batch, draws), (expected, expected_draws) in zip(seen[name], seen["fresh"], strict=True):
            assert torch.equal(batch, expected) and torch.equal(draws, expected_draws)  # of dropout and a random λ


def test_a_shrunk_encoder_gets_statistics_of_training_images_before_it_trains(
    regulated: TrainRecipe, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[dict[str, Tensor]] = []

    def keep_start(context: Any, objective: Objective, *rest: Any, **options: Any) -> Any:
        starts.append({name: value.clone() for name, value in objective.model.state_dict().items()})
        return fit(context, objective, *rest, **options)

    monkeypatch.setattr(classify, "fit", keep_start)
    recipe = with_encoder(regulated, takeover="shrunk", frozen=True)
    run = train(recipe, tmp_path / "run", progress=quiet)
    built = build_classifier(recipe, 10)
    encoder = present(built.encoder)
    train_table, _ = training_part(read_target(recipe.target), recipe.target, recipe.seed)
    images = load_images(train_table, 8, False, 1.0, quiet)
    estimate_statistics(encoder, (batch.images for batch in training_batches(images, 16, recipe.augment, 0, 0)))
    assert_equal(part(starts[0], "encoder."), encoder.state_dict())
    assert_equal(part(run.weights()[0], "encoder."), encoder.state_dict())  # frozen
    assert_equal(part(starts[0], "backbone."), built.backbone.state_dict())

    with stopped(at=0):
        train(recipe, tmp_path / "again", progress=quiet)
    monkeypatch.setattr(classify, "estimate_statistics", pytest.fail)  # the checkpoint has them
    assert_equal(train(recipe, tmp_path / "again", progress=quiet).weights()[0], run.weights()[0])


def test_the_number_of_scaled_filters_is_reported_and_kept(
    regulated: TrainRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    progress = Progress()
    monkeypatch.setattr(progress, "say", lines.append)
    found = {
        name: train(with_encoder(regulated, takeover=name), tmp_path / name, progress=progress).final["takeover"]
        for name in ("as_is", "norm_matched")
    }
    assert found["as_is"] is None
    takeover = found["norm_matched"]
    convolutions = [module for module in fresh_draw(regulated).modules() if isinstance(module, nn.Conv2d)]
    assert sum(takeover.values()) == sum(layer.out_channels for layer in convolutions) and takeover["scaled"] > 0
    (told,) = [line for line in lines if "filters" in line]
    assert f"{takeover['scaled']:,} filters of the encoder" in told


def test_a_takeover_needs_something_to_take_over(
    stage2: TrainRecipe, regulated: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    untrained = dataclasses.replace(stage2, regulation=RegulationSettings("learned"))
    transfer = RegulationSettings("transfer")
    refused = {
        "encoder.takeover": with_encoder(untrained, takeover="shrunk"),
        "encoder.moments_only": with_encoder(untrained, moments_only=True),
        "encoder.experience": dataclasses.replace(stage2, regulation=transfer),
        "encoder.frozen": with_encoder(dataclasses.replace(regulated, regulation=transfer), frozen=True),
    }
    for key, recipe in refused.items():
        with pytest.raises(SettingError) as caught:
            train(recipe, tmp_path / "run", progress=quiet)
        assert caught.value.key == key and not (tmp_path / "run").exists()


def test_norms_of_a_vit_cannot_be_matched(
    stage1: PretrainRecipe, regulated: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    one_epoch = dataclasses.replace(stage1.training, epochs=1)
    stage_1 = pretrain(dataclasses.replace(stage1, backbone=VIT, training=one_epoch), tmp_path / "vit", progress=quiet)
    target = dataclasses.replace(regulated.target, image_size=16)
    recipe = with_encoder(
        dataclasses.replace(regulated, target=target), experience=str(stage_1.folder), takeover="norm_matched"
    )
    with pytest.raises(SettingError) as caught:
        train(recipe, tmp_path / "run", progress=quiet)
    assert caught.value.key == "encoder.takeover" and "no batch norms" in str(caught.value)


def test_transfer_trains_only_the_encoder_and_is_loaded_without_its_experience(
    regulated: TrainRecipe, experience: Run, tmp_path: Path, quiet: Progress
) -> None:
    recipe = dataclasses.replace(
        with_encoder(regulated, lr_factor=0.0), regulation=RegulationSettings("transfer"), backbone=VIT
    )
    run = train(recipe, tmp_path / "run", progress=quiet)
    before, after = part(experience.weights()[0], "encoder."), run.weights()[0]
    assert {name.split(".")[0] for name in after} == {"backbone", "head"}
    parameters = {name for name, _ in load_encoder(experience.folder).named_parameters()}
    for name, value in part(after, "backbone.").items():
        assert torch.equal(value, before[name]) == (name in parameters), name  # at a rate of 0 only statistics change
    assert run.final["lambda"] is None and run.final["train"] is None
    plain = build_classifier(dataclasses.replace(recipe, backbone=RESNET, encoder=EncoderSettings()), 10).state_dict()
    assert_equal(part(build_classifier(recipe, 10).state_dict(), "head."), part(plain, "head."))
    shutil.rmtree(experience.folder)
    assert evaluate(run.folder, device="cpu", progress=quiet)["accuracy"] == run.final["test"]["accuracy"]
    matched = with_encoder(recipe, takeover="norm_matched", experience=None)
    assert "encoder.takeover" in refusal(lambda: build_classifier(matched, 10))


@pytest.mark.parametrize("takeover", ["norm_matched", "shrunk"])
def test_a_classifier_with_a_takeover_is_loaded_without_its_experience(
    takeover: Takeover, regulated: TrainRecipe, experience: Run, tmp_path: Path, quiet: Progress
) -> None:
    run = train(with_encoder(regulated, takeover=takeover, moments_only=True), tmp_path / "run", progress=quiet)
    shutil.rmtree(experience.folder)
    assert_equal(load_classifier(Run(run.folder))[0].state_dict(), run.weights()[0])


def test_the_fresh_draw_starts_its_blocks_as_the_backbone_does(regulated: TrainRecipe) -> None:
    """How γ starts is not part of the architecture that stage 1 stored."""
    recipe = dataclasses.replace(regulated, backbone=BackboneSettings("resnet8", zero_gamma=True))
    assert with_encoder_architecture(recipe).encoder.backbone == BackboneSettings("resnet8", "cifar", zero_gamma=True)
    other = dataclasses.replace(regulated, backbone=BackboneSettings("resnet14", zero_gamma=True))
    assert with_encoder_architecture(other).encoder.backbone == RESNET


# How λ starts


def test_random_learned_draws_its_start_by_the_seed(stage2: TrainRecipe) -> None:
    recipe = dataclasses.replace(stage2, regulation=RegulationSettings(mode="random_learned"))
    lams = [present(build_classifier(dataclasses.replace(recipe, seed=seed), 10).lam).item() for seed in (0, 0, 1)]
    assert lams[0] == lams[1] != lams[2]


def test_the_architecture_of_the_encoder_is_written_into_the_recipe(
    stage2: TrainRecipe, regulated: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    assert with_encoder_architecture(stage2) == with_stems(stage2)
    other_backbone = dataclasses.replace(regulated, backbone=BackboneSettings("resnet14"))
    assert with_encoder_architecture(other_backbone).encoder.backbone == RESNET  # of the experience
    untrained = dataclasses.replace(other_backbone, encoder=EncoderSettings())
    of_the_backbone = BackboneSettings("resnet14", "cifar")
    assert with_encoder_architecture(untrained).encoder.backbone == of_the_backbone
    asked = dataclasses.replace(untrained, encoder=EncoderSettings(backbone=VIT))
    assert with_encoder_architecture(asked) == with_stems(asked)
    assert train(regulated, tmp_path / "run", progress=quiet).recipe == with_encoder_architecture(regulated)


def test_the_leading_process_reports_settings_that_nothing_reads_when_a_run_is_started(
    stage2: TrainRecipe, tmp_path: Path
) -> None:
    recipe = build(stage2, {"loss": {"mutual": 1.0}})
    line = "loss.mutual is not used in regulation.mode none"
    for is_first in (True, False):
        progress = Listening()
        train(recipe, tmp_path, progress=progress)
        assert (line in progress.lines) is is_first


def test_an_encoder_of_another_architecture_than_asked_is_refused(
    regulated: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    encoder = dataclasses.replace(regulated.encoder, backbone=BackboneSettings("resnet14"))
    message = refusal(lambda: train(dataclasses.replace(regulated, encoder=encoder), tmp_path / "run", progress=quiet))
    assert "resnet8" in message and "resnet14" in message
    gone = EncoderSettings(experience=str(tmp_path / "nowhere"))
    message = refusal(lambda: train(dataclasses.replace(regulated, encoder=gone), tmp_path / "run2", progress=quiet))
    assert "no run folder" in message


# What trains


def test_a_frozen_encoder_stays_as_its_experience_left_it(
    regulated: TrainRecipe, experience: Run, tmp_path: Path, quiet: Progress
) -> None:
    recipe = epochs(regulated, 2, encoder=dataclasses.replace(regulated.encoder, frozen=True))
    weights, _ = train(recipe, tmp_path / "run", progress=quiet).weights()
    assert_equal(part(weights, "encoder."), part(experience.weights()[0], "encoder."))
    start = build_classifier(recipe, 10).state_dict()
    for name in ("backbone.conv1.weight", "emotional_head.weight", "regulation.rho"):
        assert not torch.equal(weights[name], start[name]), name


def test_an_encoder_at_a_rate_of_zero_keeps_its_parameters(
    regulated: TrainRecipe, experience: Run, tmp_path: Path, quiet: Progress
) -> None:
    recipe = dataclasses.replace(regulated, encoder=dataclasses.replace(regulated.encoder, lr_factor=0.0))
    weights, _ = train(recipe, tmp_path / "run", progress=quiet).weights()
    trained, before = part(weights, "encoder."), part(experience.weights()[0], "encoder.")
    parameters = {name for name, _ in load_encoder(experience.folder).named_parameters()}
    for name, value in trained.items():
        assert torch.equal(value, before[name]) == (name in parameters), name  # statistics do change


def test_a_fine_tuned_encoder_and_lambda_move_at_their_own_rates(
    regulated: TrainRecipe, experience: Run, tmp_path: Path, quiet: Progress
) -> None:
    before = experience.weights()[0]["encoder.conv1.weight"]
    recipe = dataclasses.replace(regulated, regulation=RegulationSettings(mode="learned", lr_factor=0.0))
    run = train(recipe, tmp_path / "run", progress=quiet)
    assert run.final["lambda"] == [0.5]
    assert not torch.equal(run.weights()[0]["encoder.conv1.weight"], before)


def test_lambda_stays_at_its_start_while_it_warms_up(
    regulated: TrainRecipe, experience: Run, tmp_path: Path, quiet: Progress
) -> None:
    """Also one λ per class; everything else is trained."""
    for granularity in get_args(Granularity):
        recipe = epochs(regulated, 4, regulation=RegulationSettings("learned", 0.5, granularity, warmup=0.5))
        run = train(recipe, tmp_path / granularity, progress=quiet)
        curve = list(run.metrics["lambda"])
        assert curve[:2] == [0.5, 0.5] and 0.5 not in curve[2:], (granularity, curve)
        assert run.metrics["train_loss"].nunique() == 4


def test_the_loss_that_is_trained_is_the_recipes(
    stage2: TrainRecipe, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = epochs(
        stage2,
        1,
        target=dataclasses.replace(stage2.target, limit=32),
        augment=AugmentSettings(crop_padding=0, flip=False),
        regulation=RegulationSettings(mode="learned", lam=0.3),
        loss=LossSettings(label_smoothing=0.1, non_emotional=0.3, emotional=0.7),
    )
    recipe = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, batch_size=32))
    seen: list[tuple[Tensor, Tensor]] = []

    def batches(*arguments: Any, **options: Any) -> Any:
        for batch in training_batches(*arguments, **options):
            seen.append((batch.images, batch.labels))
            yield batch

    monkeypatch.setattr(emoreg.training.loop, "training_batches", batches)
    run = train(recipe, tmp_path / "run", progress=quiet)
    ((batch, labels),) = seen
    response = build_classifier(recipe, 10).train().respond(batch)
    expected = regulation_loss(response, labels, LossWeights(0.5, 0.3, 0.7), label_smoothing=0.1).item()
    assert run.metrics["train_loss"][0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("edition", [1, 2])
def test_branches_are_clipped_apart_since_the_second_edition(
    edition: int, stage2: TrainRecipe, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    clipped: list[int] = []
    clip = nn.utils.clip_grad_norm_

    def count(parameters: Any, max_norm: float) -> Tensor:
        clipped.append(len(parameters))
        return clip(parameters, max_norm)

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", count)
    asked = dataclasses.replace(defaults(TrainRecipe, edition), backbone=stage2.backbone, training=stage2.training)
    asked = epochs(
        asked,
        1,
        target=dataclasses.replace(stage2.target, limit=32),
        regulation=dataclasses.replace(asked.regulation, mode="learned"),
        optimizer=dataclasses.replace(stage2.optimizer, clip_norm=1.0),
    )
    asked = dataclasses.replace(asked, training=dataclasses.replace(asked.training, batch_size=32))
    train(asked, tmp_path / "run", progress=quiet)
    branch = len(list(build_classifier(asked, 10).backbone.parameters())) + 2
    assert clipped == ([2 * branch + 1] if edition == 1 else [branch, branch, 1])


# What is measured


def test_test_images_are_scored_once_at_the_end_and_no_image_is_in_two_parts(
    image_folder: Path, tmp_path: Path, stage2: TrainRecipe, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    tables: list[Table] = []

    def load(table: Table, *rest: Any) -> ImageSet:
        tables.append(table)
        return load_images(table, *rest)

    def count(classifier: RegulatedClassifier, images: ImageSet, *rest: Any, **options: Any) -> dict[str, Any]:
        events.append(["train", "validation", "test"][[set(map(str, t.images)) for t in tables].index(files(images))])
        return measure(classifier, images, *rest, **options)

    def files(images: ImageSet) -> set[str]:
        return set(map(str, images.table.images))

    monkeypatch.setattr(target_images, "load_images", load)
    monkeypatch.setattr(run_metrics, "measure", count)
    save = Run.save_checkpoint

    def save_counted(run: Run, state: dict[str, Any]) -> None:
        events.append("epoch")
        save(run, state)

    monkeypatch.setattr(Run, "save_checkpoint", save_counted)
    target = TargetSettings(name="folder", root=str(image_folder), image_size=8, validation=0.25)
    run = train(epochs(stage2, 3, target=target), tmp_path / "run", progress=quiet)
    assert events == ["validation", "epoch"] * 3 + ["test", "validation"]  # one network: no training images
    parts = [set(map(str, table.images)) for table in tables]
    assert [len(part) for part in parts] == [18, 6, 8] and len(set.union(*parts)) == 32
    assert all("/train/" in file for file in parts[0] | parts[1]) and all("/test/" in file for file in parts[2])
    assert run.final["images"] == {"train": 18, "validation": 6, "test": 8}
    assert not any("test" in str(column) for column in run.metrics)


def test_without_validation_nothing_is_held_out(
    image_folder: Path, tmp_path: Path, stage2: TrainRecipe, quiet: Progress
) -> None:
    target = TargetSettings(name="folder", root=str(image_folder), image_size=8, validation=0.0)
    run = train(epochs(stage2, 1, target=target), tmp_path / "run", progress=quiet)
    assert run.final["validation"] is None and run.final["images"] == {"train": 24, "validation": 0, "test": 8}
    assert "val_accuracy" not in run.metrics


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_test_split_of_which_images_were_skipped_is_not_the_published_one(
    is_whole: bool, image_folder: Path, tmp_path: Path, stage2: TrainRecipe, quiet: Progress
) -> None:
    settings = TargetSettings(name="folder", root=str(image_folder), image_size=8, skip_unreadable=True)
    published = dataclasses.replace(read_target(settings), has_published_test=True)
    if not is_whole:
        (image_folder / "test" / "red" / "0000.png").write_bytes(b"damaged")
    target = TargetSettings(image_size=8, skip_unreadable=True)
    run = train(epochs(stage2, 1, target=target), tmp_path / "run", data=published, progress=quiet)
    assert run.final["images"]["test"] == (8 if is_whole else 7)
    assert run.final["target"]["is_published_test"] is is_whole


def test_which_test_images_are_right_is_kept_with_a_checksum_of_them(
    stage2: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    recipes = (epochs(stage2, 1), epochs(stage2, 2, regulation=RegulationSettings("learned"), seed=1))
    runs = [train(recipe, tmp_path / str(number), progress=quiet) for number, recipe in enumerate(recipes)]
    test = read_target(stage2.target).test
    pixels = present(load_images(test, 8, False, 1.0, quiet).pixels)
    for run in runs:
        classifier, _ = load_classifier(run)
        right = classifier(normalise(pixels)).argmax(dim=1) == torch.from_numpy(test.labels)
        packed = np.frombuffer(base64.b64decode(run.final["test"]["correct"]), np.uint8)
        assert np.unpackbits(packed, count=len(test)).tolist() == right.tolist()
        assert run.final["test"]["accuracy"] == right.double().mean().item()
    assert runs[0].final["test"]["checksum"] == runs[1].final["test"]["checksum"]
    assert "correct" not in runs[0].final["validation"]


def test_each_response_alone_is_measured_on_training_images_at_the_end(
    image_folder: Path, tmp_path: Path, stage2: TrainRecipe, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = TargetSettings(name="folder", root=str(image_folder), image_size=8, validation=0.25)
    recipe = epochs(stage2, 2, target=target, regulation=RegulationSettings("learned"))
    run = train(recipe, tmp_path / "run", progress=quiet)
    classifier, _ = load_classifier(run)
    kept, _ = training_part(read_target(target), target, recipe.seed)
    images = load_images(kept, 8, False, 1.0, quiet)
    ((batch, labels),) = evaluation_batches(images)
    names = ("accuracy", "accuracy_non_emotional", "accuracy_emotional")
    right = [(present(z).argmax(dim=1) == labels).double().mean().item() for z in classifier.respond(batch)[:3]]
    expected = dict(zip(names, right, strict=True))
    assert run.final["train"] == {**expected, "images": 18}
    monkeypatch.setattr(run_metrics, "TRAINING_IMAGES", 5)
    few = [train(recipe, tmp_path / f"few {number}", progress=quiet).final["train"] for number in range(2)]
    assert few[0] == few[1] and few[0]["images"] == 5
    plain = train(epochs(stage2, 1, target=target), tmp_path / "plain", progress=quiet)
    assert plain.final["train"] is None and not {"gradient_share", "norm_emotional"} & set(plain.metrics)


@pytest.mark.parametrize("ema", [None, 0.9])
def test_every_epochs_row_has_gradient_shares_and_norms_of_both_trunks(
    ema: float | None, stage2: TrainRecipe, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are those of the trained network in the last step, before its gradients are clipped."""
    seen: list[float] = []
    norms: list[list[float]] = []
    backward, save = Fabric.backward, Run.save_checkpoint

    def norm(values: Iterable[Tensor | None]) -> float:
        return math.sqrt(sum(present(value).double().square().sum().item() for value in values))

    def remember(fabric: Fabric, loss: Tensor, *rest: Any, **options: Any) -> None:
        backward(fabric, loss, *rest, **options)
        own, other = (norm(p.grad for p in trunk.parameters()) for trunk in (model.backbone, present(model.encoder)))
        seen.append(own / (own + other))

    def save_and_remember(run: Run, state: dict[str, Any]) -> None:
        save(run, state)
        norms.append([norm(trunk.parameters()) for trunk in (model.backbone, present(model.encoder))])

    monkeypatch.setattr(Fabric, "backward", remember)
    monkeypatch.setattr(Run, "save_checkpoint", save_and_remember)
    model = RegulatedClassifier(TinyBackbone(), TinyBackbone(9), 10)
    recipe = dataclasses.replace(stage2, optimizer=OptimizerSettings(lr=0.05, clip_norm=1e-3, ema=ema))
    lines: list[str] = []
    progress = Progress()
    monkeypatch.setattr(progress, "say", lines.append)
    rows = train(recipe, tmp_path / "run", model, progress).metrics
    assert len(seen) == 12 and rows["gradient_share"].tolist() == pytest.approx(seen[3::4], rel=1e-5)
    assert rows[["norm_non_emotional", "norm_emotional"]].to_numpy().tolist() == [
        pytest.approx(row, rel=1e-5) for row in norms
    ]
    assert any("val_accuracy" in line for line in lines)
    assert not any("norm" in line or "gradient" in line for line in lines)  # only for files and trackers


def test_without_details_nothing_is_printed_about_test_images(
    stage2: TrainRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a study, which people might be tempted to stop."""
    monkeypatch.setattr(run_metrics, "remark_on_predictions", lambda _metrics, _names, what: f"a remark on {what}")
    for details, expected in ((False, ["validation"]), (True, ["test", "validation"])):
        lines: list[str] = []
        progress = Progress(details=details)
        monkeypatch.setattr(progress, "say", lines.append)
        train(epochs(stage2, 1), tmp_path / str(details), progress=progress)
        assert [line.split()[-2] for line in lines if "a remark on" in line] == expected


def test_a_frozen_encoder_has_no_share_of_the_gradient(regulated: TrainRecipe, tmp_path: Path, quiet: Progress) -> None:
    recipe = epochs(regulated, 2, encoder=dataclasses.replace(regulated.encoder, frozen=True))
    rows = train(recipe, tmp_path / "run", progress=quiet).metrics
    assert "gradient_share" not in rows and rows["norm_emotional"].nunique() == 1
    assert rows["norm_non_emotional"].nunique() == 2


@pytest.mark.parametrize("augment", [AugmentSettings(1, flip=False), EVERYTHING])
def test_a_run_that_was_stopped_has_the_curves_and_weights_of_one_that_was_not(
    augment: AugmentSettings, stage2: TrainRecipe, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, learned = LossSettings(label_smoothing=0.1, mutual=0.5), RegulationSettings("learned")
    recipe = dataclasses.replace(stage2, regulation=learned, augment=augment, loss=loss)
    uninterrupted = train(recipe, tmp_path / "whole", progress=quiet)
    whole = uninterrupted.metrics
    with stopped(at=6):  # in the second epoch: a time for each of its four steps, and one at the end
        train(recipe, tmp_path / "run", progress=quiet)
    resumed = train(recipe, tmp_path / "run", progress=quiet)
    again = resumed.metrics
    names = ["gradient_share", "norm_non_emotional", "norm_emotional", "train_loss"]
    assert len(again) == 3 and again[names].equals(whole[names])
    assert_equal(resumed.weights()[0], uninterrupted.weights()[0])


def test_draws_of_mixed_images_leave_the_generators_of_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that resumes in the middle of an epoch restores the generators before it draws."""
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    before = torch.get_rng_state()
    assert draw_mixing(4, 8, EVERYTHING, 0, ("epoch", 1), torch.device("cpu")) is not None
    assert seeded == [] and torch.equal(torch.get_rng_state(), before)


def test_arms_of_a_seed_see_the_same_mixed_images_and_labels(
    stage2: TrainRecipe, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[Tensor]] = {}
    for mode in ("none", "random", "learned"):

        def batches(*arguments: Any, to: str = mode, **options: Any) -> Any:
            for batch in training_batches(*arguments, **options):
                seen.setdefault(to, []).extend((batch.images.clone(), batch.targets(10)))
                yield batch

        monkeypatch.setattr(emoreg.training.loop, "training_batches", batches)
        recipe = epochs(stage2, 2, augment=EVERYTHING, regulation=RegulationSettings(cast(Any, mode)))
        train(recipe, tmp_path / mode, progress=quiet)
    for mode in ("random", "learned"):
        assert all(torch.equal(one, other) for one, other in zip(seen[mode], seen["none"], strict=True))
    assert all((targets > 0).sum(dim=1).max() == 2 for targets in seen["none"][1::2])


def test_mixed_images_train_a_frozen_encoder_and_small_first_images_in_reduced_precision(
    regulated: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    encoder = dataclasses.replace(regulated.encoder, frozen=True)
    training = dataclasses.replace(regulated.training, initial_scale=0.5, precision="bf16-mixed", epochs=2)
    recipe = dataclasses.replace(regulated, encoder=encoder, training=training, augment=EVERYTHING)
    losses = train(recipe, tmp_path / "run", progress=quiet).metrics["train_loss"]
    assert np.isfinite(losses).all()


# A test split that is left unseen


def test_without_a_test_the_test_images_are_neither_decoded_nor_scored(
    image_folder: Path, tmp_path: Path, stage2: TrainRecipe, quiet: Progress
) -> None:
    for file in (image_folder / "test").rglob("*.png"):
        file.write_bytes(b"no image")
    target = TargetSettings(name="folder", root=str(image_folder), image_size=8, validation=0.25, test=False)
    regulation = RegulationSettings("learned", granularity="per_sample")
    run = train(epochs(stage2, 1, target=target, regulation=regulation), tmp_path / "run", progress=quiet)
    assert run.final["test"] is None and run.final["images"] == {"train": 18, "validation": 6, "test": 0}
    assert run.final["lambda"] == [run.final["validation"]["lambda"]]
    for own in (None, "folder", str(image_folder)):
        message = refusal(partial(evaluate, run, own, "cpu", progress=quiet))
        assert "target.test" in message and "--data" in message


def test_another_look_at_the_test_images_is_reported_but_not_one_at_other_images(
    image_folder: Path, tmp_path: Path, stage2: TrainRecipe, quiet: Progress, write_image: Callable[..., Path]
) -> None:
    target = TargetSettings(name="folder", root=str(image_folder), image_size=8)
    run = train(epochs(stage2, 1, target=target), tmp_path / "run", progress=quiet)
    write_image(tmp_path / "more" / "red" / "1.png")
    told = Listening()
    evaluate(run, str(tmp_path / "more"), "cpu", progress=told)
    assert not [line for line in told.lines if "another look" in line]
    for own in (None, str(image_folder)):
        told.lines.clear()
        evaluate(run, own, "cpu", progress=told)
        assert len([line for line in told.lines if "another look" in line]) == 1


def test_a_folder_with_added_images_is_split_as_for_training_and_the_change_is_reported(
    tmp_path: Path, stage2: TrainRecipe, quiet: Progress, write_image: Callable[..., Path]
) -> None:
    for number in range(20):
        write_image(tmp_path / "photos" / ("blue", "red")[number % 2] / f"{number}.png")
    target = TargetSettings(name="folder", root=str(tmp_path / "photos"), image_size=8)
    run = train(epochs(stage2, 1, target=target), tmp_path / "run", progress=quiet)
    for number in range(20, 30):
        write_image(tmp_path / "photos" / ("blue", "red")[number % 2] / f"{number}.png")
    for own in (None, "folder", str(tmp_path / "photos")):
        told = Listening()
        scored = evaluate(run, own, "cpu", progress=told)
        assert scored["images"] == 6 and any("20 files" in line and "30 files" in line for line in told.lines)


# A run that diverges


def test_weights_that_are_not_finite_after_the_last_step_end_the_run(
    stage2: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    """The loss of the last step is finite, as it is computed before the step."""
    optimizer = OptimizerSettings(lr=1e38, momentum=0.0, weight_decay=10.0, schedule="constant", warmup=0.0)
    target = dataclasses.replace(stage2.target, limit=16, validation=0.0)
    message = refusal(
        lambda: train(epochs(stage2, 1, target=target, optimizer=optimizer), tmp_path / "run", progress=quiet)
    )
    assert "is not finite after epoch 1" in message and "optimizer.lr" in message
    assert not (tmp_path / "run" / CHECKPOINT).exists()


def test_outputs_that_are_not_finite_end_the_run_even_if_its_weights_are_finite(
    stage2: TrainRecipe, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = RegulatedClassifier.respond

    def overflow(model: RegulatedClassifier, *arguments: Any) -> Response:
        response = real(model, *arguments)
        return response if model.training else response._replace(logits=response.logits * math.inf)

    monkeypatch.setattr(RegulatedClassifier, "respond", overflow)
    target = dataclasses.replace(stage2.target, validation=0.0)
    message = refusal(lambda: train(epochs(stage2, 1, target=target), tmp_path / "run", progress=quiet))
    assert "loss on the test images is nan" in message and Run(tmp_path / "run").has_diverged
    assert not Run(tmp_path / "run").is_finished


def test_one_lambda_a_class_has_one_column_a_class(stage2: TrainRecipe, tmp_path: Path, quiet: Progress) -> None:
    recipe = epochs(stage2, 2, regulation=RegulationSettings(mode="learned", lam=0.3, granularity="per_class"))
    run = train(recipe, tmp_path / "run", progress=quiet)
    columns = [f"lambda_{number}" for number in range(10)]
    assert [column for column in run.metrics if str(column).startswith("lambda_")] == columns
    last = run.metrics.iloc[-1]
    assert last[columns].tolist() == pytest.approx(run.final["lambda"], rel=1e-6) and len(set(last[columns])) > 1
    assert last["lambda"] == pytest.approx(last[columns].mean(), rel=1e-6)
    scalar = train(epochs(stage2, 1, regulation=RegulationSettings("fixed")), tmp_path / "scalar", progress=quiet)
    assert [column for column in scalar.metrics if str(column).startswith("lambda")] == ["lambda"]


@pytest.mark.parametrize(
    "regulation",
    [
        RegulationSettings("none"),
        RegulationSettings("fixed", lam=0.3),
        RegulationSettings("random"),
        RegulationSettings("learned"),
        RegulationSettings("random_learned"),
        RegulationSettings("learned", granularity="per_sample"),
        RegulationSettings("learned", mix="features"),
        RegulationSettings("random", mix="features"),
        RegulationSettings("learned", mix="probabilities", granularity="per_class"),
        RegulationSettings("random", mix="probabilities"),
    ],
    ids=lambda r: f"{r.mode}-{r.mix}-{r.granularity}",
)
def test_every_configuration_trains_and_is_evaluated(
    regulation: RegulationSettings, stage2: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    recipe = epochs(stage2, 1, regulation=regulation, target=dataclasses.replace(stage2.target, limit=32))
    run = train(recipe, tmp_path / "run", progress=quiet)
    again = evaluate(run.folder, device="cpu", progress=quiet)
    assert again.pop("images_per_second") > 0 and again.pop("images_trained_on") == 0
    assert again.pop("target") and again.pop("classes")
    assert again == scored_again(run)  # bit-identical: the weights were restored exactly
    assert len(run.metrics) == 1 and run.metrics.notna().all(axis=None)
    if regulation.mode == "none":
        assert run.final["lambda"] is None and "lambda" not in run.metrics and "lambda" not in again
        return
    assert again.keys() >= {"accuracy_non_emotional", "accuracy_emotional"} and 0 <= again["lambda"] <= 1
    if regulation.granularity != "per_sample":
        moved = run.final["lambda"] != present(build_classifier(recipe, 10).lam).flatten().tolist()
        assert moved == ("learned" in regulation.mode)


def test_the_lambda_of_a_gate_is_its_mean_over_images(stage2: TrainRecipe, tmp_path: Path, quiet: Progress) -> None:
    gated = RegulationSettings("learned", granularity="per_sample", lr_factor=50)
    recipe = epochs(stage2, 2, regulation=gated, target=dataclasses.replace(stage2.target, validation=0.5))
    run = train(recipe, tmp_path / "run", progress=quiet)
    classifier, _ = load_classifier(run)
    at_zero = torch.sigmoid(classifier.get_parameter("regulation.rho")).item()
    target = read_target(recipe.target)
    images = load_images(target.test, 8, False, 1.0, quiet)
    (batch, _), *_ = evaluation_batches(images, len(images))
    lam = present(classifier.respond(batch).lam)
    assert lam.std() > 0 and abs(lam.mean() - at_zero) > 0.1  # the gate differs from its value at features of zero
    assert run.final["lambda"] == [run.final["test"]["lambda"]] == pytest.approx([lam.mean().item()], rel=1e-4)
    assert run.metrics["lambda"].iloc[-1] == pytest.approx(run.final["validation"]["lambda"], rel=1e-6)
    # Without validation images there is nothing to average over after an epoch.
    alone = dataclasses.replace(recipe, target=dataclasses.replace(recipe.target, validation=0.0))
    assert "lambda" not in train(alone, tmp_path / "alone", progress=quiet).metrics


def test_an_unknown_encoder_is_named_by_its_own_setting(stage2: TrainRecipe) -> None:
    encoder = EncoderSettings(backbone=BackboneSettings("resnet81"))
    recipe = dataclasses.replace(stage2, encoder=encoder, regulation=RegulationSettings("learned"))
    with pytest.raises(SettingError, match=r"no architecture 'resnet81'") as caught:
        build_classifier(recipe, 10)
    assert caught.value.key == "encoder.backbone.name"
    with pytest.raises(SettingError) as caught:
        build_classifier(dataclasses.replace(recipe, backbone=BackboneSettings("resnet81")), 10)
    assert caught.value.key == "backbone.name"


def test_encoder_and_backbone_may_be_of_different_families(
    regulated: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    recipe = dataclasses.replace(
        regulated, backbone=VIT, target=dataclasses.replace(regulated.target, image_size=16, limit=32)
    )
    mixes: tuple[Mixing, ...] = ("logits", "features")
    for mix in mixes:
        chosen = dataclasses.replace(recipe, regulation=RegulationSettings("learned", mix=mix))
        run = train(chosen, tmp_path / mix, progress=quiet)
        names = run.weights()[0]
        assert "backbone.pos_embed" in names and "encoder.blocks.0.conv1.weight" in names
        assert evaluate(run, device="cpu", progress=quiet)["accuracy"] == run.final["test"]["accuracy"]


# The ensemble, a control


def test_the_first_member_of_an_ensemble_is_the_backbone_arm_to_the_last_bit(
    stage2: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    base = epochs(
        stage2,
        3,
        target=dataclasses.replace(stage2.target, limit=48),
        regulation=RegulationSettings("learned"),
        loss=LossSettings(label_smoothing=0.1, non_emotional=0.5),
    )
    runs = {
        name: train(recipe_of(REFERENCES[name], base, None, 2), tmp_path / name, progress=quiet)
        for name in ARMS_OF_PLAIN
    }
    plain, ensemble = (runs[name].weights()[0] for name in ARMS_OF_PLAIN)
    for prefix in ("backbone.", "head."):
        assert_equal(part(ensemble, prefix), part(plain, prefix))
    assert not torch.equal(ensemble["encoder.conv1.weight"], ensemble["backbone.conv1.weight"])
    assert not torch.equal(ensemble["emotional_head.weight"], ensemble["head.weight"])
    start = build_classifier(recipe_of(REFERENCES["ensemble"], base, None, 2), 10).state_dict()
    assert not torch.equal(ensemble["encoder.conv1.weight"], start["encoder.conv1.weight"])  # both members train
    test = {name: run.final["test"] for name, run in runs.items()}
    assert test["ensemble"]["accuracy_non_emotional"] == test["backbone"]["accuracy"]
    assert runs["ensemble"].final["lambda"] == [0.5] and set(runs["ensemble"].metrics["lambda"]) == {0.5}


def test_an_ensemble_predicts_the_mean_of_its_members_probabilities(stage2: TrainRecipe) -> None:
    model = build_classifier(recipe_of(REFERENCES["ensemble"], stage2, None, 0), 10).eval()
    answer = model.respond(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert answer.emotional is not None
    mean = (answer.non_emotional.softmax(dim=1) + answer.emotional.softmax(dim=1)) / 2
    torch.testing.assert_close(answer.logits.softmax(dim=1), mean)


# What it costs


def test_the_final_metrics_have_costs_and_classes(
    image_folder: Path, tmp_path: Path, stage2: TrainRecipe, quiet: Progress
) -> None:
    target = TargetSettings(name="folder", root=str(image_folder), image_size=8)
    run = train(epochs(stage2, 1, target=target), tmp_path / "run", progress=quiet)
    assert run.final["classes"] == ["blue", "red"] and len(run.final["test"]["per_class"]) == 2
    assert isinstance(run.recipe, TrainRecipe)
    assert run.final["flops"] == count_flops(build_classifier(run.recipe, 2), 8, make_fabric(stage2.training))


# After training


def test_a_classifier_is_loaded_without_its_experience(
    regulated: TrainRecipe, experience: Run, tmp_path: Path, quiet: Progress
) -> None:
    run = train(regulated, tmp_path / "run", progress=quiet)
    shutil.rmtree(experience.folder)
    classifier, classes = load_classifier(Run(run.folder))
    assert classes == tuple("0123456789") and not classifier.training
    assert_equal(classifier.state_dict(), run.weights()[0])
    assert evaluate(run.folder, device="cpu", progress=quiet)["loss"] == run.final["test"]["loss"]


def test_where_the_experience_came_from_is_recorded(
    regulated: TrainRecipe, experience: Run, tmp_path: Path, quiet: Progress
) -> None:
    import hashlib

    (session,) = train(regulated, tmp_path / "run", progress=quiet).environment
    digest = hashlib.sha256((experience.folder / WEIGHTS).read_bytes()).hexdigest()
    assert session["experience"] == {"folder": experience.folder.name, "sha256": digest}


def test_your_own_images_are_scored_and_a_class_that_is_not_known_is_named(
    image_folder: Path, tmp_path: Path, stage2: TrainRecipe, quiet: Progress, write_image: Callable[..., Path]
) -> None:
    target = TargetSettings(name="folder", root=str(image_folder), image_size=8)
    run = train(epochs(stage2, 1, target=target), tmp_path / "run", progress=quiet)
    write_image(tmp_path / "more" / "red" / "1.png")
    scored = evaluate(run, str(tmp_path / "more"), "cpu", progress=quiet)
    assert scored["images"] == 1 and scored["per_class"][0] is None and scored["per_class"][1] in (0, 1)
    json.loads(json.dumps(scored), parse_constant=pytest.fail)  # JSON has no NaN
    write_image(tmp_path / "more" / "blu" / "1.png")
    message = refusal(lambda: evaluate(run, str(tmp_path / "more"), "cpu", progress=quiet))
    assert "no class 'blu'" in message and "did you mean 'blue'" in message
    assert "classes" in refusal(lambda: evaluate(run, "digits", "cpu", progress=quiet))
    assert "device" in refusal(lambda: evaluate(run, device=cast(Device, "abacus"), progress=quiet))


def test_images_that_were_trained_on_are_counted_wherever_they_lie_now(
    image_folder: Path, tmp_path: Path, stage2: TrainRecipe
) -> None:
    target = TargetSettings(name="folder", root=str(image_folder), image_size=8, validation=0.0)
    run = train(epochs(stage2, 1, target=target), tmp_path / "run", progress=Progress(quiet=True))
    trained = read_target(target).train
    for image, label in zip(trained.images, trained.labels.tolist(), strict=True):
        assert isinstance(image, File)
        place = tmp_path / "copy" / ("blue", "red")[int(label)] / Path(image.name).name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image.root / image.name, place)
    told = Listening()
    scored = evaluate(run, str(tmp_path / "copy"), "cpu", progress=told)
    assert scored["images_trained_on"] == scored["images"] == len(trained)
    assert f"{len(trained)} of these {len(trained)} images are among those that run was trained on" in told.lines[-1]
    assert evaluate(run, device="cpu", progress=told)["images_trained_on"] == 0
    (run.folder / SEEN).unlink()
    assert evaluate(run, str(tmp_path / "copy"), "cpu", progress=told)["images_trained_on"] is None
    assert "not checked whether these are among them" in told.lines[-1]


def own(seed: int = 0, width: int = 7) -> RegulatedClassifier:
    """Any two modules: not built by this library, and without `num_features`."""
    torch.manual_seed(seed)
    f = nn.Sequential(nn.Flatten(), nn.Linear(192, width), nn.Tanh(), nn.Dropout(0.1))
    e = nn.Sequential(nn.AvgPool2d(2), nn.Flatten())
    return RegulatedClassifier(f, e, 10, mode="learned", feature_dims=(width, 48))


def test_the_callers_random_state_is_restored_whether_a_run_was_trained_or_finished(
    stage1: PretrainRecipe, stage2: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    def drawn_after(work: Callable[[], object]) -> tuple[float, ...]:
        torch.manual_seed(1)
        mtrand.seed(1)
        random.seed(1)
        work()
        return torch.rand(1).item(), mtrand.rand(), random.random()

    expected = drawn_after(lambda: None)
    for _ in ("trained", "finished"):
        assert drawn_after(lambda: train(epochs(stage2, 1), tmp_path / "run", progress=quiet)) == expected
        assert drawn_after(lambda: pretrain(stage1, tmp_path / "experience", progress=quiet)) == expected


def test_your_own_classifier_in_double_precision_is_refused(
    stage2: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    needed = r"model: must be in single precision, and backbone.1.weight is in double; give model.float()"
    assert needed in refusal(lambda: train(stage2, tmp_path / "run", own().double(), quiet))
    assert not (tmp_path / "run").exists()
    run = train(epochs(stage2, 1), tmp_path / "run", own(), quiet)
    loaded = load_run(run, model=own().double())
    pixels = np.zeros((8, 8, 3), np.uint8)
    assert needed in refusal(lambda: list(predict(loaded, pixels, device="cpu")))
    assert needed in refusal(lambda: evaluate(run, device="cpu", model=own().double(), progress=quiet))


class Counting(TinyBackbone):
    """Its state dict has an entry that is not a tensor."""

    def get_extra_state(self) -> dict[str, int]:
        return {"steps": 3}

    def set_extra_state(self, state: dict[str, int]) -> None: ...


def test_what_a_run_cannot_keep_is_refused_before_it_is_trained(
    stage1: PretrainRecipe, stage2: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    model = RegulatedClassifier(Counting(), TinyBackbone(), 10)
    reason = "_extra_state in its state dict, a dict, and a run keeps tensors alone"
    assert f"model: has backbone.{reason}" in refusal(lambda: train(stage2, tmp_path / "run", model, quiet))
    assert f"encoder: has {reason}" in refusal(lambda: pretrain(stage1, tmp_path / "run", None, quiet, Counting()))
    assert not (tmp_path / "run").exists()


def test_a_loss_of_the_callers_own_loop_keeps_its_budget(stage2: TrainRecipe, tmp_path: Path, quiet: Progress) -> None:
    model = own()
    RegulationLoss(model, LossWeights(1, 0, 0))
    scale = model.gradient_scale
    train(epochs(stage2, 1), tmp_path / "run", model, quiet)
    assert model.gradient_scale == scale is not None


def test_your_own_classifier_trains_and_is_evaluated(stage2: TrainRecipe, tmp_path: Path, quiet: Progress) -> None:
    model = own()
    before = model.get_parameter("backbone.1.weight").detach().clone()
    run = train(stage2, tmp_path / "run", model, quiet)
    assert not torch.equal(model.get_parameter("backbone.1.weight"), before)  # trained in place
    assert_equal(run.weights()[0], model.state_dict())
    assert run.environment[0]["model"] == "given by the caller" and run.final["lambda"] == [present(model.lam).item()]
    found = evaluate(run, device="cpu", model=own(seed=1), progress=quiet)
    assert found.pop("images_per_second") > 0 and found.pop("images_trained_on") == 0
    assert found.pop("target") == "digits, 10 classes, at most 64 training images, 8 pixels"
    assert found.pop("classes") == list("0123456789")
    assert found == scored_again(run)
    assert "in Python pass model=" in refusal(lambda: evaluate(run, device="cpu", progress=quiet))
    assert "another architecture" in refusal(lambda: evaluate(run, device="cpu", model=own(width=8), progress=quiet))
    recipe = run.recipe
    assert isinstance(recipe, TrainRecipe) and recipe.regulation == RegulationSettings("learned", 0.5)
    assert (recipe.backbone.name, recipe.encoder_backbone.name) == ("own:Sequential", "own:Sequential")
    assert "pass model=" in refusal(lambda: build_classifier(recipe, 10))
    again = train(stage2, tmp_path / "run", own(), quiet)  # with the original recipe
    assert again.final == run.final and "other settings" in refusal(lambda: train(stage2, run.folder, progress=quiet))


def test_a_run_of_your_own_model_from_before_its_mode_was_recorded_is_still_known(
    stage2: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    run = train(stage2, tmp_path / "run", own(), quiet)
    (run.folder / RECIPE).write_text(recipe_yaml(stage2))
    assert train(stage2, tmp_path / "run", own(), quiet).final == run.final
    assert "in Python pass model=" in refusal(lambda: evaluate(tmp_path / "run", device="cpu", progress=quiet))


def test_one_module_can_be_both_backbone_and_encoder(stage2: TrainRecipe, tmp_path: Path, quiet: Progress) -> None:
    shared = TinyBackbone()
    run = train(epochs(stage2, 1), tmp_path / "run", RegulatedClassifier(shared, shared, 10, mode="fixed"), quiet)
    both = TinyBackbone()
    found = evaluate(run, device="cpu", model=RegulatedClassifier(both, both, 10, mode="fixed"), progress=quiet)
    assert found["accuracy"] == run.final["test"]["accuracy"]


def test_a_classifier_for_other_classes_is_refused(stage2: TrainRecipe, tmp_path: Path, quiet: Progress) -> None:
    model = RegulatedClassifier(TinyBackbone(), TinyBackbone(), 7)
    assert "7 classes, the target 10" in refusal(lambda: train(stage2, tmp_path / "run", model, quiet))


def test_a_run_of_stage_1_has_no_classifier(experience: Run, quiet: Progress) -> None:
    assert "stage 1" in refusal(lambda: evaluate(experience, device="cpu", progress=quiet))
    assert "stage 1" in refusal(lambda: load_classifier(experience))


def test_an_unfinished_experience_is_refused_before_the_target_is_read(
    tmp_path: Path, stage1: PretrainRecipe, stage2: TrainRecipe, quiet: Progress
) -> None:
    """The target may be a long download."""
    experience = start_run(tmp_path / "experience", stage1).folder
    recipe = dataclasses.replace(
        stage2,
        target=TargetSettings("folder", str(tmp_path / "nowhere")),
        encoder=EncoderSettings(experience=str(experience)),
        regulation=RegulationSettings("learned"),
    )
    assert "is not finished" in refusal(lambda: train(recipe, tmp_path / "run", progress=quiet))


def test_wrong_labels_are_those_of_the_training_images_alone_and_the_same_in_every_arm(
    stage2: TrainRecipe, regulated: TrainRecipe
) -> None:
    settings: dict[str, Any] = {"label_noise": "symmetric", "noise_share": 0.3, "test_limit": None}
    plain, arm = (
        dataclasses.replace(recipe, target=dataclasses.replace(recipe.target, **settings))
        for recipe in (stage2, dataclasses.replace(regulated, target=stage2.target))
    )
    target = read_target(plain.target)
    (train, validation, test), (same, _, _) = (parts_of(target, recipe) for recipe in (plain, arm))
    clean, clean_validation, _ = parts_of(target, stage2)
    assert np.array_equal(train.labels, same.labels) and 0.2 < (train.labels != clean.labels).mean() < 0.4
    assert test is not None and np.array_equal(test.labels, target.test.labels)
    assert np.array_equal(present(validation).labels, present(clean_validation).labels)


def test_an_anchor_holds_the_encoder_near_its_start_but_not_the_backbone(
    tmp_path: Path, regulated: TrainRecipe, quiet: Progress
) -> None:
    def moved(rate: float) -> tuple[float, float]:
        """How far the weights of backbone and encoder move in two epochs."""
        recipe = epochs(regulated, 2, encoder=dataclasses.replace(regulated.encoder, anchor=rate))
        begun = build_classifier(recipe, 3)
        ended, _ = load_classifier(train(recipe, tmp_path / f"{rate}", progress=quiet))
        return distance(begun.backbone, ended.backbone), distance(present(begun.encoder), present(ended.encoder))

    def distance(one: nn.Module, other: nn.Module) -> float:
        pairs = zip(one.parameters(), other.parameters(), strict=True)
        return sum((a - b).square().sum().item() for a, b in pairs if a.ndim > 1) ** 0.5

    free, held = moved(0.0), moved(5.0)
    assert held[1] < 0.5 * free[1]
    assert held[0] > 0.8 * free[0]


def test_a_stopped_run_with_an_anchor_resumes_with_the_same_anchor(
    tmp_path: Path, regulated: TrainRecipe, quiet: Progress
) -> None:
    recipe = epochs(regulated, 2, encoder=dataclasses.replace(regulated.encoder, anchor=1.0))
    whole = train(recipe, tmp_path / "whole", progress=quiet)
    with stopped(at=1):  # after the first epoch
        train(recipe, tmp_path / "stopped", progress=quiet)
    assert_equal(train(recipe, tmp_path / "stopped", progress=quiet).weights()[0], whole.weights()[0])


def test_a_transferred_encoder_can_be_anchored_and_a_frozen_one_cannot(regulated: TrainRecipe) -> None:
    transfer = dataclasses.replace(
        regulated,
        encoder=dataclasses.replace(regulated.encoder, anchor=1.0),
        regulation=RegulationSettings(mode="transfer"),
    )
    network = build_classifier(transfer, 3)
    images = torch.zeros(2, 3, 8, 8)
    table = Table("noise", np.zeros((2, 8, 8, 3), np.uint8), np.arange(2))
    loss_of = classification_loss(network, load_images(table, 8, False, 1.0, Progress(quiet=True)), transfer)
    batch = Batch(images, torch.arange(2), torch.arange(2))
    network.eval()
    held = [parameter for parameter in network.backbone.parameters() if parameter.ndim >= 2]
    with torch.no_grad():
        held[0].add_(1.0)
    plain = classification_loss(network, load_images(table, 8, False, 1.0, Progress(quiet=True)), regulated)
    assert loss_of(network, batch).item() - plain(network, batch).item() == pytest.approx(held[0].numel() / 2, rel=1e-4)
    with pytest.raises(SettingError, match=r"anchor: must be 0 with encoder.frozen true, not 0.1: nothing moves"):
        EncoderSettings(anchor=0.1, frozen=True)


def test_the_anchor_of_a_user_supplied_model_does_not_move_with_it(
    tmp_path: Path, stage2: TrainRecipe, quiet: Progress
) -> None:
    """A stopped run leaves the caller's model half trained; when resumed, it keeps its original anchor."""
    recipe = epochs(stage2, 2, encoder=EncoderSettings(anchor=1.0))

    def own() -> RegulatedClassifier:
        torch.manual_seed(0)
        return RegulatedClassifier(TinyBackbone(), TinyBackbone(), 10, mode="learned")

    whole = train(recipe, tmp_path / "whole", own(), progress=quiet)
    model = own()
    with stopped(at=1):
        train(recipe, tmp_path / "stopped", model, progress=quiet)
    assert_equal(train(recipe, tmp_path / "stopped", model, progress=quiet).weights()[0], whole.weights()[0])


def test_an_anchor_of_a_frozen_user_supplied_model_is_refused_by_its_full_name(
    tmp_path: Path, stage2: TrainRecipe, quiet: Progress
) -> None:
    frozen = RegulatedClassifier(TinyBackbone(), TinyBackbone(), 10, mode="learned", freeze_encoder=True)
    recipe = epochs(stage2, 1, encoder=EncoderSettings(anchor=1.0))
    with pytest.raises(SettingError, match=r"^encoder\.anchor: must be 0"):
        train(recipe, tmp_path / "run", frozen, progress=quiet)
