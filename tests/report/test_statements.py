"""Each tested contrast of an arm gets one statement, and the findings say just that."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from itertools import product

import pytest

from emoreg.report.analysis import Analysis, ContrastResult
from emoreg.report.contrast_kinds import KINDS
from emoreg.report.findings import findings
from emoreg.report.statements import DECIDED, Statement, statements_of
from emoreg.report.statistics import Interval
from emoreg.report.verdicts import Decision, Verdict, specific
from report.made_up import made_up
from result_rows import TWINS

# Of the label and the emotion effect of an arm: their verdicts, and what is stated of them. Faded: above at an early
# look, no longer shown. None: any verdict that is no result of a test. Other pairs cannot occur.
EFFECTS = {
    ("above", "above"): ("IMPLIED", "SPECIFIC_EFFECT"),
    ("above", "not_above"): ("LABEL_EFFECT", "NOT_SPECIFIC"),
    ("above", "faded"): ("LABEL_EFFECT", "FADED"),
    ("above", "none"): ("LABEL_EFFECT", "NO_VERDICT"),
    ("not_above", "not_above"): ("NO_LABEL_EFFECT", "IMPLIED"),
    ("not_above", "none"): ("NO_LABEL_EFFECT", "IMPLIED"),
    ("faded", "above"): ("FADED", "IMPLIED"),
    ("faded", "not_above"): ("FADED", "IMPLIED"),
    ("faded", "faded"): ("FADED", "FADED"),
    ("faded", "none"): ("FADED", "NO_VERDICT"),
    ("none", "not_above"): ("NO_VERDICT", "IMPLIED"),
    ("none", "none"): ("NO_VERDICT", "NO_VERDICT"),
    ("exploration", "exploration"): ("EXPLORED", "EXPLORED"),
}
# The same of the gain and the difference from the ensemble, whose statements depend on each other only in the last.
GAINS = {"above": "GAIN", "not_above": "NO_GAIN", "below": "LOSS", "faded": "FADED", "none": "NO_VERDICT"}
OVER_ENSEMBLE = {"above": "BETTER", "below": "WORSE", "faded": "FADED", "none": "NO_VERDICT"}
NOT_OVER_ENSEMBLE = dict.fromkeys(GAINS, "NOT_BETTER") | {"above": "MAY_EXPLAIN"}  # by the gain

OBSTACLES = [str(verdict) for verdict in Verdict if verdict not in (*DECIDED, Verdict.EXPLORATION)]
UNSAID = (Statement.IMPLIED,)
WORDS = {
    Statement.SPECIFIC_EFFECT: "An effect specific to emotion is found",
    Statement.LABEL_EFFECT: "A label effect is found; it is not shown to be specific to emotion",
    Statement.NOT_SPECIFIC: "may do as much",
    Statement.NO_LABEL_EFFECT: "No label effect is shown",
    Statement.GAIN: "Above Backbone",
    Statement.NO_GAIN: "Not shown to be above Backbone",
    Statement.LOSS: "Below Backbone",
    Statement.BETTER: "Above the ensemble",
    Statement.NOT_BETTER: "Not shown to be above the ensemble",
    Statement.MAY_EXPLAIN: "so ensembling may explain as much",
    Statement.WORSE: "Below the ensemble",
}
WORDS_OF_ANY = {  # with the contrast's name
    Statement.EXPLORED: "On validation images, ",
    Statement.FADED: "A difference found at an early look is no longer shown: ",
    Statement.NO_VERDICT: "No verdict on ",
}


@cache
def study() -> Analysis:
    return made_up(epochs=1, arms=("none", "ensemble", "learned", *(f"learned {twin}" for twin in TWINS)))


def contrast(name: str, verdict: str, high: float = 0.004) -> ContrastResult:
    """A contrast of the study's regulated arm with another verdict."""
    (arm,) = study().cells[0].regulated
    is_faded = verdict == "faded"
    missing = ("shuffled",) if verdict == Verdict.MISSING_TWIN else ()
    return dataclasses.replace(
        arm.contrasts[name],
        against="rotation" if name == "emotion" else arm.contrasts[name].against,
        size=Interval(high - 0.002, high - 0.005, high, (high - 0.002,) * 4),
        verdict=Verdict.ABOVE if is_faded else Verdict(verdict),
        p=0.3 if is_faded else 0.02,
        decided_at=3 if is_faded else 4,
        missing=missing,
    )


