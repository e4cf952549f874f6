"""The names of arms that this report still has, and a table of results in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Arm:
    """One thing that is compared."""

    label: str
    pretext: str | None = None
    rules_out: str = ""

    @property
    def is_control(self) -> bool:
        """Whether the regulated arms are judged by comparison with it."""
        return bool(self.rules_out)

    @property
    def is_regulated(self) -> bool:
        """Whether it is one of the method's own arms."""
        return self.pretext == "affect"


ARMS: Mapping[str, Arm] = {
    "backbone": Arm("Backbone"),
    "fixed": Arm("E-Reg", "affect"),
    "random": Arm("Rand-E-Reg", "affect"),
    "learned": Arm("Learn-E-Reg", "affect"),
    "random_learned": Arm("Rand-Learn-E-Reg", "affect"),
    "random_encoder": Arm("random_encoder", None, rules_out="capacity"),
    "shuffled_affect": Arm("shuffled_affect", "shuffled", rules_out="image statistics without emotion"),
    "neutral_pretext": Arm("neutral_pretext", "rotation", rules_out="any pre-training"),
    "ensemble": Arm("ensemble", None, rules_out="ensembling"),
}
TWINS = {"fresh": "random_encoder", "shuffled": "shuffled_affect", "rotation": "neutral_pretext"}


def with_arms(table: pd.DataFrame) -> pd.DataFrame:
    """A table of results with arms in place of modes and experiences; runs that are none of these are left out."""
    if "mode" not in table:
        return table
    is_stage_1 = table["stage"] == 1
    by_mode = table["mode"].replace({"none": "backbone"})
    arm = table["experience"].map(TWINS).where(~is_stage_1 & (table["experience"] != "affect"))
    arm = arm.fillna(by_mode.where(table["experience"].isna() | (table["experience"] == "affect")))
    old = table.assign(arm=arm, pretext=table["experience"].where(is_stage_1), experience=table["stimuli"])
    return old[is_stage_1 | old["arm"].isin(list(ARMS))]
