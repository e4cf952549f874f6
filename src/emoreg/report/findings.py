"""What a study found, in sentences: the most important first, a null said as plainly as a gain."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from emoreg.report.analysis import Analysis, ArmResult, Cell, Effect, Experience
from emoreg.report.statistics import ALPHA, EXACT_SEEDS, Comparison, Interval, least_seeds, smallest_p
from emoreg.study.arms import ARMS

LISTED = 3  # so many of a kind are told one by one; the tables have the others
STUCK = 0.02  # a mean λ this near 0 or 1 balances nothing
STARVED = 0.5  # of the accuracy of the stronger response: a weaker one below that adds little
WEAK_CCC = 0.1
CHANCE_ROTATION = 0.3  # of four quarter turns, with some room for luck


@dataclass(frozen=True)
class Case:
    """A regulated arm, or a control, in its cell."""

    name: str  # for a sentence: "Learn-E-Reg", with experience and cell only where there are several
    cell: Cell
    arm: ArmResult

    @property
    def gain(self) -> Comparison:
        """Over Backbone. Only of cases that have one."""
        assert self.arm.gain is not None
        return self.arm.gain

    @property
    def effect(self) -> Effect:
        """Only of cases that have one."""
        assert self.arm.effect is not None
        return self.arm.effect

    def control(self, label: str) -> str:
        """The name of a control beside it: without the experience that both have."""
        return label if self.arm.experience is None else label.removesuffix(f" ({self.arm.experience})")


def findings(analysis: Analysis) -> list[str]:
    """What was found, in sentences, the most important first.

    The rule: a regulated arm is above Backbone, or above every control, if the exact p after Holm's correction is
    at most 0.05. Where the seeds are too few for any p to come out so, that is the first finding, and what the
    intervals hint at is not called a result.
    """
    cases = _cases(analysis)
    gains = [case for case in cases if case.arm.arm.is_regulated and case.arm.gain is not None]
    effects = [case for case in cases if case.arm.effect is not None]
    if not gains and not effects:
        return ["No regulated arm was run beside Backbone, so there is no gain to report.", *_unfinished(analysis)]
    can_gains, can_effects = _can_decide_gains(gains), _can_decide_effects(effects)
    if can_gains or can_effects:
        sentences = _effect_sentences(effects, can_effects) + _gain_sentences(gains, can_gains)
        sentences += _left_open(gains)
    else:
        sentences = [_undecided("Nothing", gains, effects), *_hints(gains, effects)]
        if not effects:
            sentences.append("No control was run beside a regulated arm: nothing here could show that emotion does it.")
    sentences += _controls_own([case for case in cases if case.arm.arm.is_control and case.arm.gain is not None])
    sentences += _stage_1(analysis.experiences)
    sentences += _unlearned_rotation(analysis.experiences)
    sentences += _stuck(cases)
    sentences += _taken_over(cases)
    sentences += _unfinished(analysis)
    return [*sentences, *_method(analysis, gains, effects)]


def told(interval: Interval) -> str:
    """A difference in words: "+0.40 points (95 % interval +0.10 to +0.70)"."""
    return f"{points(interval.mean)} points ({_bounds(interval)})"


def points(fraction: float) -> str:
    """A difference in percentage points with its sign: 0.004 is "+0.40"."""
    return f"{round(100 * fraction, 2) + 0.0:+.2f}".replace("-", "−")  # + 0.0 makes of -0.0 a plain zero


def _bounds(interval: Interval) -> str:
    if interval.n == 1:
        return "one seed, no interval"
    return f"95 % interval {points(interval.low)} to {points(interval.high)}"


def _tested(interval: Interval, p: float) -> str:
    """As `told`, with the p."""
    return f"{points(interval.mean)} points ({_bounds(interval)}, {_p(p)})"


def _p(p: float) -> str:
    return "no p" if math.isnan(p) else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _cases(analysis: Analysis) -> list[Case]:
    """All arms but Backbone."""
    experiences = {arm.experience for cell in analysis.cells for arm in cell.arms} - {None}
    return [
        Case(
            (arm.label if len(experiences) > 1 else arm.arm.label)
            + (f" on {cell.title}" if len(analysis.cells) > 1 else ""),
            cell,
            arm,
        )
        for cell in analysis.cells
        for arm in cell.arms
        if arm.name != "backbone"
    ]


def _can_decide_gains(gains: Sequence[Case]) -> bool:
    return _can_decide([_least_p(case.gain.difference.n) for case in gains])


def _can_decide_effects(effects: Sequence[Case]) -> bool:
    return _can_decide([max(_least_p(d.difference.n) for _, d in case.effect.against) for case in effects])


def _least_p(seeds: int) -> float:
    return smallest_p(seeds) if seeds > 1 else math.nan


def _can_decide(floors: Sequence[float]) -> bool:
    """Whether the smallest p that a family can have passes Holm's first step."""
    known = [p for p in floors if not math.isnan(p)]
    return bool(known) and min(known) * len(known) <= ALPHA


