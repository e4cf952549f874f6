"""Tables of results as studies make them, without any training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from emoreg.report.old_arms import ARMS
from emoreg.study.columns import RunStatus


def stage_2(
    accuracies: Mapping[str, Sequence[float]],
    target: str = "digits",
    backbone: str = "resnet8",
    experience: str = "procedural",
    validation: Mapping[str, float] | None = None,
    **more: Any,
) -> list[dict[str, Any]]:
    """A finished run for each arm and seed; a NaN makes a run that is still waiting.

    Args:
        accuracies: test accuracies of each arm, in [0, 1], one per seed from 0 on.
        target: target of all runs.
        backbone: backbone of all runs.
        experience: experience of the arms that have one.
        validation: validation accuracy of each arm; None to use the test accuracies, {} for none.
        more: further columns of finished runs.
    """
    rows = []
    for arm, by_seed in accuracies.items():
        for seed, accuracy in enumerate(by_seed):
            is_finished = not math.isnan(accuracy)
            label = experience if ARMS[arm].pretext else None
            name = f"{target}-{backbone}-{arm}-{label}-seed{seed}"
            row: dict[str, Any] = {
                "stage": 2,
                "status": RunStatus.FINISHED if is_finished else RunStatus.WAITING,
                "error": None,
                "run": name,
            }
            row |= {"id": name, "folder": f"nowhere/{name}", "arm": arm, "target": target, "backbone": backbone}
            row |= {"experience": label, "pretext": None, "seed": seed}
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
        row = {
            "stage": 1,
            "status": RunStatus.FINISHED,
            "error": None,
            "run": name,
            "id": name,
            "folder": f"nowhere/{name}",
        }
        row |= {"arm": None, "target": None, "backbone": backbone, "experience": experience, "pretext": pretext}
        rows.append(row | {"seed": seed, "validation_ccc": ccc, "validation_loss": 0.1, "seconds": 5.0})
    return rows


def results(*parts: list[dict[str, Any]]) -> pd.DataFrame:
    """One table of all rows."""
    return pd.DataFrame([row for rows in parts for row in rows])
