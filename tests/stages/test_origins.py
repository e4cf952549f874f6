"""Provenance of user-supplied networks."""

from __future__ import annotations

import copy
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from emoreg.config.read_recipe import read_recipe
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.data.images.table import Table
from emoreg.data.stimuli.emotion import EmotionSpace
from emoreg.data.targets.target import Target
from emoreg.errors import UserError
from emoreg.inference.load import load_run
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.run import INPUTS, Run
from emoreg.runtime.progress import Progress
from emoreg.stages.classify import train
from emoreg.stages.origins import checksum_of, experiences_of
from emoreg.stages.pretrain import load_encoder, pretrain
from listening import Listening
from refusing import refusal
from stopped_runs import CutOff
from tiny_backbone import TinyBackbone

EPOCH: dict[str, Any] = {"training.epochs": 1, "training.batch_size": 16, "training.device": "cpu"}
STIMULI = EPOCH | {"stimuli.count": 20, "stimuli.image_size": 8}


@pytest.fixture(scope="module")
def experiences(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """Two stage-1 runs of networks with the same code."""
    folder = tmp_path_factory.mktemp("stage1")
    first, second = (
        pretrain(
            read_recipe(PretrainRecipe, None, STIMULI | {"seed": seed}),
            folder / f"exp{seed}",
            progress=Progress(quiet=True),
            encoder=TinyBackbone(),
        )
        for seed in (0, 1)
    )
    return first, second


@pytest.fixture
def recipe() -> TrainRecipe:
    settings = EPOCH | {"training.epochs": 2, "target.image_size": 8, "target.limit": 64}
    return read_recipe(TrainRecipe, None, settings)


def felt(experience: Run | None) -> RegulatedClassifier:
    encoder = TinyBackbone() if experience is None else load_encoder(experience, encoder=TinyBackbone())
    return RegulatedClassifier(TinyBackbone(), encoder, 10)


def test_a_loaded_encoder_and_its_copies_are_marked_with_their_experience(experiences: tuple[Run, Run]) -> None:
    encoder = load_encoder(experiences[0], encoder=TinyBackbone())
    (found,) = experiences_of(nn.Sequential(copy.deepcopy(encoder), encoder))
    assert found.folder == str(experiences[0].folder) and found.is_available
    assert encoder.state_dict().keys() == TinyBackbone().state_dict().keys()
    (other,) = experiences_of(load_encoder(experiences[1], encoder=encoder))
    assert other != found and experiences_of(TinyBackbone()) == ()
    both, swapped = checksum_of((found, other)), checksum_of((other, found))
    assert len({both, swapped, found.sha256, other.sha256, checksum_of(())}) == 5


def test_a_run_of_your_own_model_is_refused_with_another_experience(
    experiences: tuple[Run, Run], recipe: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    first, second = experiences
    run = train(recipe, tmp_path / "run", felt(first), quiet)
    assert run.inputs.experience == experiences_of(felt(first))[0].sha256
    assert train(recipe, run.folder, felt(first), quiet).final == run.final
    was = str(run.inputs.experience)[:8]
    for other, now in ((second, rf"\w{{8}} \({second.folder}\)"), (None, r"none from emoreg\.load_encoder")):
        with pytest.raises(
            UserError, match=rf"of other images or weights \(model: stage-1 weights {was} then, {now} now"
        ):
            train(recipe, run.folder, felt(other), quiet)


def test_a_stopped_run_of_your_own_model_resumes_with_its_experience_only(
    experiences: tuple[Run, Run], recipe: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    with pytest.raises(InterruptedError):
        train(recipe, tmp_path / "run", felt(experiences[0]), CutOff())
    assert "other images or weights" in refusal(lambda: train(recipe, tmp_path / "run", felt(experiences[1]), quiet))
    shutil.copytree(experiences[0].folder, tmp_path / "moved")
    assert train(recipe, tmp_path / "run", felt(Run(tmp_path / "moved")), quiet).is_finished


def test_a_run_of_a_fresh_model_is_refused_with_an_experience(
    experiences: tuple[Run, Run], recipe: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    run = train(recipe, tmp_path / "run", felt(None), quiet)
    assert train(recipe, run.folder, felt(None), quiet).final == run.final
    told = refusal(lambda: train(recipe, run.folder, felt(experiences[0]), quiet))
    assert "of other images or weights (model: stage-1 weights none then, " in told


def test_a_run_without_a_record_of_its_experience_resumes(
    experiences: tuple[Run, Run], recipe: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    run = train(recipe, tmp_path / "run", felt(None), quiet)
    record = json.loads((run.folder / INPUTS).read_text())
    del record["model"]  # as earlier versions wrote it
    (run.folder / INPUTS).write_text(json.dumps(record))
    assert train(recipe, run.folder, felt(experiences[0]), quiet).final == run.final


class Both(nn.Module):
    """Several encoders combined into one."""

    def __init__(self, *encoders: Any) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.num_features = sum(encoder.num_features for encoder in encoders)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([encoder(images) for encoder in self.encoders], dim=1)


def test_a_run_of_several_experiences_names_each_and_has_no_readout(
    experiences: tuple[Run, Run], recipe: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    encoders = [load_encoder(each, encoder=TinyBackbone()) for each in experiences]
    model = RegulatedClassifier(TinyBackbone(), Both(*encoders), 10)
    run = train(recipe, tmp_path / "run", model, quiet)
    assert run.environment[0]["experience"]["folder"] == ["exp0", "exp1"]
    loaded = load_run(run, model=model)
    assert loaded.no_readout_reason == (
        "its emotional encoder has several experiences (exp0, exp1), and a readout is of one"
    )


def test_a_run_is_refused_for_a_model_with_other_trainable_parameters(
    recipe: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    def partly(frozen: str | None) -> RegulatedClassifier:
        model = felt(None)
        if frozen is not None:
            model.backbone.get_submodule(frozen).requires_grad_(False)
        return model

    with pytest.raises(InterruptedError):
        train(recipe, tmp_path / "run", partly("conv"), CutOff())
    for _ in ("stopped", "finished"):
        for other in (None, "norm"):
            told = refusal(partial(train, recipe, tmp_path / "run", partly(other), quiet))
            assert "holds a run with other settings (model: other parameters are trainable (requires_grad)" in told
        run = train(recipe, tmp_path / "run", partly("conv"), quiet)
    record = json.loads((run.folder / INPUTS).read_text())
    del record["learning"]  # as earlier versions wrote it
    (run.folder / INPUTS).write_text(json.dumps(record))
    assert train(recipe, run.folder, partly(None), quiet).final == run.final


def test_an_encoder_of_your_own_model_that_has_seen_test_images_is_refused(
    recipe: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (36, 8, 8, 3), np.uint8), np.arange(36) % 2
    table = Table("mine", images, labels)
    data = Target(table.take(np.arange(24)), table.take(np.arange(24, 36)), ("cat", "dog"))
    settings = EPOCH | {"stimuli.validation": 0.0}
    stimuli = data.test, EmotionSpace("category", ("awe", "fear"))
    run = pretrain(read_recipe(PretrainRecipe, None, settings), tmp_path / "exp", stimuli, quiet, TinyBackbone())

    def regulated() -> RegulatedClassifier:
        return RegulatedClassifier(TinyBackbone(), load_encoder(run, encoder=TinyBackbone()), 2)

    reason = refusal(lambda: train(recipe, tmp_path / "run", regulated(), quiet, data))
    assert reason.startswith("model: ") and "exp was trained on 12 of the 12 test images of mine" in reason
    model, heard = regulated(), Listening()
    run.folder.rename(tmp_path / "moved")
    session = train(recipe, tmp_path / "run", model, heard, data).environment[0]
    assert session["experience"] == {"folder": "exp", "sha256": experiences_of(model)[0].sha256}
    (line,) = [line for line in heard.lines if "not checked" in line]
    assert "exp is gone or has other weights now: not checked whether it was trained on test images" in line


def test_a_loaded_model_is_marked_with_its_run_and_experience(
    experiences: tuple[Run, Run], recipe: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    first, second = experiences
    of_first, of_none = (
        train(recipe, tmp_path / name, felt(each), quiet) for name, each in (("a", first), ("b", None))
    )
    (known,) = experiences_of(felt(first))
    for built, expected in ((first, known), (second, ("exp0", known.sha256)), (None, ("exp0", known.sha256))):
        load_run(of_first, model=(model := felt(built)))
        assert experiences_of(model) == (expected,)
    load_run(of_none, model=(other := felt(second)))
    assert experiences_of(other) == ()
    heard = Listening()
    session = train(recipe, tmp_path / "c", model, heard).environment[0]
    assert session["experience"] == {"folder": "exp0", "sha256": known.sha256}
    (not_checked,), (starts,) = (
        [line for line in heard.lines if told in line] for told in ("not checked", "starts from")
    )
    assert not_checked.startswith("c: exp0 is known by its name only: not checked whether it was trained on test ")
    assert starts.startswith(f"c starts from the weights that {tmp_path / 'a'} left in model")


def test_marks_of_an_encoder_hold_in_another_working_folder(
    experiences: tuple[Run, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(experiences[0].folder.parent)
    encoder = load_encoder("exp0", encoder=TinyBackbone())
    monkeypatch.chdir(tmp_path)
    assert experiences_of(encoder)[0].is_available


def test_a_run_that_starts_from_trained_weights_prints_a_line(
    experiences: tuple[Run, Run], recipe: TrainRecipe, tmp_path: Path
) -> None:
    def told(name: str, model: RegulatedClassifier) -> list[str]:
        heard = Listening()
        train(recipe, tmp_path / name, model, heard)
        return [line for line in heard.lines if "starts from" in line]

    model = felt(experiences[0])
    begun = copy.deepcopy(model.state_dict())
    assert told("a", model) == told("a", model) == []
    line = "starts from the weights that {} left in model: build a new one for each run"
    assert told("b", model) == [f"b {line.format(tmp_path / 'a')}"]
    around = RegulatedClassifier(TinyBackbone(), copy.deepcopy(model.encoder), 10, freeze_encoder=True)
    assert told("c", around) == [f"c {line.format(tmp_path / 'b')}"]
    frozen = RegulatedClassifier(
        TinyBackbone(), load_encoder(experiences[0], encoder=around.encoder), 10, freeze_encoder=True
    )
    assert told("d", frozen) == []
    was_frozen = frozen.get_submodule("encoder").requires_grad_(True)
    assert told("e", RegulatedClassifier(TinyBackbone(), was_frozen, 10)) == []
    model.load_state_dict(begun)
    assert told("g", model) == []
    with pytest.raises(InterruptedError):
        train(recipe, tmp_path / "f", fresh := felt(None), CutOff())
    assert told("f", fresh) == []  # resumed


def test_a_stage_1_run_that_starts_from_trained_weights_prints_a_line(tmp_path: Path) -> None:
    recipe, encoder, heard = read_recipe(PretrainRecipe, None, STIMULI), TinyBackbone(), Listening()
    for name in "aab":
        pretrain(recipe, tmp_path / name, progress=heard, encoder=encoder)
    lines = [line for line in heard.lines if "starts from" in line]
    assert lines == [f"b starts from the weights that {tmp_path / 'a'} left in encoder: build a new one for each run"]


def test_a_stage_1_run_is_refused_for_an_encoder_with_other_trainable_parameters(
    tmp_path: Path, quiet: Progress
) -> None:
    recipe = read_recipe(PretrainRecipe, None, STIMULI | {"training.epochs": 2})

    def partly(frozen: str | None) -> TinyBackbone:
        encoder = TinyBackbone()
        if frozen is not None:
            encoder.get_submodule(frozen).requires_grad_(False)
        return encoder

    with pytest.raises(InterruptedError):
        pretrain(recipe, tmp_path / "run", progress=CutOff(), encoder=partly("conv"))
    for _ in ("stopped", "finished"):
        for other in (None, "norm"):
            told = refusal(partial(pretrain, recipe, tmp_path / "run", None, quiet, partly(other)))
            assert "holds a run with other settings (encoder: other parameters are trainable (requires_grad)" in told
        run = pretrain(recipe, tmp_path / "run", None, quiet, partly("conv"))
    record = json.loads((run.folder / INPUTS).read_text())
    del record["learning"]  # as earlier versions wrote it
    (run.folder / INPUTS).write_text(json.dumps(record))
    assert pretrain(recipe, run.folder, None, quiet, partly(None)).final == run.final


def test_weights_that_have_changed_between_the_first_and_the_last_parameter_are_no_longer_a_runs(
    recipe: TrainRecipe, tmp_path: Path, quiet: Progress
) -> None:
    run = train(recipe, tmp_path / "a", felt(None), quiet)
    load_run(run, model=(model := felt(None)))
    again, changed = (copy.deepcopy(model) for _ in range(2))
    with torch.no_grad():
        for trunk in ("backbone", "encoder"):
            changed.get_parameter(f"{trunk}.norm.weight")[2] += 1
    for name, starting, is_told in (("b", again, True), ("c", changed, False)):
        heard = Listening()
        train(recipe, tmp_path / name, starting, heard)
        assert any("starts from" in line for line in heard.lines) == is_told
