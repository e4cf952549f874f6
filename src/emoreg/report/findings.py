"""The findings of a study in sentences: the verdict first, a null result as plainly as an effect.

What is said of each tested contrast is decided in `statements`; here are the words. The sentences claim what the
contrasts show and no more. A label effect is an effect of emotion only if the arm is also above the neutral and the
rotation twin; a gain over Backbone or the ensemble says nothing about emotion. Single twins are not tested. They are
mentioned only where an arm lies below them, as judged by the interval alone.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from emoreg.report.analysis import Analysis, ArmResult, ContrastResult
from emoreg.report.contrast_kinds import KINDS, LABEL_TWINS, OVER_TWINS, PRACTICAL, PRETEXT_TWINS, to_beat
from emoreg.report.formatting import all_of, count, coverage, decimal, listed, points
from emoreg.report.looks import MOST_ARMS, possible_looks
from emoreg.report.method_notes import FIRST_EDITION
from emoreg.report.power import WANTED
from emoreg.report.relatives_findings import relatives_findings
from emoreg.report.run_findings import collapsed, named, starved, stuck_lambdas, unfinished, unlike_networks
from emoreg.report.run_frame import MODES, TWINS, Arm
from emoreg.report.stage_one_findings import stage_one_findings, unlearned_rotation
from emoreg.report.statements import DECIDED, Statement, is_below_hardest, statements_of
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
SHORT_OF_SEEDS = (Verdict.TOO_FEW, Verdict.TIED)  # more seeds may lead to a verdict
COLLAPSED = "runs collapsed, so means over them say nothing"
POSITIVE_CONTROL = (
    "A null result means little unless the same method finds an effect where there must be one: see the positive "
    "controls, recipes/studies/positive-control-*.yaml."
)
AUTHORS_WORD = "That the arms differ in nothing else was not checked: it is the word of the table's author."


@dataclass(frozen=True)
class StatedContrast:
    """The result of a tested contrast of a regulated arm, with the statement on it."""

    name: str  # of the arm in a sentence, with its cell if there are several cells
    arm: ArmResult
    result: ContrastResult
    statement: Statement


def findings(analysis: Analysis) -> list[str]:
    """The findings in sentences, the most important first."""
    contrasts = _stated(analysis)
    if not contrasts:
        nothing = "No regulated arm is finished, so there is nothing to compare."
        return [nothing, *relatives_findings(analysis), *unfinished(analysis)]
    said = {statement: [one for one in contrasts if one.statement is statement] for statement in Statement}
    label, emotion = ([one for one in contrasts if one.result.name == name] for name in ("label", "emotion"))
    below = [
        *_below(emotion, PRETEXT_TWINS, "Another pretext on the same images did better than emotion"),
        *_below(label, LABEL_TWINS, "An encoder without the true labels did better"),
    ]
    has_others = any(one.result.verdict is not Verdict.EXPLORATION for one in contrasts)
    exploration = _exploration(said[Statement.EXPLORED], said[Statement.NOTHING_EXPLORED], has_others)
    verdict, *rest = [
        *([] if has_others else exploration),
        *_faded(said[Statement.FADED]),
        *_specific_effect(said[Statement.SPECIFIC_EFFECT]),
        *_label_effect(said[Statement.LABEL_EFFECT], said[Statement.NOT_SPECIFIC]),
        *_no_label_effect(said[Statement.NO_LABEL_EFFECT], len(label)),
        *_without_verdict(said[Statement.NO_VERDICT]),
        *([FIRST_EDITION] if 1 in analysis.notes.editions else []),
        *_practical(said, {one.result.name for one in contrasts}),
        *(exploration if has_others else []),
        *_lacking(contrasts),
        *relatives_findings(analysis),
        *([POSITIVE_CONTROL] if said[Statement.NO_LABEL_EFFECT] else []),
        *collapsed(analysis),
        *starved(analysis),
        *stage_one_findings(analysis.stage_1),
        *unlearned_rotation(analysis.stage_1),
        *stuck_lambdas(analysis),
        *unlike_networks(analysis),
        *_caveats(contrasts),
        *(f"{line}." for line in analysis.left_out),
        *analysis.notes.remarks,
        *unfinished(analysis),
    ]
    is_decided = any(one.result.verdict in DECIDED and one.statement is not Statement.FADED for one in contrasts)
    authors_word = [AUTHORS_WORD] if analysis.is_own and (is_decided or below) else []
    return [" ".join([verdict, *below, *authors_word]), *rest]


def in_points(contrast: ContrastResult) -> str:
    """A difference with its interval and p: "+0.40 points (95 % interval +0.10 to +0.70, p = 0.031)".

    If an earlier look decided and its difference is still shown, the number of seeds at that look follows.
    """
    remarks = [_limits(contrast)]
    if not math.isnan(contrast.p):
        remarks.append("p < 0.001" if contrast.p < 0.001 else f"p = {contrast.p:.3f}")
    if contrast.found_at is not None and not contrast.has_faded:
        remarks.append(f"found at {count(contrast.found_at, 'seed')}")
    return f"{points(contrast.size.mean)} points ({', '.join(remarks)})"


def _limits(contrast: ContrastResult) -> str:
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


def _stated(analysis: Analysis) -> list[StatedContrast]:
    return [
        StatedContrast(name, arm, arm.contrasts[contrast], statement)
        for name, arm in named(analysis)
        if arm.arm.is_regulated
        for contrast, statement in statements_of(arm.contrasts).items()
    ]


def _exploration(
    explored: Sequence[StatedContrast], without_seeds: Sequence[StatedContrast], has_others: bool
) -> list[str]:
    """Differences on validation images, which are not tested; `has_others`: beside contrasts on test images."""
    if not explored and not without_seeds:
        return []
    sentences = [
        f"{'A part of these results' if has_others else 'This'} is an exploration: its figures are from validation "
        "images and it gives no verdict; confirm what it suggests with other seeds."
    ]
    for kind in (*OVER_TWINS, *PRACTICAL):
        to = " over the hardest twin" if kind.twins else ""
        if found := [one for one in explored if one.result.name == kind.name]:
            sentences.append(f"On validation images, {kind.words}{to}: {_sizes(found)}.")
    if not explored:
        where = " of it" if has_others else ""
        sentences.append(
            f"No regulated arm{where} has a seed in common with Backbone or a twin, so there is nothing to compare."
        )
    return sentences


def _faded(faded: Sequence[StatedContrast]) -> list[str]:
    if not faded:
        return []
    each = []
    for one in faded:
        name, at = KINDS[one.result.name].words, count(one.result.decided_at or 0, "seed")
        now = f"{in_points(one.result)} with {one.result.size.n}"
        each.append(f"{name} of {one.name}, {one.result.verdict} with {at}, is {now}")
    return [f"A difference found at an early look is no longer shown: {listed(each)}."]


def _specific_effect(found: Sequence[StatedContrast]) -> list[str]:
    if not found:
        return []
    explanations = all_of([RULES_OUT[name] for name in TWINS], "or")
    return [
        f"An effect specific to emotion is found. Above every twin with {_seeds(found)}: {_over_hardest(found)}.",
        f"The effect is not explained by {explanations}.",
    ]


def _over_hardest(contrasts: Sequence[StatedContrast]) -> str:
    return listed(
        [f"{one.name}, {in_points(one.result)} over the hardest, {one.result.against}" for one in _falling(contrasts)]
    )


def _label_effect(found: Sequence[StatedContrast], not_specific: Sequence[StatedContrast]) -> list[str]:
    """Label effects not shown to be specific to emotion, and the emotion effects that another pretext may equal."""
    if not found:
        return []
    sentences = [
        f"A label effect is found; it is not shown to be specific to emotion. Above {all_of(LABEL_TWINS)} with "
        f"{_seeds(found)}: {_over_hardest(found)}."
    ]
    details = []
    for one in sorted(not_specific, key=lambda one: -one.arm.contrasts["label"].size.mean):
        hardest = _hardest_pretext(one.arm, one.result)
        explanation = RULES_OUT[str(hardest.against)]
        details.append(f"{one.name}, {in_points(hardest)} over {hardest.against}, so {explanation} may do as much")
    if details:
        sentences.append(f"Against the twins that separate emotion from another label or task: {listed(details)}.")
    return sentences


def _hardest_pretext(arm: ArmResult, emotion: ContrastResult) -> ContrastResult:
    """The contrast with the pretext twin that leaves open whether a label effect is one of emotion.

    That is not a twin without the true labels, even if it is the hardest of all: the label effect has beaten it.
    """
    if emotion.against in PRETEXT_TWINS:
        return emotion
    return min((twin for twin in arm.twins if twin.against in PRETEXT_TWINS), key=lambda twin: twin.size.low)


def _below(contrasts: Sequence[StatedContrast], twins: Sequence[str], finding: str) -> list[str]:
    """The arms that lie below one of these twins, the largest difference first."""
    found = [
        (one, twin)
        for one in contrasts
        if is_below_hardest(one.result)
        for twin in one.arm.twins
        if twin.against in twins and twin.size.high < 0
    ]
    if not found:
        return []
    found.sort(key=lambda pair: pair[1].size.mean)
    arms = list(dict.fromkeys(one.name for one, _ in found))
    if len(arms) < len(contrasts):
        finding = f"For {all_of(arms)} {finding[0].lower()}{finding[1:]}"
    each = [f"{one.name} is below {twin.against}, {in_points(twin)}" for one, twin in found]
    uncorrected = ", not corrected for the number of arms" if len(contrasts) > 1 else ""
    return [f"{finding}, judged by intervals, not tested{uncorrected}: {listed(each)}."]


def _no_label_effect(null: Sequence[StatedContrast], arms: int) -> list[str]:
    """Arms without a label effect, of all regulated arms."""
    if not null:
        return []
    null = _falling(null)
    each = [f"{one.name}, {in_points(one.result)} over {one.result.against}" for one in null]
    names = "" if len(null) == arms else f" of {all_of([one.name for one in null])}"
    sentences = [
        f"No label effect{names} is shown with {_seeds(null)}.",
        f"Differences from the hardest of {all_of(LABEL_TWINS)}: {listed(each)}.",
    ]
    if smallest := [one.result.smallest for one in null if not math.isnan(one.result.smallest)]:
        low, high = decimal(100 * min(smallest)), decimal(100 * max(smallest))
        size = low if low == high else f"{low} to {high}"
        sentences.append(f"A label effect of {size} points would have been found with probability {WANTED}.")
    return sentences


def _without_verdict(undecided: Sequence[StatedContrast]) -> list[str]:
    """A sentence for each reason why contrasts have no verdict."""
    groups: dict[tuple[Verdict | None, str], dict[str, dict[str, None]]] = {}
    for one in undecided:
        names = groups.setdefault((one.result.verdict, _reason(one)), {})
        names.setdefault(one.name, {})[KINDS[one.result.name].words] = None
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


def _reason(one: StatedContrast) -> str:
    """Why a contrast has no verdict."""
    contrast = one.result
    match contrast.verdict:
        case Verdict.MISSING_TWIN:
            # A verdict names one obstacle, and adding the twin would not undo the collapse.
            return f"{COLLAPSED}; {_missing(one.arm)}" if contrast.collapsed else _missing(one.arm)
        case Verdict.TOO_FEW:
            return _too_few(contrast)
        case Verdict.TIED:
            return "so many seeds agree that no test can pass; more test images or more seeds may separate them"
        case Verdict.BETWEEN_LOOKS:
            when = f"the next is at {count(contrast.next_look, 'seed')}" if contrast.next_look else "none is left"
            return f"verdicts are given only at the planned looks, and {when}"
    return COLLAPSED  # the only obstacle that is left


def _missing(arm: ArmResult) -> str:
    """The twins that an arm lacks for the label effect, and those that it lacks for the emotion effect alone."""
    label, emotion = arm.contrasts["label"].missing, arm.contrasts["emotion"].missing
    further = [name for name in emotion if name not in label]
    missing = [*label] or further
    text = f"the twin{'s' if len(missing) > 1 else ''} {all_of(missing)} {'are' if len(missing) > 1 else 'is'} missing"
    return f"{text}, and for emotion also {all_of(further)}" if label and further else text


def _too_few(contrast: ContrastResult) -> str:
    if contrast.family > MOST_ARMS:
        return f"with more than {MOST_ARMS} arms no test can pass, however many seeds they have"
    arms = f" of {contrast.family} arms" if contrast.family > 1 else ""
    few = f"with {count(contrast.size.n, 'seed')} no test{arms} can pass"
    if contrast.possible_look is not None:
        return f"{few}; the next look at which one can is at {count(contrast.possible_look, 'seed')}"
    numbers = range(contrast.size.n + 1, MOST_SEEDS + 1)
    needed = next((n for n in numbers if possible_looks((n,), contrast.family)), None)
    return few if needed is None else f"{few}; it takes at least {needed}"


def _practical(said: Mapping[Statement, Sequence[StatedContrast]], tested: Container[str]) -> list[str]:
    """The practical contrasts, which say nothing about emotion and must not be worded as if they did."""
    no_backbone = "Backbone was not run with the regulated arms, so there is no gain to report."
    sentences = [] if "gain" in tested else [no_backbone]
    for statement, side in (
        (Statement.GAIN, "Above Backbone"),
        (Statement.NO_GAIN, "Not shown to be above Backbone"),
        (Statement.LOSS, "Below Backbone"),
    ):
        if found := said[statement]:
            sentences.append(f"{side} with {_seeds(found)}: {_sizes(found)}.")
    for kind in PRACTICAL[1:]:
        may_explain = f", so {kind.explains} may explain as much"
        for statement, side, meaning in (
            (Statement.BETTER, f"Above {kind.beside}", ""),
            (Statement.NOT_BETTER, f"Not shown to be above {kind.beside}", ""),
            (Statement.MAY_EXPLAIN, f"But not shown to be above {kind.beside}", may_explain),
            (Statement.WORSE, f"Below {kind.beside}", ""),
        ):
            if found := [one for one in said[statement] if one.result.name == kind.name]:
                sentences.append(f"{side}: {_sizes(found)}{meaning}.")
    if said[Statement.GAIN] and "over_ensemble" not in tested and "regulation" not in tested:
        sentences.append("The ensemble of two plain networks was not run, so ensembling may explain the gain.")
    return sentences


def _lacking(contrasts: Sequence[StatedContrast]) -> list[str]:
    """The tests that use fewer seeds than exist because an arm lacks some. With a plan, tests wait for these seeds."""
    words: dict[tuple[str, str], list[str]] = {}
    for one in contrasts:
        contrast = one.result
        if contrast.lacking and contrast.verdict in (*DECIDED, *SHORT_OF_SEEDS):
            number = contrast.size.n
            total = number + len({seed for _, seeds in contrast.lacking for seed in seeds})
            each = [f"{_short_name(arm, one)} is missing in {len(seeds)}" for arm, seeds in contrast.lacking]
            used = {0: "None", 1: "Only one"}.get(number, f"Only {number}")
            key = (f"{used} of {total} seeds {'is' if number == 1 else 'are'} in", f"{one.name}: {listed(each)}.")
            words.setdefault(key, []).append(KINDS[contrast.name].words)
    return [f"{few} {all_of(names)} of {why}" for (few, why), names in words.items()]


def _short_name(arm: Arm, one: StatedContrast) -> str:
    """The name of an arm that the arm of `one` is compared with, or of that arm itself."""
    if arm == one.arm.arm:
        return one.name
    return str(arm.experience) if arm.experience in TWINS else MODES[arm.mode]


def _caveats(contrasts: Sequence[StatedContrast]) -> list[str]:
    """Differences between the compared runs, seeds beyond the plan, and intervals over seeds alone."""
    sentences = []
    differing = dict.fromkeys(name for one in contrasts for name in one.result.mixed)
    if differing:
        arms = list(dict.fromkeys(one.name for one in contrasts if one.result.mixed))
        sentences.append(f"The runs compared for {listed(arms)} differ in {all_of(list(differing))}.")
        sentences.append("Where two runs of one seed do, that alone may explain their difference.")
    if extra := max(one.result.extra_seeds for one in contrasts):
        sentences.append(f"Seeds beyond the plan (up to {extra}) are in no estimate and no test.")
    over_seeds = [one for one in contrasts if one.result.size.n > 1 and not one.result.images]
    if others := dict.fromkeys(one.arm.outcome.words for one in over_seeds if not one.arm.outcome.is_counted):
        sentences.append(
            f"For {all_of(list(others))} there is no right or wrong per test image: the intervals are over seeds alone "
            "and hold only for these images."
        )
    without = list(dict.fromkeys(one.name for one in over_seeds if one.arm.outcome.is_counted))
    if without:
        names = "" if len(without) == len({one.name for one in contrasts}) else f" of {listed(without)}"
        sentences.append(
            f"Right or wrong per test image is not known for all runs{names}, or is for different images: there the "
            "intervals are over seeds alone and hold only for these images."
        )
    return sentences


def _sizes(contrasts: Iterable[StatedContrast]) -> str:
    return listed([f"{one.name}, {in_points(one.result)}" for one in _falling(contrasts)])


def _falling(contrasts: Iterable[StatedContrast]) -> list[StatedContrast]:
    """The largest mean difference first."""
    return sorted(contrasts, key=lambda one: -one.result.size.mean)


def _seeds(contrasts: Sequence[StatedContrast]) -> str:
    numbers = [one.result.size.n for one in contrasts]
    low, high = min(numbers), max(numbers)
    return count(high, "seed") if low == high else f"{low} to {high} seeds"
