"""Finds out whether the stimuli of a study are doses of one experience, which differ only in one amount."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emoreg.report.shared_settings import plain
from emoreg.study.columns import SETTINGS

if TYPE_CHECKING:
    import pandas as pd

# Settings of stage 1 that are amounts of experience, with the unit of an axis. Other numbers, such as a learning rate,
# change how the experience is used.
AMOUNTS: Mapping[str, str] = {
    "training.epochs": "Epochs of stage 1",
    "stimuli.share": "Share of the stimuli, %",
    "stimuli.limit": "Stimuli, at most",
    "stimuli.count": "Stimuli",
}
SCALES = {"stimuli.share": 100.0}
WHOLE = {"stimuli.share": 1.0}  # the meaning of null; for other settings null is not a number


@dataclass(frozen=True)
class Doses:
    """Stimuli that differ in one amount.

    Args:
        setting: setting of stage 1, a key of `AMOUNTS`.
        amounts: amounts by the label of the stimuli, ascending, in the unit of the axis.
    """

    setting: str
    amounts: Mapping[str, float]

    @property
    def unit(self) -> str:
        """The unit of the amounts."""
        return AMOUNTS[self.setting]


def doses_of(table: pd.DataFrame) -> Doses | None:
    """The doses of a table of results; None if its stimuli are no doses, or it lacks the settings of stage 1.

    Args:
        table: rows of both stages; those of affective encoders are used, finished or not.
    """
    rows = table[(table["stage"] == 1) & (table["experience"] == "affect") & table["stimuli"].notna()]
    columns = [str(name) for name in rows if str(name).startswith(SETTINGS)]
    by_label = {str(label): runs for label, runs in rows[columns].groupby(rows["stimuli"], sort=False)}
    if len(by_label) < 2:
        return None
    differing: dict[str, list[frozenset[Any]]] = {}
    for column in columns:
        name = column.removeprefix(SETTINGS)
        null = WHOLE.get(name)
        values = [
            frozenset(null if one is None else one for one in map(plain, runs[column])) for runs in by_label.values()
        ]
        if len(set(values)) > 1:
            differing[name] = values
    setting = next(iter(differing), "")
    if len(differing) != 1 or setting not in AMOUNTS or any(len(values) != 1 for values in differing[setting]):
        return None
    amounts = [next(iter(values)) for values in differing[setting]]
    if not all(isinstance(amount, int | float) and math.isfinite(amount) for amount in amounts):
        return None
    scaled = {label: SCALES.get(setting, 1.0) * amount for label, amount in zip(by_label, amounts, strict=True)}
    return Doses(setting, dict(sorted(scaled.items(), key=lambda each: each[1])))
