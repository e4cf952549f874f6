"""The figure by which each run of a table is compared, and its columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emoreg.config.outcomes import ACCURACY, OUTCOMES, Outcome
from emoreg.config.schema import task_of
from emoreg.study.columns import SETTINGS

if TYPE_CHECKING:
    import pandas as pd

LABELS = f"{SETTINGS}target.labels"


def columns_of(outcome: Outcome) -> tuple[str, str, str]:
    """The columns of an outcome: in a table of the user's own loop, on the test split, on validation images."""
    return outcome.name, f"test_{outcome.name}", f"validation_{outcome.name}"


def outcomes_of(frame: pd.DataFrame) -> list[Outcome]:
    """The outcome of each row, by the task of its target. Rows without settings have the first one in the table."""
    measured = [
        outcome
        for outcome in OUTCOMES.values()
        if any(name in frame and frame[name].notna().any() for name in columns_of(outcome))
    ]
    first = measured[0] if measured else ACCURACY
    labels = frame[LABELS].tolist() if LABELS in frame else [None] * len(frame)
    return [OUTCOMES[task_of(each)] if isinstance(each, str) else first for each in labels]
