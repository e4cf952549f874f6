"""The findings of a study in sentences: the verdict first, a null result as plainly as an effect.

The sentences claim what the contrasts show and no more. A label effect is an effect of emotion only if the arm is also
above the neutral and the rotation twin; a gain over Backbone or the ensemble says nothing about emotion. Single twins
are not tested. They are mentioned only where an arm lies below them, as judged by the interval alone.
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

MOST_SEEDS = 100  # the largest number of seeds that is recommended
# Explanations that a difference from each twin rules out.
RULES_OUT = {
    "fresh": "capacity",
    "moments": "the scale of weights",
    "shuffled": "the images and training on them",
    "neutral": "this neutral label",
    "rotation": "pre-training by quarter turns",
}
ASKED = (*OVER_TWINS, *PRACTICAL)  # in the order of the sentences
DECIDED = (Verdict.ABOVE, Verdict.NOT_ABOVE, Verdict.BELOW)
SHORT_OF_SEEDS = (Verdict.TOO_FEW, Verdict.TIED)  # more seeds may lead to a verdict
COLLAPSED = "runs collapsed, so means over them say nothing"
POSITIVE_CONTROLS = "recipes/studies/positive-control-*.yaml"
AUTHORS_WORD = "That the arms differ in nothing else was not checked: it is the word of the table's author."


@dataclass(frozen=True)
class Case:
    """A tested contrast of a regulated arm."""

    name: str  # of the arm in a sentence, with its cell if there are several cells
    arm: ArmResult
    contrast: Contrast


def findings(analysis: Analysis) -> list[str]:
    """The findings in sentences, the most important first."""
    cases = _cases(analysis)
    faded = [case for case in cases if case.contrast.has_faded]
    # The verdict of an early look stands, but later sentences must not report it as what all seeds show.
    cases = [replace(case, contrast=replace(case.contrast, verdict=None)) if case in faded else case for case in cases]
    if not cases:
        nothing = "No regulated arm is finished, so there is nothing to compare."
        return [nothing, *relatives_findings(analysis), *unfinished(analysis)]
    by_contrast = {name: [case for case in cases if case.contrast.name == name] for name in KINDS}
    label, emotion = by_contrast["label"], by_contrast["emotion"]
    below = [
        *_below(emotion, PRETEXT_TWINS, "Another pretext on the same images did better than emotion"),
        *_below(label, LABEL_TWINS, "An encoder without the true labels did better"),
    ]
    verdict, *rest = [
        *_exploration(cases),
        *_faded(faded),
        *_specific(emotion),
        *_of_labels(label, emotion),
        *_no_effect(label),
        *_without_verdict(cases),
        *([FIRST_EDITION] if 1 in analysis.notes.editions else []),
        *_practical(by_contrast),
        *_lacking(cases),
        *relatives_findings(analysis),
        *_positive_control(label),
        *collapsed(analysis),
        *starved(analysis),
        *stage_one_findings(analysis.stage_1),
        *unlearned_rotation(analysis.stage_1),
        *stuck_lambdas(analysis),
        *unlike_networks(analysis),
        *_caveats(cases),
        *(f"{line}." for line in analysis.left_out),
        *analysis.notes.remarks,
        *unfinished(analysis),
    ]
    is_decided = any(case.contrast.verdict in DECIDED for case in cases)
    authors_word = [AUTHORS_WORD] if analysis.is_own and (is_decided or below) else []
    return [" ".join([verdict, *below, *authors_word]), *rest]


def in_points(contrast: Contrast) -> str:
    """A difference with its interval and p: "+0.40 points (95 % interval +0.10 to +0.70, p = 0.031)"."""
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
        return "not all results are finite"
    is_few = smallest_tail(size.n) > contrast.level / to_beat(contrast.name)
    return "too few seeds for an interval" if is_few else "the seeds agree too closely for an interval"


def _cases(analysis: Analysis) -> list[Case]:
    return [
        Case(name, arm, arm.contrasts[kind.name])
        for name, arm in named(analysis)
        if arm.arm.is_regulated
        for kind in ASKED
        if kind.name in arm.contrasts
    ]


def _exploration(cases: Sequence[Case]) -> list[str]:
    """Differences on validation images, which are not tested."""
    explored = [case for case in cases if case.contrast.verdict is Verdict.EXPLORATION]
    if not explored:
        return []
    explored = [case for case in explored if case.contrast.size.n]
    sentences = [
        "This is an exploration: its figures are from validation images and it gives no verdict; confirm what it "
        "suggests with other seeds."
    ]
    for kind in ASKED:
        to = " over the hardest twin" if kind.twins else ""
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
        now = f"{in_points(case.contrast)} with {case.contrast.size.n}"
        each.append(f"{name} of {case.name}, {case.contrast.verdict} with {at}, is {now}")
    return [f"A difference found at an early look is no longer shown: {listed(each)}."]


def _specific(emotion: Sequence[Case]) -> list[str]:
    found = [case for case in _falling(emotion) if case.contrast.verdict is Verdict.ABOVE]
    if not found:
        return []
    explanations = all_of([RULES_OUT[name] for name in TWINS], "or")
    return [
        f"An effect specific to emotion is found. Above every twin with {_seeds(found)}: {_over_hardest(found)}.",
        f"The effect is not explained by {explanations}.",
    ]


def _over_hardest(cases: Sequence[Case]) -> str:
    return listed(
        [f"{case.name}, {in_points(case.contrast)} over the hardest, {case.contrast.against}" for case in cases]
    )


def _of_labels(label: Sequence[Case], emotion: Sequence[Case]) -> list[str]:
    """Label effects that were not shown to be specific to emotion."""
    of_emotion = {id(case.arm): case.contrast for case in emotion}
    found, details = [], []
    for case in _falling(label):
        hardest = of_emotion[id(case.arm)]
        if case.contrast.verdict is not Verdict.ABOVE or hardest.verdict is Verdict.ABOVE:
            continue
        found.append(case)
        if hardest.verdict is Verdict.NOT_ABOVE and not _is_below_hardest(hardest):
            hardest = _hardest_pretext(case.arm, hardest)
            explanation = RULES_OUT[str(hardest.against)]
            details.append(f"{case.name}, {in_points(hardest)} over {hardest.against}, so {explanation} may do as much")
    if not found:
        return []
    sentences = [
        f"A label effect is found; it is not shown to be specific to emotion. Above {all_of(LABEL_TWINS)} with "
        f"{_seeds(found)}: {_over_hardest(found)}."
    ]
    if details:
        sentences.append(f"Against the twins that separate emotion from another label or task: {listed(details)}.")
    return sentences


def _hardest_pretext(arm: ArmResult, emotion: Contrast) -> Contrast:
    """The contrast with the pretext twin that leaves open whether a label effect is one of emotion.

    That is not a twin without the true labels, even if it is the hardest of all: the label effect has beaten it.
    """
    if emotion.against in PRETEXT_TWINS:
        return emotion
    return min((twin for twin in arm.twins if twin.against in PRETEXT_TWINS), key=lambda twin: twin.size.low)


def _below(cases: Sequence[Case], twins: Sequence[str], finding: str) -> list[str]:
    """The arms that lie below one of these twins, the largest difference first."""
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
        finding = f"For {all_of(arms)} {finding[0].lower()}{finding[1:]}"
    each = [f"{case.name} is below {twin.against}, {in_points(twin)}" for case, twin in found]
    uncorrected = ", not corrected for the number of arms" if len(cases) > 1 else ""
    return [f"{finding}, judged by intervals, not tested{uncorrected}: {listed(each)}."]


def _is_below_hardest(contrast: Contrast) -> bool:
    """Whether the interval, which allows for the choice of the hardest twin, lies below zero and can be relied on.

    A missing twin does not weaken the comparison with the others, but its verdict hides a coming look and a collapse.
    """
    has_all_else = contrast.verdict is Verdict.MISSING_TWIN and contrast.next_look is None and not contrast.collapsed
    return (contrast.verdict is Verdict.NOT_ABOVE or has_all_else) and contrast.size.high < 0


def _no_effect(label: Sequence[Case]) -> list[str]:
    null = _falling(case for case in label if case.contrast.verdict is Verdict.NOT_ABOVE)
    if not null:
        return []
    each = [f"{case.name}, {in_points(case.contrast)} over {case.contrast.against}" for case in null]
    names = "" if len(null) == len(label) else f" of {all_of([case.name for case in null])}"
    sentences = [
        f"No label effect{names} is shown with {_seeds(null)}.",
        f"Differences from the hardest of {all_of(LABEL_TWINS)}: {listed(each)}.",
    ]
    if smallest := [case.contrast.smallest for case in null if not math.isnan(case.contrast.smallest)]:
        low, high = decimal(100 * min(smallest)), decimal(100 * max(smallest))
        size = low if low == high else f"{low} to {high}"
        sentences.append(f"A label effect of {size} points would have been found with probability {WANTED}.")
    return sentences


def _without_verdict(cases: Sequence[Case]) -> list[str]:
    """A sentence for each reason why contrasts have no verdict."""
    decided_null = {id(c.arm) for c in cases if c.contrast.name == "label" and c.contrast.verdict is Verdict.NOT_ABOVE}
    groups: dict[tuple[Verdict, str], dict[str, dict[str, None]]] = {}
    for case in cases:
        contrast = case.contrast
        if contrast.verdict is None or (contrast.name == "emotion" and id(case.arm) in decided_null):
            continue  # without a label effect there is none of emotion
        if reason := _reason(case):
            names = groups.setdefault((contrast.verdict, reason), {})
            names.setdefault(case.name, {})[KINDS[contrast.name].words] = None
    sentences = []
    for (_, reason), names in groups.items():
        by_contrasts: dict[tuple[str, ...], list[str]] = {}
        for name, contrasts in names.items():
            by_contrasts.setdefault(tuple(contrasts), []).append(name)
        subjects = "; ".join(
            f"on {all_of(contrasts, 'or')} of {all_of(arms) if len(arms) <= 4 else count(len(arms), 'arm')}"
            for contrasts, arms in by_contrasts.items()
        )
        sentences.append(f"No verdict {subjects}: {reason}.")
    return sentences


def _reason(case: Case) -> str:
    """Why a contrast has no verdict; empty if it has one, or if another sentence says why."""
    contrast = case.contrast
    match contrast.verdict:
        case Verdict.MISSING_TWIN:
            # A verdict names one obstacle, and adding the twin would not undo the collapse.
            return f"{COLLAPSED}; {_missing(case.arm)}" if contrast.collapsed else _missing(case.arm)
        case Verdict.TOO_FEW:
            return _too_few(contrast)
        case Verdict.TIED:
            return "so many seeds agree that no test can pass; more test images or more seeds may separate them"
        case Verdict.BETWEEN_LOOKS:
            when = f"the next is at {count(contrast.next_look, 'seed')}" if contrast.next_look else "none is left"
            return f"verdicts are given only at the planned looks, and {when}"
        case Verdict.COLLAPSED:
            return COLLAPSED
    return ""


def _missing(arm: ArmResult) -> str:
    """The twins that an arm lacks for the label effect, and those that it lacks for the emotion effect alone."""
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


def _practical(by_contrast: Mapping[str, Sequence[Case]]) -> list[str]:
    """The practical contrasts, which say nothing about emotion and must not be worded as if they did."""
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
    """Compare arms with a reference other than Backbone.

    Args:
        kind: the kind of contrast with this reference.
        cases: the contrasts of this kind.
        above: ids of the arms above Backbone. Only these are reported as not shown to be above the reference.
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


