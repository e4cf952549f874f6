from __future__ import annotations

import dataclasses
from typing import Any

from emoreg.config.read_recipe import build
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.study.kinds_of_run import is_large, kind_of, networks_of

REGULATED = build(TrainRecipe(), {"regulation": {"mode": "learned"}, "backbone": {"name": "resnet8"}})


def test_arms_targets_and_seeds_with_the_same_networks_are_one_kind() -> None:
    others: list[dict[str, Any]] = [
        {"regulation": {"mode": "random", "mix": "features"}},
        {"regulation": {"granularity": "per_sample"}},
        {"target": {"name": "cifar100", "limit": 9}, "seed": 3, "training": {"epochs": 7}},
        {"regulation": {"mode": "fixed"}, "loss": {"regulated": 0.0}, "encoder": {"takeover": "shrunk"}},
        {"optimizer": {"lr": 0.3, "weight_decay": 0.0}, "backbone": {"zero_gamma": True}},
    ]
    assert {kind_of(build(REGULATED, changed)) for changed in others} == {kind_of(REGULATED)}


def test_settings_that_change_a_step_give_another_kind() -> None:
    others: list[dict[str, Any]] = [
        {"target": {"image_size": 64}},
        {"backbone": {"name": "resnet14"}},
        {"encoder": {"frozen": True}},
        {"encoder": {"rehearsal": 0.5}},
        {"regulation": {"mode": "none"}},
        {"augment": {"cutmix": 1.0}},
        {"optimizer": {"name": "adamw"}},
        {"optimizer": {"ema": 0.9}},
        {"training": {"batch_size": 64}},
        {"training": {"precision": "bf16-mixed"}},
        {"training": {"initial_scale": 0.5}},
    ]
    kinds = [kind_of(REGULATED), *(kind_of(build(REGULATED, changed)) for changed in others)]
    assert len(set(kinds)) == len(kinds)


def test_a_regulated_step_is_that_of_its_two_networks_and_stage_1_trains_one_of_them() -> None:
    plain = kind_of(build(REGULATED, {"regulation": {"mode": "none"}}))
    assert networks_of(kind_of(REGULATED)) == (plain, plain)
    assert networks_of(plain) == (plain,)
    other = networks_of(kind_of(build(REGULATED, {"encoder": {"backbone": {"name": "resnet14"}}})))
    assert [each.backbone.name for each in other] == ["resnet8", "resnet14"]
    frozen = kind_of(build(REGULATED, {"encoder": {"frozen": True}}))
    assert networks_of(frozen) == (frozen,)
    looked_up = build(REGULATED, {"encoder": {"frozen": True, "views": 2}})
    assert kind_of(looked_up) == plain
    stage_1 = dataclasses.replace(
        PretrainRecipe(),
        backbone=REGULATED.backbone,
        augment=REGULATED.augment,
        optimizer=REGULATED.optimizer,
        training=REGULATED.training,
    )
    assert kind_of(stage_1) == plain
    larger = dataclasses.replace(stage_1, stimuli=dataclasses.replace(stage_1.stimuli, image_size=64))
    assert kind_of(larger).target.image_size == 64


def test_rehearsal_of_any_weight_is_part_of_the_step_of_the_stage_1_network() -> None:
    kinds = [kind_of(build(REGULATED, {"encoder": {"rehearsal": weight}})) for weight in (0.1, 2.0)]
    assert kinds[0] == kinds[1]
    assert [each.encoder.rehearsal > 0 for each in networks_of(kinds[0])] == [False, True]
    encoder = {"rehearsal": 0.5, "experience": "runs/stage-1"}
    transfer = kind_of(build(REGULATED, {"encoder": encoder, "regulation": {"mode": "transfer"}}))
    assert transfer == networks_of(kinds[0])[1]


def test_a_large_network_is_one_of_a_million_weights() -> None:
    assert not is_large(kind_of(REGULATED))
    assert is_large(kind_of(build(REGULATED, {"encoder": {"backbone": {"name": "resnet18"}}})))