def _undecided(what: str, gains: Sequence[Case], effects: Sequence[Case]) -> str:
    counts = [(len(gains), "gain"), (len(effects), "emotion effect")]
    compared = " and ".join(_count(n, noun) for n, noun in counts if n)
    needed = [least_seeds(n) for n, _ in counts if n]
    lack = f"{what} can be decided with {_seeds([*gains, *effects])}"
    if None in needed:
        return f"{lack}: {compared} are too many for the exact test with Holm's correction."
    return (
        f"{lack}: for {compared} the exact test with Holm's correction "
        f"needs at least {max(n for n in needed if n is not None)} seeds."
    )


def _hints(gains: Sequence[Case], effects: Sequence[Case]) -> list[str]:
    """What the intervals alone say, for a study that decides nothing."""
    largest = max(gains, key=lambda case: case.gain.difference.mean, default=None)
    hints = [
        f"{case.name} over every control, over the best, {case.control(case.effect.control)}, by "
        f"{told(case.effect.size.difference)}"
        for case in effects
        if all(d.difference.sign > 0 for _, d in case.effect.against)
    ]
    hints += [
        f"{case.name} {'over' if case.gain.difference.sign > 0 else 'under'} Backbone by {told(case.gain.difference)}"
        for case in gains
        if case.gain.difference.sign
    ]
    if hints:
        return [f"Not a result, but what the intervals hint at: {_listed(hints)}."]
    if largest is None:
        return []
    first = f"The largest mean gain over Backbone is {largest.name}'s: {told(largest.gain.difference)}"
    return [first + ("." if largest.gain.difference.n == 1 else "; the intervals hint at nothing.")]


def _effect_sentences(effects: Sequence[Case], can_decide: bool) -> list[str]:
    if not effects:
        return ["No control was run beside a regulated arm, so nothing here shows that emotion does it."]
    if not can_decide:
        return [_undecided("No emotion effect", [], effects)]
    passing = sorted(
        (case for case in effects if case.effect.p_holm <= ALPHA), key=lambda case: -case.effect.size.difference.mean
    )
    if not passing:
        largest = max(effects, key=lambda case: case.effect.size.difference.mean)
        return [
            f"No regulated arm is above every control with {_seeds(effects)}: nothing here shows that emotion does it.",
            f"The largest difference to the best control is {largest.name}'s to "
            f"{largest.control(largest.effect.control)}: {told(largest.effect.size.difference)}; of being above every "
            f"control {_p(largest.effect.p_holm)}.",
        ]
    each = [
        f"{case.name}, over the best one, {case.control(case.effect.control)}, by "
        f"{_tested(case.effect.size.difference, case.effect.p_holm)}"
        for case in passing
    ]
    return [
        f"{_share(len(passing), len(effects))} above every control with {_seeds(effects)}: {_listed(each)}.",
        *_ruled_out(passing),
    ]


def _ruled_out(passing: Sequence[Case]) -> list[str]:
    """What cannot explain the effects, and what still can as its control was not run."""
    passed = [{case.control(label) for label, _ in case.effect.against} for case in passing]
    controls = [arm for arm in ARMS.values() if arm.is_control]
    run = [arm for arm in controls if all(arm.label in labels for labels in passed)]
    lacking = [arm for arm in controls if arm not in run]
    sentences = []
    if run:
        sentences.append(f"This is not explained by {_and([arm.rules_out for arm in run], 'or')}.")
    if lacking:
        beside = "" if len(passing) == 1 else " beside all of these arms"
        sentences.append(
            f"It may still be explained by {_and([arm.rules_out for arm in lacking], 'or')}, as "
            f"{_and([arm.label for arm in lacking])} {'was' if len(lacking) == 1 else 'were'} not run{beside}."
        )
    return sentences