def _positive_control(label: Sequence[Case]) -> list[str]:
    if all(case.contrast.verdict is not Verdict.NOT_ABOVE for case in label):
        return []
    return [
        "A null result means little unless the same method finds an effect where there must be one: see the positive "
        f"controls, {POSITIVE_CONTROLS}."
    ]


def _lacking(cases: Sequence[Case]) -> list[str]:
    """The tests that use fewer seeds than exist because an arm lacks some. With a plan, tests wait for these seeds."""
    words: dict[tuple[str, str], list[str]] = {}
    for case in cases:
        contrast = case.contrast
        if contrast.lacking and contrast.verdict in (*DECIDED, *SHORT_OF_SEEDS):
            number = contrast.size.n
            total = number + len({seed for _, seeds in contrast.lacking for seed in seeds})
            each = [f"{_short_name(arm, case)} is missing in {len(seeds)}" for arm, seeds in contrast.lacking]
            used = {0: "None", 1: "Only one"}.get(number, f"Only {number}")
            key = (f"{used} of {total} seeds {'is' if number == 1 else 'are'} in", f"{case.name}: {listed(each)}.")
            words.setdefault(key, []).append(KINDS[contrast.name].words)
    return [f"{few} {all_of(contrasts)} of {why}" for (few, why), contrasts in words.items()]


