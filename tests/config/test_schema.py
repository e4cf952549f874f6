from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from emoreg.cli.main import main
from emoreg.config.augment import AugmentSettings
from emoreg.config.loss import LossSettings
from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.read_recipe import all_settings
from emoreg.config.recipe import PretrainRecipe, TrainRecipe, with_stems
from emoreg.config.schema import BackboneSettings, EncoderSettings, RegulationSettings, StimuliSettings, TargetSettings
from emoreg.config.training import TrainingSettings
from emoreg.errors import SettingError


def regulated(encoder: EncoderSettings | None = None, loss: LossSettings | None = None, **options: Any) -> TrainRecipe:
    return TrainRecipe(
        encoder=encoder or EncoderSettings(), loss=loss or LossSettings(), regulation=RegulationSettings(**options)
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StimuliSettings(count=9), "count: must be at least 10, not 9"),
        (lambda: StimuliSettings(image_size=7), "image_size: must be 8 to 8,192 pixels, not 7"),
        (lambda: StimuliSettings(validation=1), r"validation: must lie in [0, 1), not 1"),
        (lambda: StimuliSettings(limit=0), "limit: must be at least 1, or null, not 0"),
        (lambda: TargetSettings(image_size=7), "image_size: must be 8 to 8,192 pixels, not 7"),
        (lambda: TargetSettings(validation=-0.1), "validation: must lie in [0, 1), not -0.1"),
        (lambda: TargetSettings(limit=0), "limit: must be at least 1, or null, not 0"),
        (lambda: StimuliSettings(share=1.01), "share: must be above 0 and at most 1, or null, not 1.01"),
        (lambda: TargetSettings(share=0), "share: must be above 0 and at most 1, or null, not 0"),
        (lambda: TargetSettings(share=1.5), "share: must be above 0 and at most 1, or null, not 1.5"),
        (lambda: TargetSettings(share=0.1, per_class=5), "share: must be null with target.per_class"),
        (lambda: TargetSettings(imbalance=1), "imbalance: must be above 1 and finite, or null, not 1"),
        (lambda: TargetSettings(label_noise="symmetric"), "noise_share: must be given with label_noise symmetric"),
        (lambda: TargetSettings(noise_share=0.2), "noise_share: must be null with label_noise none"),
        (
            lambda: TargetSettings(label_noise="asymmetric", noise_share=1),
            "noise_share: must lie between 0 and 1, or be null, not 1",
        ),
        (
            lambda: TargetSettings("cifar100", label_noise="worse"),
            "label_noise: worse has people's labels of cifar10, and",
        ),
        (
            lambda: TargetSettings("cifar10", classes=("cat", "dog"), label_noise="worse"),
            "label_noise: worse needs all classes of cifar10",
        ),
        (
            lambda: TargetSettings("cifar10", label_noise="worse", noise_share=0.4),
            "noise_share: must be null with label_noise worse: nothing is drawn",
        ),
        (lambda: BackboneSettings(patch_size=0), "patch_size: must be at least 1, or null, not 0"),
        (lambda: BackboneSettings(drop_path=1), "drop_path: must lie in [0, 1), not 1"),
        (lambda: EncoderSettings(lr_factor=-1), "lr_factor: must be at least 0 and finite, not -1"),
        (lambda: RegulationSettings(lam=-0.1), "lam: λ must lie in [0, 1], not -0.1"),
        (lambda: RegulationSettings(lam=1.1), "lam: λ must lie in [0, 1], not 1.1"),
        (lambda: RegulationSettings(lr_factor=-1), "lr_factor: must be at least 0 and finite, not -1"),
        (lambda: RegulationSettings(warmup=1), "warmup: must lie in [0, 1), not 1"),
        (lambda: LossSettings(label_smoothing=1), "label_smoothing: must lie in [0, 1), not 1"),
        (lambda: LossSettings(regulated=-1), "regulated: must be at least 0 and finite, or null, not -1"),
        (lambda: LossSettings(non_emotional=-1), "non_emotional: must be at least 0 and finite, or null, not -1"),
        (lambda: LossSettings(emotional=-1), "emotional: must be at least 0 and finite, or null, not -1"),
        (lambda: AugmentSettings(crop_padding=-1), "crop_padding: must be at least 0, not -1"),
        (
            lambda: AugmentSettings(flip=False, alternate_flip=True),
            "alternate_flip: must be false if flip is false",
        ),
        (lambda: AugmentSettings(policy_ops=0), "policy_ops: must be at least 1, not 0"),
        (lambda: AugmentSettings(policy_magnitude=31), "policy_magnitude: must be 0 to 30, not 31"),
        (lambda: AugmentSettings(jitter=1), "jitter: must lie in [0, 1), not 1"),
        (lambda: AugmentSettings(erase=1.1), "erase: must lie in [0, 1], not 1.1"),
        (lambda: AugmentSettings(cutout=1), "cutout: must lie in [0, 1), not 1"),
        (lambda: AugmentSettings(mixup=-1), "mixup: must be at least 0 and finite, not -1"),
        (lambda: AugmentSettings(cutmix=math.inf), "cutmix: must be at least 0 and finite, not inf"),
        (lambda: AugmentSettings(mix_share=0), "mix_share: must lie in (0, 1], not 0"),
        (
            lambda: TrainRecipe(augment=AugmentSettings(cutmix=1), training=TrainingSettings(batch_size=1)),
            "training.batch_size: must be at least 2 with augment.cutmix, not 1: images are mixed in pairs",
        ),
        (
            lambda: PretrainRecipe(augment=AugmentSettings(mixup=1), training=TrainingSettings(batch_size=1)),
            "training.batch_size: must be at least 2 with augment.mixup, not 1: images are mixed in pairs",
        ),
        (
            lambda: TrainRecipe(
                augment=AugmentSettings(mixup=1),
                encoder=EncoderSettings(frozen=True, views=2),
                regulation=RegulationSettings(mode="learned"),
            ),
            "augment.mixup: must be 0 with encoder.views: features are looked up for unmixed images",
        ),
        (
            lambda: PretrainRecipe(augment=AugmentSettings(policy="trivial"), pretext="rotation"),
            "augment.policy: must not be trivial with pretext rotation: it turns images by up to 135°",
        ),
        (lambda: OptimizerSettings(lr=0), "lr: must be positive and finite, not 0"),
        (lambda: OptimizerSettings(momentum=1), "momentum: must lie in [0, 1), not 1"),
        (lambda: OptimizerSettings(weight_decay=-1), "weight_decay: must be at least 0 and finite, not -1"),
        (lambda: OptimizerSettings(warmup=1), "warmup: must lie in [0, 1), not 1"),
        (
            lambda: OptimizerSettings(schedule="one_cycle", warmup=0),
            "warmup: must be positive with schedule one_cycle, not 0",
        ),
        (lambda: OptimizerSettings(lr_per_batch=0), "lr_per_batch: must be at least 1, or null, not 0"),
        (lambda: OptimizerSettings(layer_decay=0), "layer_decay: must lie in (0, 1], or null, not 0"),
        (
            lambda: BackboneSettings(class_token=False),
            "class_token: must be null or true unless pool is average, not false: it is read",
        ),
        (lambda: OptimizerSettings(clip_norm=0), "clip_norm: must be positive and finite, or null, not 0"),
        (lambda: OptimizerSettings(ema=1), "ema: must lie in (0, 1), or null, not 1"),
        (lambda: TrainingSettings(epochs=0), "epochs: must be at least 1, not 0"),
        (lambda: TrainingSettings(batch_size=0), "batch_size: must be at least 1, not 0"),
        (lambda: AugmentSettings(resized_crop=0), "resized_crop: must lie in (0, 1], or null, not 0"),
        (
            lambda: AugmentSettings(resized_crop=0.3),
            "crop_padding: must be 0 with resized_crop, not 4: choose one kind of crop",
        ),
        (lambda: TrainingSettings(accumulate=0), "accumulate: must be at least 1, not 0"),
        (
            lambda: TrainingSettings(batch_size=8, devices=2, accumulate=5),
            "accumulate: must be at most batch_size / devices (4), not 5: a part needs an image",
        ),
        (lambda: LossSettings(class_weights=()), "class_weights: must not be empty; write none, balanced, or weights"),
        (lambda: LossSettings(class_weights={"cat": 0}), "class_weights: must be above 0 and finite, not 0"),
        (lambda: TrainingSettings(memory_limit_gib=-1), "memory_limit_gib: must be at least 0 and finite, not -1"),
        (lambda: PretrainRecipe(seed=-1), "seed: must be at least 0, not -1"),
        (lambda: TrainRecipe(seed=-1), "seed: must be at least 0, not -1"),
        (lambda: regulated(EncoderSettings("runs/x")), "encoder.experience: must be null with regulation.mode none"),
        (
            lambda: regulated(loss=LossSettings(emotional=1)),
            "loss.emotional: must be 0 or null without a second response",
        ),
        (
            lambda: regulated(loss=LossSettings(non_emotional=1)),
            "loss.non_emotional: must be 0 or null without a second",
        ),
        (
            lambda: regulated(loss=LossSettings(regulated=0)),
            "loss.regulated: must be positive without a second response (regulation.mode none)",
        ),
        (
            lambda: regulated(loss=LossSettings(regulated=0, non_emotional=1)),
            "loss.regulated: must be positive without a second response (regulation.mode none)",
        ),
        (
            lambda: regulated(loss=LossSettings(regulated=0), mode="learned"),
            "loss.regulated: must be positive in mode learned: no other loss trains λ",
        ),
        (
            lambda: regulated(loss=LossSettings(0.0, 0, 0, 1), mode="fixed"),
            "loss.non_emotional: must be positive if loss.regulated is 0 and loss.budget is matched",
        ),
        (lambda: regulated(mode="fixed", lam=0.0), "regulation.lam: must lie strictly between 0 and 1, not 0.0"),
        (lambda: TrainRecipe(edition=3), "edition: must be 1 or 2, not 3"),
        (lambda: TrainRecipe(edition=1), "loss.budget: must be as_given in edition 1, which had no other"),
        (
            lambda: regulated(loss=LossSettings(0.0, 0, 0, 0), mode="fixed"),
            "loss.regulated: must be positive if loss.non_emotional and loss.emotional are 0: nothing",
        ),
        (
            lambda: regulated(mode="fixed", granularity="per_class"),
            "granularity: must be scalar in mode fixed, not per_class: only learned modes have a λ per",
        ),
        (
            lambda: regulated(mode="random", granularity="per_sample"),
            "granularity: must be scalar in mode random, not per_sample: only learned modes have a λ per",
        ),
        (
            lambda: regulated(mode="learned", mix="features", granularity="per_class"),
            "granularity: must be scalar or per_sample with mix features, not per_class",
        ),
        (lambda: regulated(mode="learned", lam=0), "lam: must lie strictly between 0 and 1 in mode learned, not 0"),
        (lambda: regulated(mode="learned", lam=1), "lam: must lie strictly between 0 and 1 in mode learned, not 1"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_name(make: Callable[[], object], message: str) -> None:
    with pytest.raises(SettingError, match="^" + re.escape(message)) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_the_ends_of_the_ranges_are_allowed() -> None:
    TargetSettings(image_size=8, validation=0, limit=1)
    OptimizerSettings(momentum=0, weight_decay=0, warmup=0, clip_norm=None, ema=None)
    AugmentSettings(0, policy="rand", policy_ops=1, policy_magnitude=30, jitter=0, erase=1, mixup=0, mix_share=1)
    PretrainRecipe(augment=AugmentSettings(policy="rand"), pretext="rotation")
    TrainingSettings(epochs=1, batch_size=1, memory_limit_gib=0)
    for lam in (0, 1):
        regulated(mode="random_learned", lam=lam)  # the initial value is drawn
    for a, a_n, a_e in ((0, 1, 0), (0, 0, 1), (0.5, 0, 0)):
        regulated(loss=LossSettings(0.0, a, a_n, a_e, budget="as_given"), mode="fixed")
    regulated(EncoderSettings(lr_factor=0), LossSettings(emotional=1, non_emotional=1), mode="random", lr_factor=0)


def test_a_recipe_whose_stems_are_resolved_is_not_made_again() -> None:
    for recipe in (PretrainRecipe(), regulated(EncoderSettings(backbone=BackboneSettings("resnet8")), mode="fixed")):
        assert with_stems(resolved := with_stems(recipe)) is resolved


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainRecipe().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(("command", "kind"), [("pretrain", PretrainRecipe), ("train", TrainRecipe)])
def test_the_help_explains_every_setting_with_its_default(
    command: str, kind: type[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = capsys.readouterr().out
    assert ",:\n" not in shown, "the first line of a class's docstring is the title of a section"
    options = shown.split("\n  --")
    explained = {option.split()[0]: " ".join(option.split()) for option in options}
    for key in all_settings(kind):
        text = explained[key].split("(default:")[0]
        assert len(text.split()) >= 3, f"{key} is not explained"
        assert "default:" in explained[key]
