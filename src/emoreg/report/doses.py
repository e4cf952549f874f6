"""Whether the stimuli of a study are doses of one experience: alike in all but one amount."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emoreg.runs.catalogue import is_missing
from emoreg.study.columns import SETTINGS

if TYPE_CHECKING:
    import pandas as pd

# Settings of stage 1 that say how much of an experience an encoder has, with the unit of an axis. Other numbers, such
# as a learning rate, change what is done with it.
AMOUNTS: Mapping[str, str] = {
    "training.epochs": "Epochs of stage 1",
    "stimuli.share": "Share of the stimuli, %",
    "stimuli.limit": "Stimuli, at most",
    "stimuli.count": "Stimuli",
}
SCALES = {"stimuli.share": 100.0}
WHOLE = {"stimuli.share": 1.0}  # what null means; elsewhere it is no number


@dataclass(frozen=True)
class Doses:
    """Stimuli that differ in one amount.

    Args:
        setting: of stage 1, a key of `AMOUNTS`.
        amounts: by the label of the stimuli, ascending, in the unit of the axis.
    """

    setting: str
    amounts: Mapping[str, float]

    @property
    def unit(self) -> str:
        """What the amounts are."""
        return AMOUNTS[self.setting]


def doses_of(table: pd.DataFrame) -> Doses | None:
    """The doses of a table of results; None if its stimuli are no doses, or it has the settings of no stage 1.

    Args:
        table: of both stages; the rows of affective encoders are used, finished or not.
    """
    rows = table[(table["stage"] == 1) & (table["experience"] == "affect") & table["stimuli"].notna()]
    columns = [str(name) for name in rows if str(name).startswith(SETTINGS)]
    by_label = {str(label): own for label, own in rows[columns].groupby(rows["stimuli"], sort=False)}
    if len(by_label) < 2:
        return None
    differing: dict[str, list[frozenset[Any]]] = {}
    for column in columns:
        name = column.removeprefix(SETTINGS)
        values = [frozenset(_plain(value, WHOLE.get(name)) for value in own[column]) for own in by_label.values()]
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


def _plain(value: Any, missing: Any = None) -> Any:
    """Of whatever a column holds, with one value for all that is missing."""
    if is_missing(value):
        return missing
    return value.item() if hasattr(value, "item") else value if isinstance(value, str | int | float) else str(value)
