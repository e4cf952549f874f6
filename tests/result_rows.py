"""Tables of results as studies make them, without any training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from emoreg.study.arms import ARMS


def stage_2(
    accuracies: Mapping[str, Sequence[float]],
    target: str = "digits",
    backbone: str = "resnet8",
    experience: str = "procedural",
    validation: Mapping[str, float] | None = None,
    **more: Any,
) -> list[dict[str, Any]]:
    """A finished run for each arm and seed (its place in the sequence); a NaN is a run that is still waiting.

    Args:
        accuracies: of each arm on the test split.
        target: of all runs.
        backbone: of all runs.
        experience: of those that have one.
        validation: each arm's accuracy on validation images, where it is not that on the test split; {} for none.
        more: further columns of finished runs.
    """
    rows = []
    for arm, of_arm in accuracies.items():
        for seed, accuracy in enumerate(of_arm):
            is_finished = not math.isnan(accuracy)
            lived = experience if ARMS[arm].pretext else None
            name = f"{target}-{backbone}-{arm}-{lived}-seed{seed}"
            row: dict[str, Any] = {
                "stage": 2,
                "status": "finished" if is_finished else "waiting",
                "error": None,
                "run": name,
            }
            row |= {"id": name, "folder": f"nowhere/{name}", "arm": arm, "target": target, "backbone": backbone}
            row |= {"experience": lived, "pretext": None, "seed": seed}
            if is_finished:
                row |= {"test_accuracy": accuracy, "test_ece": 0.02, "seconds": 10.0, "parameters": 1000, "flops": 5000}
                row |= {"images_per_second": 100.0, "lambda": None if arm == "backbone" else 0.4}
                row["validation_accuracy"] = (
                    accuracy if validation is None else validation[arm] if validation else math.nan
                )
                row |= more
            rows.append(row)
    return rows


def stage_1(
    pretext: str, cccs: Sequence[float], experience: str = "procedural", backbone: str = "resnet8"
) -> list[dict[str, Any]]:
    """A finished encoder for each seed, with its CCC on validation images."""
    rows = []
    for seed, ccc in enumerate(cccs):
        name = f"experience-{backbone}-{experience}-{pretext}-seed{seed}"
        row = {"stage": 1, "status": "finished", "error": None, "run": name, "id": name, "folder": f"nowhere/{name}"}
        row |= {"arm": None, "target": None, "backbone": backbone, "experience": experience, "pretext": pretext}
        rows.append(row | {"seed": seed, "validation_ccc": ccc, "validation_loss": 0.1, "seconds": 5.0})
    return rows


def results(*parts: list[dict[str, Any]]) -> pd.DataFrame:
    """One table of all."""
    return pd.DataFrame([row for rows in parts for row in rows])
