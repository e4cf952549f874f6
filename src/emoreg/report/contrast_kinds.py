"""The kinds of contrasts that are tested: what a regulated arm is held against, and what that is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from emoreg.report.run_frame import TWINS

LABEL_TWINS, PRETEXT_TWINS = TWINS[:3], TWINS[3:]  # what the labels must beat; emotion must beat the others too


@dataclass(frozen=True)
class Kind:
    """A kind of contrast.

    Args:
        name: in the column `contrast`.
        words: in a sentence.
        heading: of a column, in two lines.
        colour: its number in charts, that of an arm (`analysis.ROLES`).
        reference: mode of the arm to beat; empty where these are twins.
        twins: to beat, every one of them; the size is told against the hardest.
        beside: what a gain over Backbone is held against too, in a sentence.
        explains: what a gain is put down to where it does not exceed that.
    """

    name: str
    words: str
    heading: str
    colour: int
    reference: str = ""
    twins: tuple[str, ...] = ()
    beside: str = ""
    explains: str = ""

    @property
    def is_practical(self) -> bool:
        """Whether it says how good an arm is and nothing of emotion; it is read in both directions."""
        return not self.twins


PRACTICAL = (
    Kind("gain", "the gain over Backbone", "Gain over\nBackbone", 0, reference="none"),
    Kind(
        "over_ensemble",
        "the difference to the ensemble",
        "Over the\nensemble",
        7,
        reference="ensemble",
        beside="the ensemble of two plain networks",
        explains="ensembling",
    ),
    Kind(
        "over_transfer",
        "the difference to transfer",
        "Over\ntransfer",
        9,
        reference="transfer",
        beside="transfer, the encoder trained on by itself",
        explains="transfer learning",
    ),
    Kind(
        "regulation",
        "the regulation effect",
        "Regulation\neffect",
        10,
        reference="unregulated",
        beside="the same two networks trained apart",
        explains="averaging them without any regulation",
    ),
)
OVER_TWINS = (
    Kind("label", "the label effect", "Label\neffect", 1, twins=LABEL_TWINS),
    Kind("emotion", "the emotion effect", "Emotion\neffect", 2, twins=TWINS),
)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (*PRACTICAL, *OVER_TWINS)}


def to_beat(contrast: str) -> int:
    """How many arms a contrast of this name has to beat: one, or every one of several twins."""
    return max(1, len(KINDS[contrast].twins)) if contrast in KINDS else 1
