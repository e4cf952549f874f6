from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest

from emoreg.cli.main import main
from emoreg.config.recipe import setting_keys
from emoreg.config.schema import (
    AugmentSettings,
    BackboneSettings,
    EncoderSettings,
    LossSettings,
    OptimizerSettings,
    PretrainRecipe,
    RegulationSettings,
    StimuliSettings,
    TargetSettings,
    TrainingSettings,
    TrainRecipe,
)


def regulated(encoder: EncoderSettings | None = None, loss: LossSettings | None = None, **options: Any) -> TrainRecipe:
    return TrainRecipe(
        encoder=encoder or EncoderSettings(), loss=loss or LossSettings(), regulation=RegulationSettings(**options)
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StimuliSettings(count=9), "stimuli.count is 9; it must be at least 10"),
        (lambda: StimuliSettings(image_size=7), "stimuli.image_size is 7; it must be at least 8 pixels"),
        (lambda: StimuliSettings(validation=1), r"stimuli.validation is 1; it must lie in [0, 1)"),
        (lambda: StimuliSettings(limit=0), "stimuli.limit is 0; it must be at least 1, or null"),
        (lambda: TargetSettings(image_size=7), "target.image_size is 7; it must be at least 8 pixels"),
        (lambda: TargetSettings(validation=-0.1), "target.validation is -0.1; it must lie in [0, 1)"),
        (lambda: TargetSettings(limit=0), "target.limit is 0; it must be at least 1, or null"),
        (lambda: BackboneSettings(patch_size=0), "backbone.patch_size is 0; it must be at least 1"),
        (lambda: BackboneSettings(drop_path=1), "backbone.drop_path is 1; it must lie in [0, 1)"),
        (lambda: EncoderSettings(lr_factor=-1), "encoder.lr_factor is -1; it must be a finite number, not negative"),
        (lambda: RegulationSettings(lam=-0.1), "regulation.lam is -0.1; λ must lie in [0, 1]"),
        (lambda: RegulationSettings(lam=1.1), "regulation.lam is 1.1; λ must lie in [0, 1]"),
        (lambda: RegulationSettings(lr_factor=-1), "regulation.lr_factor is -1; it must be a finite number"),
        (lambda: LossSettings(label_smoothing=1), "loss.label_smoothing is 1; it must lie in [0, 1)"),
        (lambda: LossSettings(regulated=-1), "loss.regulated is -1; it must be a finite number"),
        (lambda: LossSettings(non_emotional=-1), "loss.non_emotional is -1; it must be a finite number"),
        (lambda: LossSettings(emotional=-1), "loss.emotional is -1; it must be a finite number"),
        (lambda: AugmentSettings(crop_padding=-1), "augment.crop_padding is -1; it must not be negative"),
        (lambda: OptimizerSettings(lr=0), "optimizer.lr is 0; it must be positive and finite"),
        (lambda: OptimizerSettings(momentum=1), "optimizer.momentum is 1; it must lie in [0, 1)"),
        (lambda: OptimizerSettings(weight_decay=-1), "optimizer.weight_decay is -1; it must be a finite number"),
        (lambda: OptimizerSettings(warmup=1), "optimizer.warmup is 1; it must lie in [0, 1)"),
        (lambda: OptimizerSettings(schedule="one_cycle", warmup=0), "optimizer.warmup is 0; one_cycle needs a rise"),
        (lambda: OptimizerSettings(clip_norm=0), "optimizer.clip_norm is 0; it must be positive and finite, or null"),
        (lambda: OptimizerSettings(ema=1), "optimizer.ema is 1; it must lie in (0, 1), or be null"),
        (lambda: TrainingSettings(epochs=0), "training.epochs is 0; it must be at least 1"),
        (lambda: TrainingSettings(batch_size=0), "training.batch_size is 0; it must be at least 1"),
        (lambda: TrainingSettings(memory_limit_gib=-1), "training.memory_limit_gib is -1; it must be a finite number"),
        (lambda: PretrainRecipe(seed=-1), "seed is -1; it must not be negative"),
        (lambda: TrainRecipe(seed=-1), "seed is -1; it must not be negative"),
        (lambda: regulated(EncoderSettings("runs/x")), "encoder.experience is set but regulation.mode is none"),
        (lambda: regulated(loss=LossSettings(emotional=1)), "loss.emotional and loss.non_emotional need"),
        (lambda: regulated(loss=LossSettings(non_emotional=1)), "loss.emotional and loss.non_emotional need"),
        (
            lambda: regulated(loss=LossSettings(regulated=0)),
            "loss.regulated is 0; with regulation.mode none there is no other loss",
        ),
        (
            lambda: regulated(loss=LossSettings(regulated=0, non_emotional=1)),
            "loss.regulated is 0; with regulation.mode none there is no other loss",
        ),
        (
            lambda: regulated(loss=LossSettings(regulated=0), mode="fixed"),
            "loss.regulated is 0; loss.non_emotional and loss.emotional are 0 too, so nothing would be trained",
        ),
        (
            lambda: regulated(mode="fixed", granularity="per_class"),
            "regulation.granularity per_class needs regulation.mode learned or random_learned, not fixed",
        ),
        (
            lambda: regulated(mode="random", granularity="per_sample"),
            "regulation.granularity per_sample needs regulation.mode learned or random_learned, not random",
        ),
        (
            lambda: regulated(mode="learned", mix="features", granularity="per_class"),
            "regulation.mix features has one λ for all classes",
        ),
        (lambda: regulated(mode="learned", lam=0), "regulation.lam is 0; a learned λ = σ(ρ) must start strictly"),
        (lambda: regulated(mode="learned", lam=1), "regulation.lam is 1; a learned λ = σ(ρ) must start strictly"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_name(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_the_ends_of_the_ranges_are_allowed() -> None:
    TargetSettings(image_size=8, validation=0, limit=1)
    OptimizerSettings(momentum=0, weight_decay=0, warmup=0, clip_norm=None, ema=None)
    TrainingSettings(epochs=1, batch_size=1, memory_limit_gib=0)
    for lam in (0, 1):
        regulated(mode="fixed", lam=lam)
        regulated(mode="random_learned", lam=lam)  # its start is drawn
    for weights in ((0, 1, 0), (0, 0, 1), (0.5, 0, 0)):
        regulated(loss=LossSettings(0.0, *weights), mode="fixed")
    regulated(EncoderSettings(lr_factor=0), LossSettings(emotional=1, non_emotional=1), mode="random", lr_factor=0)


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainRecipe().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(("command", "kind"), [("pretrain", PretrainRecipe), ("train", TrainRecipe)])
def test_the_help_explains_every_setting_with_its_default(
    command: str, kind: type[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    options = capsys.readouterr().out.split("\n  --")
    explained = {option.split()[0]: " ".join(option.split()) for option in options}
    # jsonargparse shows the settings of an optional section with `--encoder.backbone.help`.
    for key in (key for key in setting_keys(kind) if not key.startswith("encoder.backbone.")):
        text = explained[key].split("(type:")[0]
        assert len(text.split()) >= 3, f"{key} is not explained"
        assert "default:" in explained[key]
