"""The kinds of contrasts that are tested: what a regulated arm is compared with, and the words for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from emoreg.report.run_frame import TWINS

LABEL_TWINS, PRETEXT_TWINS = TWINS[:3], TWINS[3:]  # a label effect is against the first, emotion against all


@dataclass(frozen=True)
class ContrastKind:
    """A kind of contrast.

    Args:
        name: value in the column `contrast`.
        words: its name in a sentence.
        heading: column header, in two lines.
        colour: number of its colour in charts, an index into `analysis.ROLES`.
        reference: mode of the arm to beat; empty if twins are to be beaten.
        twins: the twins to beat, every one of them; the size is given against the hardest.
        beside: the reference in a sentence, if it is not Backbone.
        explains: what may explain a gain over Backbone that does not exceed this reference.
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
        """Whether it measures how good an arm is, not emotion; it is tested in both directions."""
        return not self.twins


PRACTICAL = (
    ContrastKind("gain", "the gain over Backbone", "Gain over\nBackbone", 0, reference="none"),
    ContrastKind(
        "over_ensemble",
        "the difference from the ensemble",
        "Over the\nensemble",
        7,
        reference="ensemble",
        beside="the ensemble of two plain networks",
        explains="ensembling",
    ),
    ContrastKind(
        "over_transfer",
        "the difference from transfer",
        "Over\ntransfer",
        9,
        reference="transfer",
        beside="transfer, the encoder fine-tuned alone",
        explains="transfer learning",
    ),
    ContrastKind(
        "regulation",
        "the regulation effect",
        "Regulation\neffect",
        10,
        reference="unregulated",
        beside="the same two networks trained apart",
        explains="averaging them without regulation",
    ),
)
OVER_TWINS = (
    ContrastKind("label", "the label effect", "Label\neffect", 1, twins=LABEL_TWINS),
    ContrastKind("emotion", "the emotion effect", "Emotion\neffect", 2, twins=TWINS),
)
KINDS: Mapping[str, ContrastKind] = {kind.name: kind for kind in (*PRACTICAL, *OVER_TWINS)}


def to_beat(contrast: str) -> int:
    """The number of arms that a contrast of this name has to beat: one, or each of several twins."""
    return max(1, len(KINDS[contrast].twins)) if contrast in KINDS else 1
