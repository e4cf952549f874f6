"""What the findings state of each tested contrast of a regulated arm: one thing, decided here and worded in `findings`.

The label and the emotion effect are decided together, as there is no effect of emotion without one of the labels; the
differences from other references than Backbone are weighed against the gain over it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from emoreg.report.analysis import ContrastResult
from emoreg.report.contrast_kinds import PRACTICAL
from emoreg.report.verdicts import Verdict


class Statement(Enum):
    """What is stated of a tested contrast."""

    # Of any contrast without a verdict that stands.
    EXPLORED = auto()  # a difference on validation images
    NOTHING_EXPLORED = auto()  # an exploration in which the arms have no seed in common
    FADED = auto()  # an early look decided, and all seeds so far no longer show it
    NO_VERDICT = auto()  # with the reason
    # Of the label and the emotion effect.
    SPECIFIC_EFFECT = auto()  # emotion, above every twin
    LABEL_EFFECT = auto()  # not shown to be specific to emotion
    NOT_SPECIFIC = auto()  # emotion: another label or task may do as much as the arm with a label effect
    OUTDONE = auto()  # emotion: another label or task does better than the arm with a label effect
    NO_LABEL_EFFECT = auto()
    IMPLIED = auto()  # by what is stated of the other of the two
    # Of the gain over Backbone.
    GAIN = auto()
    NO_GAIN = auto()
    LOSS = auto()
    # Of the differences from other references.
    BETTER = auto()
    MAY_EXPLAIN = auto()  # the reference may explain the gain over Backbone
    NOT_BETTER = auto()  # not shown to be, and there is no gain to explain
    WORSE = auto()


DECIDED = (Verdict.ABOVE, Verdict.NOT_ABOVE, Verdict.BELOW)
OF_GAIN = {Verdict.ABOVE: Statement.GAIN, Verdict.NOT_ABOVE: Statement.NO_GAIN, Verdict.BELOW: Statement.LOSS}


def statements_of(contrasts: Mapping[str, ContrastResult]) -> dict[str, Statement]:
    """The statement on each tested contrast of a regulated arm, by name, in the order of the sentences.

    Args:
        contrasts: the arm's contrasts by name. Every regulated arm has a label and an emotion effect, and a practical
            contrast with every reference that was run.
    """
    emotion = contrasts["emotion"]
    label = standing(contrasts["label"])
    both = effects(label, standing(emotion), is_outdone=is_below_hardest(emotion))
    practical = {kind.name: standing(contrasts[kind.name]) for kind in PRACTICAL if kind.name in contrasts}
    has_gain = practical.get("gain") is Verdict.ABOVE
    return {
        **dict(zip(("label", "emotion"), both, strict=True)),
        **{name: of_reference(name, found, has_gain) for name, found in practical.items()},
    }


def standing(contrast: ContrastResult) -> Verdict | Statement:
    """The verdict of a contrast if it stands, which is one of DECIDED; otherwise the statement that replaces it."""
    if contrast.verdict is Verdict.EXPLORATION:
        return Statement.EXPLORED if contrast.size.n else Statement.NOTHING_EXPLORED
    if contrast.has_faded:
        return Statement.FADED
    return contrast.verdict if contrast.verdict in DECIDED else Statement.NO_VERDICT


def effects(label: Verdict | Statement, emotion: Verdict | Statement, is_outdone: bool) -> tuple[Statement, Statement]:
    """The statements on both effects of an arm, from their `standing` and whether it lies below its hardest twin."""
    match label, emotion:
        case Verdict.ABOVE, Verdict.ABOVE:
            return Statement.IMPLIED, Statement.SPECIFIC_EFFECT
        case Verdict.ABOVE, Verdict():
            return Statement.LABEL_EFFECT, Statement.OUTDONE if is_outdone else Statement.NOT_SPECIFIC
        case Verdict.ABOVE, Statement() as undecided:
            return Statement.LABEL_EFFECT, undecided
        case Verdict(), _:  # without a label effect there is none of emotion
            return Statement.NO_LABEL_EFFECT, Statement.IMPLIED
        case Statement() as undecided, Verdict():  # nor beside one that has faded, or has no verdict yet
            return undecided, Statement.IMPLIED
        case Statement() as first, Statement() as second:
            return first, second


def of_reference(name: str, found: Verdict | Statement, has_gain: bool) -> Statement:
    """The statement on a practical contrast, from its `standing` and whether the arm is above Backbone."""
    if isinstance(found, Statement):
        return found
    if name == "gain":
        return OF_GAIN[found]
    if found is Verdict.NOT_ABOVE:
        return Statement.MAY_EXPLAIN if has_gain else Statement.NOT_BETTER
    return Statement.BETTER if found is Verdict.ABOVE else Statement.WORSE


def is_below_hardest(contrast: ContrastResult) -> bool:
    """Whether the interval, which allows for the choice of the hardest twin, lies below zero and can be relied on.

    A missing twin does not weaken the comparison with the others, but its verdict hides a coming look and a collapse.
    """
    has_all_else = contrast.verdict is Verdict.MISSING_TWIN and contrast.next_look is None and not contrast.collapsed
    return (contrast.verdict is Verdict.NOT_ABOVE or has_all_else) and contrast.size.high < 0