def findings_with(contrasts: Mapping[str, ContrastResult]) -> list[str]:
    """The findings if the regulated arm has these contrasts and no other that is tested."""
    (cell,) = study().cells
    arms = [
        dataclasses.replace(arm, contrasts={"accuracy": arm.contrasts["accuracy"], **contrasts})
        if arm.arm.is_regulated
        else arm
        for arm in cell.arms
    ]
    return findings(dataclasses.replace(study(), cells=(dataclasses.replace(cell, arms=tuple(arms)),)))


def said_of(name: str, sentences: list[str], of_name: tuple[Statement, ...]) -> list[Statement]:
    """What sentences say of a contrast, of which these statements can be made."""
    found = [one for one in of_name if one in WORDS and any(WORDS[one] in sentence for sentence in sentences)]
    for statement, start in WORDS_OF_ANY.items():
        if any(sentence.startswith(start) and KINDS[name].words in sentence for sentence in sentences):
            found.append(statement)
    return found


def each(verdict: str) -> list[str]:
    """The verdicts that a word of the tables stands for."""
    return OBSTACLES if verdict == "none" else [verdict]


PAIRS = [
    (label, emotion, Statement[of_label], Statement[of_emotion])
    for verdicts, (of_label, of_emotion) in EFFECTS.items()
    for label, emotion in product(*map(each, verdicts))
]


@pytest.mark.parametrize(("label", "emotion", "of_label", "of_emotion"), PAIRS)
def test_each_effect_gets_the_statement_of_the_table_and_the_findings_say_just_that(
    label: str, emotion: str, of_label: Statement, of_emotion: Statement
) -> None:
    contrasts = {"label": contrast("label", label), "emotion": contrast("emotion", emotion)}
    assert statements_of(contrasts) == {"label": of_label, "emotion": of_emotion}
    sentences = findings_with(contrasts)
    labels = (Statement.LABEL_EFFECT, Statement.NO_LABEL_EFFECT)
    assert said_of("label", sentences, labels) == [of_label] * (of_label not in UNSAID)
    emotions = (Statement.SPECIFIC_EFFECT, Statement.NOT_SPECIFIC)
    assert said_of("emotion", sentences, emotions) == [of_emotion] * (of_emotion not in UNSAID)


def test_no_pair_of_effects_is_passed_over_in_silence() -> None:
    assert all(of_label not in UNSAID or of_emotion not in UNSAID for *_, of_label, of_emotion in PAIRS)


def test_pairs_that_the_table_leaves_out_cannot_occur() -> None:
    for label in Verdict:
        emotion = specific(Decision(Verdict.ABOVE), Decision(label)).verdict
        assert (emotion is Verdict.ABOVE) == (label is Verdict.ABOVE) and emotion in (Verdict.ABOVE, label)
    left_out = set(product(("above", "not_above", "faded", "none"), repeat=2)) - set(EFFECTS)
    assert left_out == set(product(("not_above", "none"), ("above", "faded")))


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("ensemble", GAINS)
def test_each_practical_contrast_gets_one_statement_and_the_findings_say_just_that(gain: str, ensemble: str) -> None:
    effects = {name: contrast(name, "not_above") for name in ("label", "emotion")}
    of_gain = Statement[GAINS[gain]]
    over = Statement[NOT_OVER_ENSEMBLE[gain] if ensemble == "not_above" else OVER_ENSEMBLE[ensemble]]
    for first, second in product(each(gain), each(ensemble)):
        if Verdict.MISSING_TWIN in (first, second):  # references have no twins
            continue
        contrasts = {"gain": contrast("gain", first), "over_ensemble": contrast("over_ensemble", second)}
        found = statements_of(effects | contrasts)
        assert (found["gain"], found["over_ensemble"]) == (of_gain, over)
        sentences = findings_with(effects | contrasts)
        gains = (Statement.GAIN, Statement.NO_GAIN, Statement.LOSS)
        assert said_of("gain", sentences, gains) == [of_gain]
        others = (Statement.BETTER, Statement.NOT_BETTER, Statement.MAY_EXPLAIN, Statement.WORSE)
        assert said_of("over_ensemble", sentences, others) == [over]


def test_a_pretext_that_does_better_is_not_said_to_do_as_much() -> None:
    contrasts = {"label": contrast("label", "above"), "emotion": contrast("emotion", "not_above", high=-0.001)}
    assert statements_of(contrasts) == {"label": Statement.LABEL_EFFECT, "emotion": Statement.OUTDONE}


def test_an_exploration_without_a_common_seed_has_no_difference_to_state() -> None:
    explored = contrast("label", "exploration")
    empty = dataclasses.replace(explored, size=Interval(0.0, 0.0, 0.0, ()))
    both = statements_of({"label": explored, "emotion": empty})
    assert both == {"label": Statement.EXPLORED, "emotion": Statement.NOTHING_EXPLORED}