def _short_name(arm: Arm, case: Case) -> str:
    """The name of an arm that the arm of `case` is compared with, or of that arm itself."""
    if arm == case.arm.arm:
        return case.name
    return str(arm.experience) if arm.experience in TWINS else MODES[arm.mode]


def _caveats(cases: Sequence[Case]) -> list[str]:
    """Differences between the compared runs, seeds beyond the plan, and intervals over seeds alone."""
    sentences = []
    differing = dict.fromkeys(name for case in cases for name in case.contrast.mixed)
    if differing:
        arms = list(dict.fromkeys(case.name for case in cases if case.contrast.mixed))
        sentences.append(f"The runs compared for {listed(arms)} differ in {all_of(list(differing))}.")
        sentences.append("Where two runs of one seed do, that alone may explain their difference.")
    if extra := max(case.contrast.extra_seeds for case in cases):
        sentences.append(f"Seeds beyond the plan (up to {extra}) are in no estimate and no test.")
    over_seeds = [case for case in cases if case.contrast.size.n > 1 and not case.contrast.images]
    if others := dict.fromkeys(case.arm.outcome.words for case in over_seeds if not case.arm.outcome.is_counted):
        sentences.append(
            f"For {all_of(list(others))} there is no right or wrong per test image: the intervals are over seeds alone "
            "and hold only for these test images."
        )
    without = list(dict.fromkeys(case.name for case in over_seeds if case.arm.outcome.is_counted))
    if without:
        names = "" if len(without) == len({case.name for case in cases}) else f" of {listed(without)}"
        sentences.append(
            f"Right or wrong per test image is not known for all runs{names}, or is for different images: there the "
            "intervals are over seeds alone and hold only for these test images."
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
