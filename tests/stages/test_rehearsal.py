from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import EncoderSettings, RegulationSettings
from emoreg.config.training import TrainingSettings
from emoreg.data.images.augment import normalise
from emoreg.data.images.batches import Batch, SetQuota, epoch_quotas
from emoreg.data.images.image_set import ImageSet, load_images
from emoreg.data.images.table import Table
from emoreg.data.stimuli.emotion import EmotionSpace
from emoreg.errors import SettingError, UserError
from emoreg.models.features import num_features
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.run import WEIGHTS, Run
from emoreg.runtime.progress import Progress
from emoreg.stages.class_stimuli import read_stimuli
from emoreg.stages.classifier import load_classifier
from emoreg.stages.classify import train
from emoreg.stages.pretrain import load_encoder, pretrain
from emoreg.stages.rehearsal import Rehearsal, read_rehearsal
from emoreg.stages.stage1_data import read_stage1_data
from emoreg.training.fabric import make_fabric
from narrow import present
from stopped_runs import stopped
from tiny_backbone import TinyBackbone
from trained_runs import EXPERIENCE

CPU = TrainingSettings(device="cpu", precision="32-true")


@pytest.fixture(scope="module")
def experience(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return pretrain(EXPERIENCE, tmp_path_factory.mktemp("stage1") / "affect", progress=Progress(quiet=True))


@pytest.fixture
def rehearsing(stage2: TrainRecipe, experience: Run) -> TrainRecipe:
    encoder = EncoderSettings(experience=str(experience.folder), rehearsal=0.5)
    return dataclasses.replace(stage2, encoder=encoder, regulation=RegulationSettings(mode="learned"))


def stimuli(count: int = 6) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    table = Table("noise", pixels, np.linspace(-1, 1, count, dtype=np.float32)[:, None])
    return load_images(table, 8, False, 1.0, Progress(quiet=True))


def squared(read_out: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
    return (read_out(batch.images) - batch.labels).square().mean()


def rehearsal_of(
    images: ImageSet, outputs: int = 1, quotas: tuple[SetQuota, ...] = (), seed: int = 3, **other: Any
) -> Rehearsal:
    settings: dict[str, Any] = {"mirrors": False, "turns": False} | other
    quotas = quotas or epoch_quotas([len(images)], None)
    return Rehearsal(2.0, nn.Linear(6, outputs), images, quotas, squared, seed=seed, **settings)


def shown(rehearsal: Rehearsal, encoder: nn.Module, counts: list[int]) -> list[Batch]:
    """The next batches of this many stimuli."""
    seen: list[Batch] = []

    def note(_: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
        seen.append(batch)
        return torch.zeros(())

    rehearsal.loss_of = note
    for count in counts:
        rehearsal(encoder, count)
    return seen


def test_it_is_the_weighted_loss_of_the_read_out_and_trains_the_encoder_alone() -> None:
    images, encoder = stimuli(), TinyBackbone().train()
    encoder.dropout.p = 0.0
    rehearsal = rehearsal_of(images)
    batch = shown(copy.deepcopy(rehearsal), encoder, [4])[0]
    before = copy.deepcopy(encoder.state_dict())
    loss = rehearsal(encoder, 4)
    loss.backward()
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert present(encoder.conv.weight.grad).abs().sum() > 0 and rehearsal.head.weight.grad is None
    # Normalised by the statistics of the stimuli themselves, as in stage 1.
    assert_close(loss, 2 * (rehearsal.head(encoder(batch.images)) - batch.labels).square().mean())


def test_every_stimulus_comes_once_a_pass_in_an_order_that_what_is_learned_does_not_change() -> None:
    images = stimuli()
    rows = [batch.rows for batch in shown(rehearsal_of(images), TinyBackbone(), [4, 2, 3, 3])]
    assert sorted(torch.cat(rows[:2]).tolist()) == list(range(6))
    assert torch.equal(torch.cat(rows[:2]), torch.cat(rows[2:]))
    torch.manual_seed(5)
    again = [batch.rows for batch in shown(rehearsal_of(images, outputs=2), TinyBackbone(), [4, 2, 3, 3])]
    assert all(map(torch.equal, rows, again))
    assert not torch.equal(rows[0], shown(rehearsal_of(images, seed=4), TinyBackbone(), [4])[0].rows)


def test_each_set_has_its_share() -> None:
    quotas = epoch_quotas([2, 4], [1.0, 1.0])
    rows = shown(rehearsal_of(stimuli(), quotas=quotas), TinyBackbone(), [6])[0].rows
    assert int((rows < 2).sum()) == 3


def test_a_stimulus_is_mirrored_in_every_other_pass_where_stage_1_mirrors() -> None:
    images = stimuli(5)
    first, second = shown(rehearsal_of(images, mirrors=True), TinyBackbone(), [5, 5])
    assert_close(first.images, second.images.flip(3))
    plain = shown(rehearsal_of(images), TinyBackbone(), [5])[0]
    assert_close(plain.images, normalise(present(images.pixels)[plain.rows]))
    is_mirrored = [not torch.equal(a, b) for a, b in zip(first.images, plain.images, strict=True)]
    assert is_mirrored == [False, True, False, True, False]


def test_a_stimulus_is_shown_in_every_turn_and_in_each_of_them_mirrored_too() -> None:
    images = stimuli(5)
    batches = shown(rehearsal_of(images, mirrors=True, turns=True), TinyBackbone(), [5] * 8)
    assert sorted(int(batch.labels[0]) for batch in batches) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len({tuple(batch.images[0].flatten().tolist()) for batch in batches}) == 8
    first = batches[0]
    assert first.labels.tolist() == [0, 1, 2, 3, 0]
    own = normalise(present(images.pixels)[first.rows[:2]])
    assert_close(first.images[:2], torch.stack([own[0], own[1].flip(2).rot90(1, (1, 2))]))


def test_no_draw_is_taken_from_what_a_random_regulation_draws_from() -> None:
    """Otherwise a twin that turns its stimuli would draw another λ than the others."""
    draws = []
    for turns in (True, False):
        rehearsal, encoder = rehearsal_of(stimuli(), mirrors=True, turns=turns), TinyBackbone().eval()
        torch.manual_seed(1)
        shown(rehearsal, encoder, [4])
        draws.append(torch.rand(1))
    torch.manual_seed(1)
    assert draws[0] == draws[1] == torch.rand(1)


@pytest.mark.parametrize("size", [4, 5])
def test_processes_share_the_stimuli_of_a_step_however_it_divides(size: int) -> None:
    images, middle = stimuli(8), size // 2
    alone = torch.cat([batch.rows for batch in shown(rehearsal_of(images), TinyBackbone(), [size, size])])
    own = [rehearsal_of(images, part=(0, middle, size)), rehearsal_of(images, part=(middle, size, size))]
    first = shown(own[0], TinyBackbone(), [middle, middle])
    second = shown(own[1], TinyBackbone(), [1, size - middle - 1] * 2)  # accumulates two parts
    steps = [first[0], *second[:2], first[1], *second[2:]]
    assert torch.equal(torch.cat([batch.rows for batch in steps]), alone)
    assert [int(each.seen) for each in own] == [2 * size, 2 * size]  # a checkpoint has the first one's


def test_trying_a_part_of_one_image_does_not_advance_the_stimuli(
    tmp_path: Path, rehearsing: TrainRecipe, quiet: Progress
) -> None:
    training = dataclasses.replace(rehearsing.training, batch_size=2, accumulate=2, epochs=2)
    target = dataclasses.replace(rehearsing.target, limit=12)
    recipe = dataclasses.replace(rehearsing, training=training, target=target)
    whole = train(recipe, tmp_path / "whole", progress=quiet).weights()[0]
    with stopped(at=1):
        train(recipe, tmp_path / "stopped", progress=quiet)
    again = train(recipe, tmp_path / "stopped", progress=quiet).weights()[0]
    assert all(torch.equal(again[name], value) for name, value in whole.items())


def test_an_encoder_that_rehearses_forgets_less(tmp_path: Path, rehearsing: TrainRecipe, quiet: Progress) -> None:
    def loss_of_stimuli(weight: float) -> float:
        encoder = dataclasses.replace(rehearsing.encoder, rehearsal=weight)
        recipe = dataclasses.replace(
            rehearsing, encoder=encoder, training=dataclasses.replace(rehearsing.training, epochs=3)
        )
        classifier, _ = load_classifier(train(recipe, tmp_path / f"{weight}", progress=quiet))
        torch.manual_seed(0)
        measured = present(read_rehearsal(rehearsing, make_fabric(CPU), quiet))
        return float(measured(present(classifier.encoder).train(), 36).detach())

    assert loss_of_stimuli(5.0) < 0.8 * loss_of_stimuli(0.0)


def test_a_stopped_run_resumes_with_the_next_stimuli(tmp_path: Path, rehearsing: TrainRecipe, quiet: Progress) -> None:
    recipe = dataclasses.replace(rehearsing, training=dataclasses.replace(rehearsing.training, epochs=2))
    whole = train(recipe, tmp_path / "whole", progress=quiet).weights()[0]
    with stopped(at=1):
        train(recipe, tmp_path / "stopped", progress=quiet)
    again = train(recipe, tmp_path / "stopped", progress=quiet).weights()[0]
    assert all(torch.equal(again[name], value) for name, value in whole.items())


@pytest.mark.parametrize("pretext", ["affect", "shuffled", "rotation"])
def test_each_twin_rehearses_what_it_has_learned(
    pretext: Any, tmp_path: Path, stage1: PretrainRecipe, rehearsing: TrainRecipe, quiet: Progress
) -> None:
    recipe = dataclasses.replace(stage1, pretext=pretext)
    run = pretrain(recipe, tmp_path / "twin", progress=quiet)
    encoder = dataclasses.replace(rehearsing.encoder, experience=str(run.folder))
    fabric = make_fabric(CPU)
    rehearsal = present(read_rehearsal(dataclasses.replace(rehearsing, encoder=encoder), fabric, quiet))
    data = read_stage1_data(recipe, fabric, quiet)
    assert torch.equal(rehearsal.stimuli.labels, data.images.labels)
    assert rehearsal.head.out_features == data.task.outputs
    assert torch.equal(rehearsal.head.weight, run.weights()[0]["head.weight"])
    network, losses = load_encoder(run), []
    for _ in range(2):
        rehearsal.seen.zero_()
        losses.append(rehearsal(network, 8).item())
    assert losses[0] == losses[1] > 0  # turns are not random


def test_a_process_rehearses_its_share(rehearsing: TrainRecipe, quiet: Progress) -> None:
    second = SimpleNamespace(device=torch.device("cpu"), global_rank=1, world_size=2)
    assert present(read_rehearsal(rehearsing, cast(Fabric, second), quiet, batch_size=5)).part == (2, 5, 5)


@pytest.mark.parametrize("flip", [True, False])
def test_stimuli_are_mirrored_if_stage_1_mirrored_them(
    flip: bool, tmp_path: Path, stage1: PretrainRecipe, rehearsing: TrainRecipe, quiet: Progress
) -> None:
    run = pretrain(
        dataclasses.replace(stage1, augment=dataclasses.replace(stage1.augment, flip=flip)),
        tmp_path / "run",
        None,
        quiet,
    )
    encoder = dataclasses.replace(rehearsing.encoder, experience=str(run.folder))
    recipe = dataclasses.replace(rehearsing, encoder=encoder)
    assert present(read_rehearsal(recipe, make_fabric(CPU), quiet)).mirrors is flip


def test_the_encoder_of_mode_transfer_can_rehearse(tmp_path: Path, rehearsing: TrainRecipe, quiet: Progress) -> None:
    recipe = dataclasses.replace(rehearsing, regulation=RegulationSettings(mode="transfer"))
    plain = dataclasses.replace(recipe, encoder=dataclasses.replace(recipe.encoder, rehearsal=0.0))
    ended = [train(each, tmp_path / name, progress=quiet).weights()[0] for name, each in (("a", recipe), ("b", plain))]
    assert any(not torch.equal(ended[0][name], value) for name, value in ended[1].items())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"frozen": True}, r"rehearsal: must be 0 with encoder.frozen true, not 1: nothing moves"),
        ({"moments_only": True}, r"rehearsal: must be 0 with encoder.moments_only true, not 1: nothing is left to .*"),
    ],
)
def test_what_has_nothing_to_rehearse_is_refused(settings: Any, reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        EncoderSettings(experience="runs/affect", rehearsal=1.0, **settings)


def test_without_experience_it_is_refused(tmp_path: Path, rehearsing: TrainRecipe, quiet: Progress) -> None:
    recipe = dataclasses.replace(rehearsing, encoder=EncoderSettings(rehearsal=1.0))
    with pytest.raises(SettingError, match=r"encoder.rehearsal: must be 0 without encoder.experience, not 1: .*"):
        train(recipe, tmp_path / "run", progress=quiet)
    model = RegulatedClassifier(TinyBackbone(), TinyBackbone(), 10, mode="learned")
    with pytest.raises(SettingError, match=r"encoder.rehearsal: must be 0 with a model of your own, not 0.5: .*"):
        train(rehearsing, tmp_path / "run", model, progress=quiet)


def test_stimuli_that_were_given_in_python_cannot_be_read_again(
    tmp_path: Path, stage1: PretrainRecipe, rehearsing: TrainRecipe, quiet: Progress
) -> None:
    table = Table("mine", np.zeros((20, 16, 16, 3), np.uint8), np.zeros((20, 2), np.float32))
    run = pretrain(stage1, tmp_path / "mine", (table, EmotionSpace("dimensions", ("valence", "arousal"))), quiet)
    encoder = dataclasses.replace(rehearsing.encoder, experience=str(run.folder))
    with pytest.raises(
        UserError, match=r"encoder.rehearsal: .*mine learned from \d+ images of mine, and now there are"
    ):
        read_rehearsal(dataclasses.replace(rehearsing, encoder=encoder), make_fabric(CPU), quiet)


def test_the_same_images_with_other_labels_are_refused(
    tmp_path: Path, stage1: PretrainRecipe, rehearsing: TrainRecipe, quiet: Progress
) -> None:
    whole = read_stimuli(stage1.stimuli, stage1.seed)
    own = Table(whole.name, whole.images, -whole.labels[0].values)
    run = pretrain(stage1, tmp_path / "own", (own, whole.labels[0].space), quiet)
    encoder = dataclasses.replace(rehearsing.encoder, experience=str(run.folder))
    with pytest.raises(UserError, match=r"encoder.rehearsal: .*own learned from other labels of the same images; .*"):
        read_rehearsal(dataclasses.replace(rehearsing, encoder=encoder), make_fabric(CPU), quiet)


def test_stimuli_that_have_changed_are_refused(
    tmp_path: Path, stage1: PretrainRecipe, rehearsing: TrainRecipe, quiet: Progress
) -> None:
    root = tmp_path / "pictures"
    draw = np.random.default_rng(0)
    for emotion in ("fear", "joy"):
        (root / emotion).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(root / emotion / f"{number}.png")
    settings = dataclasses.replace(stage1.stimuli, name="emotion_folder", root=str(root))
    run = pretrain(dataclasses.replace(stage1, stimuli=settings), tmp_path / "run", progress=quiet)
    recipe = dataclasses.replace(
        rehearsing, encoder=dataclasses.replace(rehearsing.encoder, experience=str(run.folder))
    )
    assert read_rehearsal(recipe, make_fabric(CPU), quiet) is not None
    (root / "fear" / "0.png").rename(root / "fear" / "another.png")
    with pytest.raises(
        UserError, match=r"encoder.rehearsal: .* images of other contents; rehearsal needs the stimuli as"
    ):
        read_rehearsal(recipe, make_fabric(CPU), quiet)
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(
        UserError, match=r"encoder.rehearsal: the stimuli of .*run cannot be read: .*pictures.*; rehearsal"
    ):
        read_rehearsal(recipe, make_fabric(CPU), quiet)


def test_a_set_that_is_not_held_in_memory_is_refused(
    tmp_path: Path, stage1: PretrainRecipe, rehearsing: TrainRecipe, quiet: Progress
) -> None:
    run = pretrain(stage1, tmp_path / "run", progress=quiet)
    training = dataclasses.replace(rehearsing.training, memory_limit_gib=1e-9)
    encoder = dataclasses.replace(rehearsing.encoder, experience=str(run.folder))
    recipe = dataclasses.replace(rehearsing, training=training, encoder=encoder)
    with pytest.raises(SettingError, match=r"encoder.rehearsal: needs the 30 images of procedural in memory, .*"):
        read_rehearsal(recipe, make_fabric(CPU), quiet)


def test_weights_without_the_read_out_are_reported_as_damaged(
    tmp_path: Path, experience: Run, rehearsing: TrainRecipe, quiet: Progress
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(experience.folder, folder)
    weights, metadata = experience.weights()
    others = {name: value for name, value in weights.items() if name != "head.weight"}
    save_file(others, folder / WEIGHTS, {"emoreg": json.dumps(metadata)})
    encoder = dataclasses.replace(rehearsing.encoder, experience=str(folder))
    with pytest.raises(UserError, match=r"damaged.*: it holds no read-out of 2 outputs"):
        read_rehearsal(dataclasses.replace(rehearsing, encoder=encoder), make_fabric(CPU), quiet)


def test_its_features_have_the_width_of_its_read_out(experience: Run, rehearsing: TrainRecipe, quiet: Progress) -> None:
    rehearsal = present(read_rehearsal(rehearsing, make_fabric(CPU), quiet))
    assert rehearsal.head.in_features == num_features(load_encoder(experience))
