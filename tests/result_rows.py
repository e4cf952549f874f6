"""Tables of results as studies write them, without any training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from emoreg.study.columns import RunStatus

RELATIVES = ("embp", "bel", "liaenn")
WITHOUT_EXPERIENCE = ("none", "ensemble", "wide", *RELATIVES)
SINGLE = ("none", "wide", "transfer", *RELATIVES)  # modes of one network
TWINS = ("fresh", "moments", "shuffled", "neutral", "rotation")


def stage_2(
    accuracies: Mapping[str, Sequence[float]],
    target: str = "digits",
    backbone: str = "resnet8",
    stimuli: str | None = "procedural",
    variant: str | None = None,
    validation: Mapping[str, float] | None = None,
    first_seed: int = 0,
    **more: Any,
) -> list[dict[str, Any]]:
    """The rows of one run per arm and seed.

    Args:
        accuracies: test accuracies in [0, 1], one per seed, by arm: a mode ("none", "ensemble") or mode and experience
            ("learned shuffled"; "learned" alone has `affect`). NaN makes a run that is still waiting.
        target: target of all runs.
        backbone: backbone of all runs.
        stimuli: stimuli of the arms with an experience.
        variant: variant of the arms that can have one.
        validation: validation accuracy of each arm; None to use the test accuracies, {} for none.
        first_seed: seed of the first accuracy; the others count up.
        more: further columns of finished runs.
    """
    rows = []
    for arm, by_seed in accuracies.items():
        mode, _, named = arm.partition(" ")
        is_shared = mode in WITHOUT_EXPERIENCE
        experience = None if is_shared else named or "affect"
        for seed, accuracy in enumerate(by_seed, first_seed):
            is_finished = not math.isnan(accuracy)
            own = None if is_shared or experience == "fresh" else stimuli
            name = "-".join(part for part in (target, backbone, mode, experience, own, f"seed{seed}") if part)
            row: dict[str, Any] = {
                "stage": 2,
                "status": RunStatus.FINISHED if is_finished else RunStatus.WAITING,
                "error": None,
                "run": name,
            }
            own_name = name if is_shared or not variant else f"{name}-{variant}"
            row |= {"id": own_name, "folder": f"nowhere/{name}", "mode": mode, "experience": experience}
            row |= {"variant": None if is_shared else variant, "stimuli": own, "target": target, "backbone": backbone}
            row |= {"seed": seed, "edition": 2, "purpose": None, "planned_seeds": None, "looks": None}
            row["test_accuracy"] = math.nan  # every table has this column
            if is_finished:
                row |= {"test_accuracy": accuracy, "test_ece": 0.02, "seconds": 10.0, "parameters": 1000, "flops": 5000}
                row |= {"images_per_second": 100.0, "lambda": None if mode in SINGLE else 0.4}
                row["validation_accuracy"] = (
                    accuracy if validation is None else validation[arm] if validation else math.nan
                )
            row |= more if is_finished else {key: more[key] for key in more if key in row}
            rows.append(row)
    return rows


def stage_1(
    experience: str, cccs: Sequence[float], stimuli: str = "procedural", backbone: str = "resnet8"
) -> list[dict[str, Any]]:
    """The rows of one finished encoder per seed, from its CCC on validation images."""
    rows = []
    for seed, ccc in enumerate(cccs):
        name = f"experience-{backbone}-{stimuli}-{experience}-seed{seed}"
        row = {
            "stage": 1,
            "status": RunStatus.FINISHED,
            "error": None,
            "run": name,
            "id": name,
            "folder": f"nowhere/{name}",
        }
        row |= {"mode": None, "experience": experience, "variant": None, "stimuli": stimuli, "target": None}
        row |= {"backbone": backbone, "edition": 2, "purpose": None, "planned_seeds": None, "looks": None}
        rows.append(row | {"seed": seed, "validation_ccc": ccc, "validation_loss": 0.1, "seconds": 5.0})
    return rows


def results(*parts: list[dict[str, Any]]) -> pd.DataFrame:
    """One table of all rows."""
    return pd.DataFrame([row for rows in parts for row in rows])
