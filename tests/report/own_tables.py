"""Results of a user's own training loop, with arms named as in reports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

MEANS = {
    "Backbone": 0.70,
    "Ensemble": 0.71,
    "Learn-E-Reg": 0.76,
    **{f"Learn-E-Reg, {twin}": 0.72 for twin in ("fresh", "moments", "shuffled", "neutral", "rotation")},
}


def own_frame(means: Mapping[str, float] = MEANS, seeds: int = 8, **more: Any) -> pd.DataFrame:
    """A frame with a row for each arm and seed: arm, seed, accuracy, and further columns."""
    draw = np.random.default_rng(0)
    rows = [
        {"arm": arm, "seed": seed, "accuracy": round(mean + 0.003 * draw.normal(), 6), **more}
        for arm, mean in means.items()
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


def written(path: Path, text: str) -> Path:
    """Write a text to a file and return its path."""
    path.write_text(text, encoding="utf-8")
    return path