def _gain_sentences(gains: Sequence[Case], can_decide: bool) -> list[str]:
    if not gains:
        return ["Backbone was not run beside the regulated arms, so there is no gain to report."]
    if not can_decide:
        return [_undecided("No gain", gains, [])]
    decided = [case for case in gains if case.gain.p_holm <= ALPHA]
    above = sorted((c for c in decided if c.gain.difference.mean > 0), key=lambda c: -c.gain.difference.mean)
    below = sorted((c for c in decided if c.gain.difference.mean < 0), key=lambda c: c.gain.difference.mean)
    sentences = []
    for some, where in ((above, "above"), (below, "below")):
        if some:
            each = [f"{case.name} by {_tested(case.gain.difference, case.gain.p_holm)}" for case in some]
            sentences.append(f"{_share(len(some), len(gains))} {where} Backbone with {_seeds(gains)}: {_listed(each)}.")
    if not above:
        largest = max(gains, key=lambda case: case.gain.difference.mean)
        null = "No regulated arm is above Backbone" if below else "No gain over Backbone is distinguishable from zero"
        sentences.insert(
            0,
            f"{null} with {_seeds(gains)}; the largest is {largest.name}'s: "
            f"{_tested(largest.gain.difference, largest.gain.p_holm)}.",
        )
    return sentences


def _left_open(gains: Sequence[Case]) -> list[str]:
    """For gains over Backbone: the controls from which they are not told apart, and what those would rule out."""
    open_to: dict[tuple[str, ...], list[str]] = {}
    for case in gains:
        if case.gain.p_holm <= ALPHA and case.gain.difference.mean > 0 and case.arm.effect is not None:
            labels = [case.control(label) for label, d in case.effect.against if not _passes(d)]
            if labels:
                open_to.setdefault(tuple(labels), []).append(case.name)
    reasons = {arm.label: arm.rules_out for arm in ARMS.values()}
    return [
        f"{_and(names)} {'is' if len(names) == 1 else 'are'} above Backbone but not above "
        f"{_and(labels, 'or')}, so {_and([reasons[label] for label in labels], 'or')} may explain the gain."
        for labels, names in open_to.items()
    ]


def _passes(difference: Comparison) -> bool:
    return difference.difference.mean > 0 and difference.p <= ALPHA


def _controls_own(controls: Sequence[Case]) -> list[str]:
    if not any(case.gain.difference.n > 1 for case in controls):
        return []
    sentences = []
    for sign, where in ((1, "above"), (-1, "below")):
        those = [case for case in controls if case.gain.difference.sign == sign]
        each = [
            f"{case.name} by {told(case.gain.difference)}"
            for case in sorted(those, key=lambda case: -abs(case.gain.difference.mean))
        ]
        if each:
            sentences.append(f"Controls that are {where} Backbone themselves, by their intervals: {_listed(each)}.")
    return sentences or ["No control by itself differs from Backbone by its 95 % interval."]


def _stage_1(experiences: Sequence[Experience]) -> list[str]:
    """What the affective encoders learned, beside those of shuffled labels."""
    sentences = []
    shuffled = {(e.label, e.backbone): dict(e.metrics) for e in experiences if e.pretext == "shuffled"}
    for experience in experiences:
        measured = [
            (name, i) for name, i in experience.metrics if name.split("_")[-1] in ("ccc", "accuracy") and i.n > 0
        ]
        if experience.pretext != "affect" or not measured:
            continue
        beside = shuffled.get((experience.label, experience.backbone), {})
        each = [
            f"{name.replace('_', ' ').replace('ccc', 'CCC')} {_decimal(i.mean)}"
            + (f" ({_decimal(beside[name].mean)} with shuffled labels)" if name in beside else "")
            for name, i in measured
        ]
        no_better = all(name in beside and i.mean <= beside[name].mean for name, i in measured)
        weak = all(name.endswith("ccc") and i.mean < WEAK_CCC for name, i in measured)
        lesson = ": it hardly learned emotion, so an emotion effect is not to be expected" if no_better or weak else ""
        sentences.append(
            f"On validation images of stage 1 the encoder of {experience.label} ({experience.backbone}) reaches "
            f"{_and(each)}{lesson}."
        )
    return sentences


