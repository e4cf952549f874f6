"""By which figure each run of a table is compared, and the columns in which it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emoreg.config.outcomes import ACCURACY, OUTCOMES, Outcome
from emoreg.config.schema import task_of
from emoreg.study.columns import SETTINGS

if TYPE_CHECKING:
    import pandas as pd

LABELS = f"{SETTINGS}target.labels"


def columns_of(outcome: Outcome) -> tuple[str, str, str]:
    """Its columns: in a table of an own loop, on the test split, on validation images."""
    return outcome.name, f"test_{outcome.name}", f"validation_{outcome.name}"


def outcomes_of(frame: pd.DataFrame) -> list[Outcome]:
    """By what each row of stage 2 is compared: as its target asks; without settings, the first that the table has."""
    measured = [
        outcome
        for outcome in OUTCOMES.values()
        if any(name in frame and frame[name].notna().any() for name in columns_of(outcome))
    ]
    first = measured[0] if measured else ACCURACY
    labels = frame[LABELS].tolist() if LABELS in frame else [None] * len(frame)
    return [OUTCOMES[task_of(asked)] if isinstance(asked, str) else first for asked in labels]
