from __future__ import annotations

import json
from typing import Any

from emoreg.report.analyse_table import analyse
from emoreg.report.machine_notes import facts_of
from emoreg.report.shared_settings import shared_settings
from result_rows import results, stage_2

SHARED: dict[str, Any] = {
    "recipe.target.name": "cifar100",
    "recipe.target.root": "cifar-small",
    "recipe.target.classes": json.dumps(["apple", "bear"]),
    "recipe.target.image_size": 32,
    "recipe.target.per_class": 200.0,
    "recipe.optimizer.name": "sgd",
    "recipe.optimizer.lr": 0.1,
    "recipe.training.epochs": 30,
    "recipe.training.batch_size": 128,
    "recipe.augment.flip": True,
    "recipe.augment.cutout": 0.0,
    "classes": ["apple", "bear"],
    "images_sha256": "0123456789abcdef" * 4,
    "test_checksum": "fedcba9876543210" * 2,
}


def rows(mode: str, takeover: str | None) -> list[dict[str, Any]]:
    of_arm: dict[str, Any] = {"recipe.regulation.mode": mode.split(maxsplit=1)[0], "recipe.encoder.takeover": takeover}
    return stage_2({mode: (0.5, 0.6)}, target="cifar100", **SHARED, **of_arm)


TABLE = results(rows("none", None), rows("learned", "as_is"), rows("learned shuffled", "as_is"))


def test_shared_and_differing_settings_are_reported() -> None:
    facts = shared_settings(TABLE)
    assert facts["All runs of stage 2 share"] == (
        'target: name cifar100, classes ["apple", "bear"], image_size 32, per_class 200; optimiser: name sgd, lr 0.1; '
        "training: epochs 30, batch_size 128; augmentation: flip yes"
    )
    assert facts["They differ in"] == (
        "regulation.mode: none (Backbone), learned (Learn-E-Reg / Learn-E-Reg shuffled); "
        "encoder.takeover: null (Backbone), as_is (Learn-E-Reg / Learn-E-Reg shuffled)"
    )
    assert shared_settings(results(stage_2({"none": (0.5,)}))) == {}


def test_a_part_of_a_target_is_named_in_titles_and_facts_with_checksums() -> None:
    cell = analyse("small", TABLE).cells[0]
    assert cell.title == "cifar100 (2 of 100 classes, 200 images per class), resnet8"
    facts = dict(facts_of(TABLE))
    assert (
        facts["Targets"]
        == "cifar100 (cifar100, 2 of 100 classes, 200 images per class, 32 pixels, read from cifar-small)"
    )
    assert facts["Checksums of image sets"] == (
        "target cifar100, files 0123456789abcdef; target cifar100, test pixels fedcba9876543210"
    )
    assert analyse("whole", results(stage_2({"none": (0.5,)}))).cells[0].title == "digits, resnet8"