def _unlearned_rotation(experiences: Sequence[Experience]) -> list[str]:
    """Stimuli without an up and a down teach nothing by their rotation: the control is then none of pre-training."""
    each = [
        f"{experience.label} ({experience.backbone}), accuracy {_decimal(accuracy.mean)}"
        for experience in experiences
        if experience.pretext == "rotation"
        if (accuracy := dict(experience.metrics).get("accuracy")) is not None and accuracy.mean < CHANCE_ROTATION
    ]
    if not each:
        return []
    return [
        f"neutral_pretext did not learn which way up an image is, chance being 0.25: {_listed(each)}. There it "
        "controls for little more than random_encoder does."
    ]


def _stuck(cases: Sequence[Case]) -> list[str]:
    each = [
        f"{case.name} (near {side} in {stuck} of {_count(len(case.arm.lam), 'seed')})"
        for case in cases
        for side in (0, 1)
        if (stuck := sum(abs(lam - side) < STUCK for lam in case.arm.lam))
    ]
    if not each:
        return []
    return [f"λ ended where it balances nothing, one response alone answers: {_listed(each)}."]


def _taken_over(cases: Sequence[Case]) -> list[str]:
    """Networks in which one branch learned and the other one hardly did, whichever it is in each seed."""
    each = []
    for case in cases:
        if case.arm.responses is not None:
            pairs = list(zip(*(response.values for response in case.arm.responses), strict=True))
            weaker, stronger = (math.fsum(map(pick, pairs)) / len(pairs) for pick in (min, max))
            if weaker < STARVED * stronger:
                each.append(f"{case.name}, {100 * stronger:.2f} % and {100 * weaker:.2f} %")
    if not each:
        return []
    return [
        f"One response answers almost alone, by their accuracies without each other: {_listed(each)}. "
        "λ then says which of them won, not that emotion is of use."
    ]


def _unfinished(analysis: Analysis) -> list[str]:
    left = analysis.planned - analysis.finished
    if not left:
        return []
    failed = f" ({len(analysis.failures)} failed)" if analysis.failures else ""
    return [f"{left} of {analysis.planned} runs are not finished{failed} and are left out; what is said may change."]


def _method(analysis: Analysis, gains: Sequence[Case], effects: Sequence[Case]) -> list[str]:
    families = [(analysis.gains, "gain"), (analysis.effects, "emotion effect")]
    compared = " and, apart from them, ".join(_count(n, noun) for n, noun in families if n)
    sentences = []
    if compared:
        most = max(d.n for d in (*(c.gain.difference for c in gains), *(c.effect.size.difference for c in effects)))
        random = ", of 65,536 random flips above 16 seeds" if most > EXACT_SEEDS else ""
        sentences.append(
            f"Each p is of a sign-flip test paired by seed{random}, after Holm's correction over {compared}; "
            "the intervals are not corrected."
        )
    if not effects:
        return sentences
    if all(case.effect.by_validation for case in effects):
        sentences.append("The best control is the one with the highest mean accuracy on validation images.")
    else:
        sentences.append(
            "Where there are no validation images, the best control is the one with the highest mean test accuracy, "
            "which makes the difference to it look smaller; p compares with every control and chooses none."
        )
    return sentences


def _seeds(cases: Iterable[Case]) -> str:
    counts = [
        comparison.difference.n
        for case in cases
        for comparison in (case.arm.gain, case.arm.effect.size if case.arm.effect else None)
        if comparison is not None
    ]
    low, high = min(counts), max(counts)
    return _count(high, "seed") if low == high else f"{low} to {high} seeds"


def _share(some: int, of: int) -> str:
    if of == 1:
        return "The one regulated arm is"
    return f"{'All' if some == of else f'{some} of'} {of} regulated arms {'is' if some == 1 else 'are'}"


def _count(n: int, noun: str) -> str:
    return f"{'one' if n == 1 else n} {noun}{'' if n == 1 else 's'}"


def _listed(parts: Sequence[str]) -> str:
    more = [f"{len(parts) - LISTED} more"] if len(parts) > LISTED else []
    return "; ".join([*parts[:LISTED], *more])


def _and(parts: Sequence[str], word: str = "and") -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}"


def _decimal(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
