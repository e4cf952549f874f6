"""What a study found, in sentences: the verdict first, a null result as plainly as an effect.

The sentences claim what the contrasts show and no more. An effect of the labels is one of emotion only if it exceeds
the neutral and the rotation twin too; a gain over Backbone or the ensemble says nothing of emotion at all. Of single
twins, which are not tested, it is said only where an arm lies below them, and by the interval alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from emoreg.report.analysis import Analysis, ArmResult, Contrast
from emoreg.report.contrast_kinds import KINDS, LABEL_TWINS, OVER_TWINS, PRACTICAL, PRETEXT_TWINS, Kind, to_beat
from emoreg.report.formatting import all_of, count, coverage, decimal, listed, points
from emoreg.report.method_notes import FIRST_EDITION
from emoreg.report.power import WANTED
from emoreg.report.relatives_findings import relatives_findings
from emoreg.report.run_findings import collapsed, named, starved, stuck_lambdas, unfinished, unlike_networks
from emoreg.report.run_frame import MODES, TWINS, Arm
from emoreg.report.stage_one_findings import stage_one_findings, unlearned_rotation
from emoreg.report.statistics import smallest_tail
from emoreg.report.verdicts import Verdict

MOST_SEEDS = 100  # that a study is told to run
# What a difference to each twin is not explained by.
RULES_OUT = {
    "fresh": "capacity",
    "moments": "the scale of weights",
    "shuffled": "the images and the act of training",
    "neutral": "this neutral label",
    "rotation": "pre-training by quarter turns",
}
ASKED = (*OVER_TWINS, *PRACTICAL)  # in the order of the sentences
DECIDED = (Verdict.ABOVE, Verdict.NOT_ABOVE, Verdict.BELOW)
SHORT_OF_SEEDS = (Verdict.TOO_FEW, Verdict.TIED)  # which more seeds may mend
COLLAPSED = "runs collapsed, and a mean over them says nothing"
POSITIVE_CONTROLS = "recipes/studies/positive-control-*.yaml"

AUTHORS_WORD = "That the arms differ in nothing else is the word of the table's author."


@dataclass(frozen=True)
class Case:
    """A tested contrast of a regulated arm."""

    name: str  # of the arm in a sentence, with its cell only where there are several
    arm: ArmResult
    contrast: Contrast


def findings(analysis: Analysis) -> list[str]:
    """What was found, in sentences, the most important first."""
    cases = _cases(analysis)
    faded = [case for case in cases if case.contrast.has_faded]
    # What an early look found stands, but is not told as what all seeds show.
    cases = [replace(case, contrast=replace(case.contrast, verdict=None)) if case in faded else case for case in cases]
    if not cases:
        nothing = "No regulated arm is finished, so there is nothing to compare."
        return [nothing, *relatives_findings(analysis), *unfinished(analysis)]
    by_contrast = {name: [case for case in cases if case.contrast.name == name] for name in KINDS}
    label, emotion = by_contrast["label"], by_contrast["emotion"]
    below = [
        *_below(emotion, PRETEXT_TWINS, "Another pretext on the same images served better than emotion"),
        *_below(label, LABEL_TWINS, "An encoder without the true labels served better"),
    ]
    verdict, *rest = [
        *_exploration(cases),
        *_faded(faded),
        *_specific(emotion),
        *_of_labels(label, emotion),
        *_no_effect(label),
        *_without_verdict(cases),
        *_edition(analysis),
        *_practical(by_contrast),
        *_lacking(cases),
        *relatives_findings(analysis),
        *_need_of_a_positive_control(label),
        *collapsed(analysis),
        *starved(analysis),
        *stage_one_findings(analysis.stage_1),
        *unlearned_rotation(analysis.stage_1),
        *stuck_lambdas(analysis),
        *unlike_networks(analysis),
        *_mixed(cases),
        *(f"{line}." for line in analysis.left_out),
        *analysis.notes.remarks,
        *unfinished(analysis),
    ]
    is_decided = any(case.contrast.verdict in DECIDED for case in cases)
    authors_word = [AUTHORS_WORD] if analysis.is_own and (is_decided or below) else []
    return [" ".join([verdict, *below, *authors_word]), *rest]


def in_points(contrast: Contrast) -> str:
    """A difference in words: "+0.40 points (95 % interval +0.10 to +0.70, p = 0.031)"."""
    remarks = [_limits(contrast)]
    if not math.isnan(contrast.p):
        remarks.append("p < 0.001" if contrast.p < 0.001 else f"p = {contrast.p:.3f}")
    return f"{points(contrast.size.mean)} points ({', '.join(remarks)})"


def _limits(contrast: Contrast) -> str:
    """The interval, or why there is none."""
    size = contrast.size
    if not math.isnan(size.low):
        return f"{coverage(contrast.level)} interval {points(size.low)} to {points(size.high)}"
    if size.n == 1:
        return "one seed, no interval"
    if math.isnan(size.mean):
        return "not all runs are finite"
    is_few = smallest_tail(size.n) > contrast.level / to_beat(contrast.name)
    return "too few seeds for an interval" if is_few else "the seeds agree too much for an interval"


def _cases(analysis: Analysis) -> list[Case]:
    return [
        Case(name, arm, arm.contrasts[kind.name])
        for name, arm in named(analysis)
        if arm.arm.is_regulated
        for kind in ASKED
        if kind.name in arm.contrasts
    ]


def _exploration(cases: Sequence[Case]) -> list[str]:
    """Sizes on validation images, for what is no test."""
    explored = [case for case in cases if case.contrast.verdict is Verdict.EXPLORATION]
    if not explored:
        return []
    explored = [case for case in explored if case.contrast.size.n]
    sentences = [
        "This is an exploration: its figures are of validation images and it gives no verdict; what it suggests has "
        "to be confirmed with other seeds."
    ]
    for kind in ASKED:
        to = " to the hardest of its twins" if kind.twins else ""
        if sizes := [case for case in _falling(explored) if case.contrast.name == kind.name]:
            sentences.append(f"On validation images, {kind.words}{to}: {_sizes(sizes)}.")
    if not explored:
        sentences.append(
            "No regulated arm has a seed in common with Backbone or a twin, so there is nothing to compare."
        )
    return sentences


def _faded(faded: Sequence[Case]) -> list[str]:
    if not faded:
        return []
    each = []
    for case in faded:
        name, at = KINDS[case.contrast.name].words, count(case.contrast.decided_at or 0, "seed")
        now = f"{case.contrast.size.n} at {in_points(case.contrast)}"
        each.append(f"{name} of {case.name}, {case.contrast.verdict} with {at}, with {now}")
    return [f"What an early look found is not seen with the seeds since: {listed(each)}."]


def _specific(emotion: Sequence[Case]) -> list[str]:
    found = [case for case in _falling(emotion) if case.contrast.verdict is Verdict.ABOVE]
    if not found:
        return []
    each = [f"{case.name}, {in_points(case.contrast)} over the hardest, {case.contrast.against}" for case in found]
    explanations = all_of([RULES_OUT[name] for name in TWINS], "or")
    return [
        f"An effect specific to emotion is found. Above every twin with {_seeds(found)}: {listed(each)}.",
        f"The effect is not explained by {explanations}.",
    ]


def _of_labels(label: Sequence[Case], emotion: Sequence[Case]) -> list[str]:
    """Effects of the labels that were not shown to be of emotion, as what they are."""
    of_emotion = {(case.name, id(case.arm)): case.contrast for case in emotion}
    found, details = [], []
    for case in _falling(label):
        hardest = of_emotion[case.name, id(case.arm)]
        if case.contrast.verdict is not Verdict.ABOVE or hardest.verdict is Verdict.ABOVE:
            continue
        found.append(case)
        if hardest.verdict is Verdict.NOT_ABOVE and not _is_below_hardest(hardest):
            hardest = _hardest_pretext(case.arm, hardest)
            details.append(
                f"{case.name} is at {in_points(hardest)} to {hardest.against}, so {RULES_OUT[str(hardest.against)]} "
                "may do as much"
            )
    if not found:
        return []
    each = [f"{case.name}, {in_points(case.contrast)} over the hardest, {case.contrast.against}" for case in found]
    return [
        f"The labels did something; it is not shown to be specific to emotion. Above {all_of(LABEL_TWINS)} with "
        f"{_seeds(found)}: {listed(each)}.",
        *([f"Of the twins that could tell emotion from another label or task, {listed(details)}."] if details else []),
    ]


def _hardest_pretext(arm: ArmResult, emotion: Contrast) -> Contrast:
    """The contrast to the twin that leaves open whether a label effect is of emotion: not one that labels do beat."""
    pretexts = [twin for twin in arm.twins if twin.against in PRETEXT_TWINS]
    if emotion.against not in LABEL_TWINS or not pretexts:
        return emotion
    return min(pretexts, key=lambda twin: twin.size.low)


def _below(cases: Sequence[Case], twins: Sequence[str], served: str) -> list[str]:
    """Which of these twins arms lie below, the largest difference first."""
    found = [
        (case, twin)
        for case in cases
        if _is_below_hardest(case.contrast)
        for twin in case.arm.twins
        if twin.against in twins and twin.size.high < 0
    ]
    if not found:
        return []
    found.sort(key=lambda pair: pair[1].size.mean)
    arms = list(dict.fromkeys(case.name for case, _ in found))
    if len(arms) < len(cases):
        served = f"For {all_of(arms)} {served[0].lower()}{served[1:]}"
    each = [f"{case.name} is below {twin.against}, {in_points(twin)}" for case, twin in found]
    uncorrected = ", uncorrected for the number of arms" if len(cases) > 1 else ""
    return [f"{served}, by intervals without a test{uncorrected}: {listed(each)}."]


def _is_below_hardest(contrast: Contrast) -> bool:
    """Whether its interval, which allows for the choice of the hardest twin, lies below zero and may be relied on.

    A missing twin says nothing against those that are there; but as a verdict it hides a look to come and a collapse.
    """
    has_all_else = contrast.verdict is Verdict.MISSING_TWIN and contrast.next_look is None and not contrast.collapsed
    return (contrast.verdict is Verdict.NOT_ABOVE or has_all_else) and contrast.size.high < 0


def _no_effect(label: Sequence[Case]) -> list[str]:
    null = _falling(case for case in label if case.contrast.verdict is Verdict.NOT_ABOVE)
    if not null:
        return []
    each = [f"{case.name}, {in_points(case.contrast)} to {case.contrast.against}" for case in null]
    of = "" if len(null) == len(label) else f" of {all_of([case.name for case in null])}"
    return [
        f"No label effect{of} is shown with {_seeds(null)}.",
        f"The differences to the hardest of {all_of(LABEL_TWINS)}: {listed(each)}.",
        *_could_be_found(null),
    ]


def _could_be_found(cases: Sequence[Case]) -> list[str]:
    """What a test that found nothing would have found."""
    smallest = [case.contrast.smallest for case in cases if not math.isnan(case.contrast.smallest)]
    if not smallest:
        return []
    low, high = decimal(100 * min(smallest)), decimal(100 * max(smallest))
    to = low if low == high else f"{low} to {high}"
    return [f"A label effect of {to} points would have been found with a probability of {WANTED}."]


def _without_verdict(cases: Sequence[Case]) -> list[str]:
    """One sentence for each reason, with what it concerns."""
    decided_null = {id(c.arm) for c in cases if c.contrast.name == "label" and c.contrast.verdict is Verdict.NOT_ABOVE}
    groups: dict[tuple[Verdict, str], dict[str, dict[str, None]]] = {}
    for case in cases:
        contrast = case.contrast
        if contrast.verdict is None or (contrast.name == "emotion" and id(case.arm) in decided_null):
            continue  # what is no effect of the labels is none of emotion
        if reason := _reason(case):
            names = groups.setdefault((contrast.verdict, reason), {})
            names.setdefault(case.name, {})[KINDS[contrast.name].words] = None
    sentences = []
    for (_, reason), names in groups.items():
        by_what: dict[tuple[str, ...], list[str]] = {}
        for name, whats in names.items():
            by_what.setdefault(tuple(whats), []).append(name)
        what = "; ".join(
            f"on {all_of(whats, 'or')} of {all_of(arms) if len(arms) <= 4 else count(len(arms), 'arm')}"
            for whats, arms in by_what.items()
        )
        sentences.append(f"No verdict {what}: {reason}.")
    return sentences


def _reason(case: Case) -> str:
    """Why a contrast has no verdict; empty if it has one, or if that is said elsewhere."""
    contrast = case.contrast
    match contrast.verdict:
        case Verdict.MISSING_TWIN:
            # A verdict names one obstacle, and a twin more would not mend a collapse.
            return f"{COLLAPSED}; {_missing(case.arm)}" if contrast.collapsed else _missing(case.arm)
        case Verdict.TOO_FEW:
            return _too_few(contrast)
        case Verdict.TIED:
            return "so many seeds agree that no test can pass; more test images or more seeds would tell them apart"
        case Verdict.BETWEEN_LOOKS:
            when = f"the next is at {count(contrast.next_look, 'seed')}" if contrast.next_look else "none is left"
            return f"the study looks only at the numbers of seeds that it planned, and {when}"
        case Verdict.COLLAPSED:
            return COLLAPSED
    return ""


def _missing(arm: ArmResult) -> str:
    """The twins that an arm lacks: those of its labels, and those that it lacks for emotion alone."""
    label, emotion = arm.contrasts["label"].missing, arm.contrasts["emotion"].missing
    further = [name for name in emotion if name not in label]
    missing = [*label] or further
    text = f"the twin{'s' if len(missing) > 1 else ''} {all_of(missing)} {'are' if len(missing) > 1 else 'is'} missing"
    return f"{text}, and for emotion also {all_of(further)}" if label and further else text


def _too_few(contrast: Contrast) -> str:
    numbers = range(contrast.size.n + 1, MOST_SEEDS)
    needed = next((n for n in numbers if smallest_tail(n) * max(contrast.family, 1) <= contrast.level), MOST_SEEDS)
    arms = f" of {contrast.family} arms" if contrast.family > 1 else ""
    return f"with {count(contrast.size.n, 'seed')} no test{arms} can pass; it takes at least {needed}"


def _edition(analysis: Analysis) -> list[str]:
    return [FIRST_EDITION] if 1 in analysis.notes.editions else []


def _practical(by_contrast: Mapping[str, Sequence[Case]]) -> list[str]:
    """What a user wants to know; it says nothing of emotion, and is not called so."""
    gains = by_contrast["gain"]
    sentences = [] if gains else ["Backbone was not run with the regulated arms, so there is no gain to report."]
    for verdict, side in (
        (Verdict.ABOVE, "Above Backbone"),
        (Verdict.NOT_ABOVE, "Not shown to be above Backbone"),
        (Verdict.BELOW, "Below Backbone"),
    ):
        if found := [case for case in _falling(gains) if case.contrast.verdict is verdict]:
            sentences.append(f"{side} with {_seeds(found)}: {_sizes(found)}.")
    above = {id(case.arm) for case in gains if case.contrast.verdict is Verdict.ABOVE}
    for kind in PRACTICAL[1:]:
        sentences += _beside(kind, by_contrast[kind.name], above)
    if above and not by_contrast["over_ensemble"] and not by_contrast["regulation"]:
        sentences.append("The ensemble of two plain networks was not run, so ensembling may explain the gain.")
    return sentences


def _beside(kind: Kind, cases: Sequence[Case], above: set[int]) -> list[str]:
    """How arms stand to a reference other than Backbone.

    Args:
        kind: of the contrasts to the reference.
        cases: these contrasts.
        above: ids of the arms that are above Backbone. Of these alone it is said that they are not shown to be above.
    """
    sentences = []
    for verdict, side, meaning in (
        (Verdict.ABOVE, f"Above {kind.beside}", ""),
        (Verdict.NOT_ABOVE, f"But not shown to be above {kind.beside}", f", so {kind.explains} may explain as much"),
        (Verdict.BELOW, f"Below {kind.beside}", ""),
    ):
        found = [case for case in _falling(cases) if case.contrast.verdict is verdict]
        if verdict is Verdict.NOT_ABOVE:
            found = [case for case in found if id(case.arm) in above]
        if found:
            sentences.append(f"{side}: {_sizes(found)}{meaning}.")
    return sentences


def _need_of_a_positive_control(label: Sequence[Case]) -> list[str]:
    if all(case.contrast.verdict is not Verdict.NOT_ABOVE for case in label):
        return []
    return [
        "That no effect is shown means little unless the same method finds one where one must be: see the positive "
        f"controls, {POSITIVE_CONTROLS}."
    ]


def _lacking(cases: Sequence[Case]) -> list[str]:
    """Which tests are of fewer seeds than there are, as arms of theirs lack some; with a plan they wait for them."""
    words: dict[tuple[str, str], list[str]] = {}
    for case in cases:
        contrast = case.contrast
        if contrast.lacking and contrast.verdict in (*DECIDED, *SHORT_OF_SEEDS):
            there = contrast.size.n + len({seed for _, seeds in contrast.lacking for seed in seeds})
            each = [f"{_short_name(arm, case)} is missing in {len(seeds)}" for arm, seeds in contrast.lacking]
            number = contrast.size.n
            only = "None" if number == 0 else "Only one" if number == 1 else f"Only {number}"
            key = (f"{only} of {there} seeds {'is' if number == 1 else 'are'} in", f"{case.name}: {listed(each)}.")
            words.setdefault(key, []).append(KINDS[contrast.name].words)
    return [f"{few} {all_of(what)} of {why}" for (few, why), what in words.items()]


def _short_name(arm: Arm, case: Case) -> str:
    """What an arm is called beside the one of a case."""
    return case.name if arm == case.arm.arm else str(arm.experience) if arm.experience in TWINS else MODES[arm.mode]


def _mixed(cases: Sequence[Case]) -> list[str]:
    """What makes runs of one comparison unlike, and what an interval leaves out."""
    sentences = []
    differing = dict.fromkeys(name for case in cases for name in case.contrast.mixed)
    if differing:
        arms = list(dict.fromkeys(case.name for case in cases if case.contrast.mixed))
        sentences.append(f"The runs compared for {listed(arms)} differ in {all_of(list(differing))}.")
        sentences.append("Where two runs of one seed do, what sets them apart may be that alone.")
    if extra := max(case.contrast.extra_seeds for case in cases):
        sentences.append(f"Seeds beyond the plan (up to {extra}) are in no estimate and no test.")
    over_seeds = [case for case in cases if case.contrast.size.n > 1 and not case.contrast.images]
    if others := dict.fromkeys(case.arm.outcome.words for case in over_seeds if not case.arm.outcome.is_counted):
        sentences.append(
            f"Of {all_of(list(others))} there is no right or wrong per test image: the intervals are over seeds alone, "
            "and hold for these very test images."
        )
    without = list(dict.fromkeys(case.name for case in over_seeds if case.arm.outcome.is_counted))
    if without:
        names = "" if len(without) == len({case.name for case in cases}) else f" of {listed(without)}"
        sentences.append(
            f"Right or wrong per test image is not known for all runs{names}, or is of other images: there the "
            "intervals are over seeds alone, and hold for these very test images."
        )
    return sentences


def _sizes(cases: Iterable[Case]) -> str:
    return listed([f"{case.name}, {in_points(case.contrast)}" for case in cases])


def _falling(cases: Iterable[Case]) -> list[Case]:
    """The largest mean difference first."""
    return sorted(cases, key=lambda case: -case.contrast.size.mean)


def _seeds(cases: Sequence[Case]) -> str:
    numbers = [case.contrast.size.n for case in cases]
    low, high = min(numbers), max(numbers)
    return count(high, "seed") if low == high else f"{low} to {high} seeds"
