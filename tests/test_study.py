from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from emoreg import study
from emoreg.classification import build_classifier, with_encoder_architecture
from emoreg.progress import Progress
from emoreg.recipe import differences, recipe_yaml
from emoreg.run import Run
from emoreg.settings import (
    BackboneSettings,
    EncoderSettings,
    LossSettings,
    PretrainRecipe,
    RegulationSettings,
    TrainRecipe,
)
from emoreg.study import ARMS, arm_recipe, run_arms, summarise


@pytest.fixture
def short(stage1: PretrainRecipe, stage2: TrainRecipe) -> tuple[PretrainRecipe, TrainRecipe]:
    training = dataclasses.replace(stage1.training, epochs=1)
    stimuli = dataclasses.replace(stage1.stimuli, count=20, image_size=8)
    return dataclasses.replace(stage1, stimuli=stimuli, training=training), dataclasses.replace(
        stage2, training=training
    )


def written_run(folder: Path, recipe: TrainRecipe, accuracy: float, lam: list[float] | None = None) -> Run:
    """A finished run as `train` leaves it, without training."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(recipe_yaml(recipe), encoding="utf-8")
    (folder / "metrics.csv").write_text("epoch,train_loss,val_accuracy\n1,2.0,0.1\n2,1.0,0.2\n")
    final = {"test": {"accuracy": accuracy}, "lambda": lam, "seconds": 3.0}
    (folder / "final.json").write_text(json.dumps(final))
    return Run(folder)


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_differs_from_the_studys_recipe_in_the_emotional_branch_and_the_seed_alone(name: str) -> None:
    base = TrainRecipe(
        encoder=EncoderSettings(frozen=True, lr_factor=0.1),
        regulation=RegulationSettings("learned", lam=0.3, granularity="per_sample", lr_factor=2),
        loss=LossSettings(label_smoothing=0.1, non_emotional=0.5, emotional=0.5),
    )
    arm = ARMS[name]
    recipe = arm_recipe(base, arm, Path("runs/experience"), seed=7)
    changed = {line.split(":")[0] for line in differences(base, recipe)}
    assert {key.split(".")[0] for key in changed} <= {"encoder", "regulation", "loss", "seed"}
    assert recipe.seed == 7 and recipe.regulation.mode == arm.mode
    assert recipe.encoder.experience == ("runs/experience" if arm.experience == "affective" else None)
    assert recipe.loss.label_smoothing == 0.1
    if arm.mode != "none":
        assert changed <= {"encoder.experience", "regulation.mode", "regulation.granularity", "seed"}
        assert recipe.regulation.granularity == ("per_sample" if "learned" in arm.mode else "scalar")


def test_the_control_differs_from_its_arm_in_the_experience_alone(stage2: TrainRecipe) -> None:
    learned, control = (arm_recipe(stage2, ARMS[name], Path("x"), 1) for name in ("learned", "random_encoder"))
    assert differences(learned, control) == ["encoder.experience: x -> None"]
    assert [name for name, arm in ARMS.items() if arm.is_control] == ["random_encoder"]


def test_arms_share_one_experience_a_seed_and_come_in_order(
    short: tuple[PretrainRecipe, TrainRecipe], tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage1, stage2 = short
    stage1 = dataclasses.replace(stage1, backbone=BackboneSettings("resnet14"))  # not the backbone's architecture
    trained: list[str] = []
    for name in ("pretrain", "train"):
        original = getattr(study, name)

        def record(recipe: object, out: Path, original=original, **options: object) -> Run:  # type: ignore[no-untyped-def]
            trained.append(Path(out).name)
            return original(recipe, out, **options)

        monkeypatch.setattr(study, name, record)

    arms = ("random_encoder", "backbone", "learned")
    runs = run_arms(stage1, stage2, arms, (3, 1), tmp_path, quiet)

    assert trained == [f"{name}-seed{seed}" for seed in (3, 1) for name in ("experience", *arms)]
    assert tuple(runs) == arms
    for name, arm_runs in runs.items():
        assert [run.recipe.seed for run in arm_runs] == [3, 1]
        assert [run.folder for run in arm_runs] == [tmp_path / f"{name}-seed{seed}" for seed in (3, 1)]
    learned, control = runs["learned"][1], runs["random_encoder"][1]
    assert differences(learned.recipe, control.recipe) == [f"encoder.experience: {tmp_path}/experience-seed1 -> None"]
    assert learned.environment[0]["experience"]["folder"] == str(tmp_path / "experience-seed1")
    assert control.environment[0]["experience"] is None
    shapes = [{key: value.shape for key, value in run.weights()[0].items()} for run in (learned, control)]
    assert shapes[0] == shapes[1]

    finished = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again = run_arms(stage1, stage2, ("learned", "backbone"), (1, 3), tmp_path, quiet)
    assert [run.folder.name for run in again["learned"]] == ["learned-seed1", "learned-seed3"]
    assert finished == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}


def test_without_an_affective_arm_nothing_is_pretrained(
    short: tuple[PretrainRecipe, TrainRecipe], tmp_path: Path, quiet: Progress
) -> None:
    run_arms(*short, ("backbone",), (0,), tmp_path, quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["backbone-seed0"]


def test_a_random_encoder_is_random_even_if_stage_1_began_with_published_weights(
    stage1: PretrainRecipe, stage2: TrainRecipe, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[TrainRecipe] = []

    def record(recipe: TrainRecipe, out: Path, **_options: object) -> Run:
        asked.append(recipe)
        return written_run(out, recipe, 0.5)

    monkeypatch.setattr(study, "train", record)
    backbone = BackboneSettings("resnet18", pretrained=True)
    run_arms(dataclasses.replace(stage1, backbone=backbone), stage2, ("random_encoder",), (0,), tmp_path, quiet)
    assert asked[0].encoder == EncoderSettings(backbone=BackboneSettings("resnet18"))
    assert with_encoder_architecture(asked[0]) == asked[0]
    assert build_classifier(asked[0], 2).encoder is not None


def test_a_study_summarises_each_arm_with_its_gain_paired_by_seed(stage2: TrainRecipe, tmp_path: Path) -> None:
    accuracies: Mapping[str, Mapping[int, float]] = {
        "backbone": {0: 0.5, 1: 0.7, 2: 0.9},
        "learned": {2: 0.92, 0: 0.52, 1: 0.72},  # in another order
        "random_encoder": {0: 0.5, 1: 0.7, 2: 0.9},
    }
    runs = {
        name: [
            written_run(
                tmp_path / f"{name}-{seed}",
                arm_recipe(stage2, ARMS[name], Path("x"), seed),
                accuracy,
                None if name == "backbone" else [0.25, 0.75],
            )
            for seed, accuracy in by_seed.items()
        ]
        for name, by_seed in accuracies.items()
    }
    backbone, learned, control = summarise(runs)
    assert (backbone.name, backbone.label, backbone.is_control) == ("backbone", "Backbone", False)
    assert backbone.gain is None and backbone.lam == () and backbone.seconds == 3.0
    assert backbone.accuracy.mean == pytest.approx(0.7) and backbone.accuracy.n == 3
    assert learned.gain is not None and learned.gain.mean == pytest.approx(0.02)
    assert learned.gain.low == pytest.approx(0.02) == learned.gain.high  # every pair gains the same
    assert learned.accuracy.values == (0.52, 0.72, 0.92)  # in the order of the seeds, as every arm's
    assert learned.lam == (0.5, 0.5, 0.5)
    assert control.is_control and control.gain is not None and control.gain.mean == pytest.approx(0)
    assert learned.curves[["seed", "epoch"]].to_numpy().tolist() == [[0, 1], [0, 2], [1, 1], [1, 2], [2, 1], [2, 2]]


def test_without_a_backbone_arm_there_is_no_gain(stage2: TrainRecipe, tmp_path: Path) -> None:
    run = written_run(tmp_path / "run", arm_recipe(stage2, ARMS["fixed"], Path("x"), 0), 0.5, [0.5])
    (summary,) = summarise({"fixed": [run]})
    assert summary.gain is None and summary.accuracy.n == 1
