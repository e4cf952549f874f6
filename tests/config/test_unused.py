from __future__ import annotations

from typing import Any

import pytest

from emoreg.config.read_recipe import build
from emoreg.config.recipe import TrainRecipe, defaults
from emoreg.config.unused import unused_settings


@pytest.mark.parametrize(
    ("changes", "unused"),
    [
        ({}, []),
        (
            {"loss": {"mutual": 1.0, "budget": "as_given"}, "encoder": {"backbone": {"name": "resnet8"}}},
            [
                f"{key} is not used in regulation.mode none"
                for key in ("loss.mutual", "loss.budget", "encoder.backbone")
            ],
        ),
        (
            {"regulation": {"lam": 0.9, "warmup": 0.5}, "encoder": {"frozen": True, "lr_factor": 0.1}},
            [
                f"{key} is not used in regulation.mode none"
                for key in ("regulation.lam", "regulation.warmup", "encoder.frozen", "encoder.lr_factor")
            ],
        ),
        (
            {"regulation": {"mode": "fixed", "lam": 0.9, "warmup": 0.5}},
            ["regulation.warmup is not used in regulation.mode fixed"],
        ),
        (
            {"regulation": {"mode": "random", "lam": 0.9}, "loss": {"mutual": 1.0}, "encoder": {"frozen": True}},
            ["regulation.lam is not used in regulation.mode random"],
        ),
        ({"regulation": {"mode": "learned", "lam": 0.9, "warmup": 0.5, "lr_factor": 2.0, "mix": "logits"}}, []),
        ({"regulation": {"mode": "random_learned", "warmup": 0.5}}, []),
        ({"regulation": {"mode": "transfer"}, "encoder": {"experience": "x", "lr_factor": 0.1, "anchor": 0.1}}, []),
        (
            {"regulation": {"mode": "learned"}, "encoder": {"experience": "x", "shrink": 0.2}},
            ["encoder.shrink is not used with encoder.takeover as_is"],
        ),
        ({"regulation": {"mode": "learned"}, "encoder": {"experience": "x", "takeover": "shrunk", "shrink": 0.2}}, []),
    ],
)
def test_settings_that_the_mode_does_not_read_are_named(changes: dict[str, Any], unused: list[str]) -> None:
    assert list(unused_settings(build(TrainRecipe(), changes))) == unused


def test_the_defaults_of_the_first_edition_are_not_changed_settings() -> None:
    first = defaults(TrainRecipe, 1)
    assert list(unused_settings(first)) == []
    other = build(first, {"regulation": {"mix": "probabilities"}})
    assert list(unused_settings(other)) == ["regulation.mix is not used in regulation.mode none"]
