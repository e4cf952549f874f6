"""What a study found, in sentences: the most important first, a null result as plainly as a gain."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from emoreg.report.analysis import Analysis, ArmResult, Effect, ExperienceResult
from emoreg.report.formatting import count, decimal, percent, points
from emoreg.report.old_arms import ARMS
from emoreg.report.statistics import ALPHA, EXACT_SEEDS, Comparison, Interval, least_seeds, smallest_p

LISTED = 3  # items of a list in a sentence; the tables have the others
STUCK = 0.02  # a mean λ this close to 0 or 1 balances nothing
STARVED = 0.5  # of the accuracy of the stronger response: a weaker one below that adds little
WEAK_CCC = 0.1
CHANCE_ROTATION = 0.3  # one quarter turn of four, with some room for luck

Judged = TypeVar("Judged", Comparison, Effect)


@dataclass(frozen=True)
class Case(Generic[Judged]):
    """The gain or the emotion effect of an arm."""

    name: str  # for a sentence: "Learn-E-Reg", with experience and cell only where there are several
    arm: ArmResult
    judged: Judged

    @property
    def difference(self) -> Interval:
        """Test accuracy minus that of Backbone, or of the best control."""
        return self.judged.difference


Gains = Sequence[Case[Comparison]]
Effects = Sequence[Case[Effect]]


def findings(analysis: Analysis) -> list[str]:
    """What was found, in sentences, the most important first.

    A regulated arm is above Backbone, or above every control, if the exact p after Holm's correction is at most 0.05.
    Where the seeds are too few for any p to reach that, this is the first finding, and what the intervals suggest is
    called a hint, not a result.
    """
    arms = _named_arms(analysis)
    gains = [Case(name, arm, arm.gain) for name, arm in arms if arm.arm.is_regulated and arm.gain is not None]
    effects = [Case(name, arm, arm.effect) for name, arm in arms if arm.effect is not None]
    controls = [Case(name, arm, arm.gain) for name, arm in arms if arm.arm.is_control and arm.gain is not None]
    if not gains and not effects:
        return [
            "No regulated arm was run together with Backbone, so there is no gain to report.",
            *_unfinished(analysis),
        ]
    can_decide_gains = _can_decide(case.difference.n for case in gains)
    can_decide_effects = _can_decide(min(d.difference.n for _, d in case.judged.against) for case in effects)
    if can_decide_gains or can_decide_effects:
        verdict = [
            *_effect_verdict(effects, can_decide_effects),
            *_gain_verdict(gains, can_decide_gains),
            *_other_explanations(gains),
        ]
    else:
        verdict = [_undecided("Nothing", gains, effects), *_hints(gains, effects)]
        if not effects:
            verdict.append("No control was run with a regulated arm, so nothing here could show that emotion does it.")
    return [
        *verdict,
        *_control_gains(controls),
        *_stage_1(analysis.experiences),
        *_unlearned_rotation(analysis.experiences),
        *_stuck_lambdas(arms),
        *_starved_responses(arms),
        *_unfinished(analysis),
        *_method(analysis, gains, effects),
    ]


def in_points(difference: Interval, p: float | None = None) -> str:
    """A difference in words: "+0.40 points (95 % interval +0.10 to +0.70, p = 0.031)"."""
    bounds = f"95 % interval {points(difference.low)} to {points(difference.high)}"
    remarks = ["one seed, no interval" if difference.n == 1 else bounds] + ([] if p is None else [_p(p)])
    return f"{points(difference.mean)} points ({', '.join(remarks)})"


def _p(p: float) -> str:
    return "no p" if math.isnan(p) else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _named_arms(analysis: Analysis) -> list[tuple[str, ArmResult]]:
    """All arms but Backbone, with their names for sentences."""
    has_experiences = len({arm.experience for arm in analysis.arms} - {None}) > 1
    return [
        (
            (arm.label if has_experiences else arm.arm.label)
            + (f" on {cell.title}" if len(analysis.cells) > 1 else ""),
            arm,
        )
        for cell in analysis.cells
        for arm in cell.arms
        if arm.name != "backbone"
    ]


def _can_decide(seeds: Iterable[int]) -> bool:
    """Whether the smallest p that a family of comparisons with these seeds can have passes Holm's first step."""
    least = [smallest_p(n) for n in seeds if n > 1]
    return bool(least) and min(least) * len(least) <= ALPHA


def _undecided(what: str, gains: Gains, effects: Effects) -> str:
    families = [(len(cases), noun) for cases, noun in ((gains, "gain"), (effects, "emotion effect")) if cases]
    compared = _and([count(n, noun) for n, noun in families])
    needed = [least_seeds(n) for n, _ in families]
    lack = f"{what} can be decided with {_seeds([*gains, *effects])}"
    if None in needed:
        return f"{lack}: {compared} are too many for the exact test with Holm's correction."
    return (
        f"{lack}: for {compared} the exact test with Holm's correction "
        f"needs at least {max(n for n in needed if n is not None)} seeds."
    )


def _hints(gains: Gains, effects: Effects) -> list[str]:
    """What the intervals alone suggest, for a study that decides nothing."""
    hints = [
        f"{case.name} exceeds every control, the best of them, {_best_control(case)}, by {in_points(case.difference)}"
        for case in effects
        if all(difference.difference.sign > 0 for _, difference in case.judged.against)
    ]
    hints += [
        f"{case.name} differs from Backbone by {in_points(case.difference)}" for case in gains if case.difference.sign
    ]
    if hints:
        return [f"Not a result, but a hint from the intervals: {_listed(hints)}."]
    if not gains:
        return []
    largest = _falling(gains)[0]
    no_hint = "" if largest.difference.n == 1 else "; the intervals hint at nothing"
    return [f"The largest mean gain over Backbone is that of {largest.name}: {in_points(largest.difference)}{no_hint}."]


def _effect_verdict(effects: Effects, can_decide: bool) -> list[str]:
    if not effects:
        return ["No control was run with a regulated arm, so nothing here shows that emotion does it."]
    if not can_decide:
        return [_undecided("No emotion effect", [], effects)]
    falling = _falling(effects)
    above = [case for case in falling if case.judged.is_significant]
    if not above:
        largest = falling[0]
        return [
            f"No regulated arm is above every control with {_seeds(effects)}: nothing here shows that emotion does it.",
            f"The largest difference to the best control is that of {largest.name} to {_best_control(largest)}: "
            f"{in_points(largest.difference)}; for being above every control, {_p(largest.judged.p_holm)}.",
        ]
    each = [
        f"{case.name}, over the best one, {_best_control(case)}, by {in_points(case.difference, case.judged.p_holm)}"
        for case in above
    ]
    return [
        f"{_share(above, effects)} above every control with {_seeds(effects)}: {_listed(each)}.",
        *_ruled_out(above),
    ]


def _ruled_out(above: Effects) -> list[str]:
    """What cannot explain these effects, and what still can because its control was not run."""
    passed = [{case.arm.control_name(label) for label, _ in case.judged.against} for case in above]
    controls = [arm for arm in ARMS.values() if arm.is_control]
    run = [arm for arm in controls if all(arm.label in labels for labels in passed)]
    missing = [arm for arm in controls if arm not in run]
    sentences = []
    if run:
        sentences.append(f"This is not explained by {_and([arm.rules_out for arm in run], 'or')}.")
    if missing:
        with_all = "" if len(above) == 1 else " with all of these arms"
        sentences.append(
            f"It may still be explained by {_and([arm.rules_out for arm in missing], 'or')}, as "
            f"{_and([arm.label for arm in missing])} {'was' if len(missing) == 1 else 'were'} not run{with_all}."
        )
    return sentences


def _gain_verdict(gains: Gains, can_decide: bool) -> list[str]:
    if not gains:
        return ["Backbone was not run with the regulated arms, so there is no gain to report."]
    if not can_decide:
        return [_undecided("No gain", gains, [])]
    falling = _falling(gains)
    above = [case for case in falling if case.judged.is_significant and case.difference.mean > 0]
    below = [case for case in reversed(falling) if case.judged.is_significant and case.difference.mean < 0]
    sentences = []
    if not above:
        largest = falling[0]
        null = "No regulated arm is above Backbone" if below else "No gain over Backbone is distinguishable from zero"
        sentences.append(
            f"{null} with {_seeds(gains)}; the largest gain is that of {largest.name}: "
            f"{in_points(largest.difference, largest.judged.p_holm)}."
        )
    for side, cases in (("above", above), ("below", below)):
        if cases:
            each = [f"{case.name} by {in_points(case.difference, case.judged.p_holm)}" for case in cases]
            sentences.append(f"{_share(cases, gains)} {side} Backbone with {_seeds(gains)}: {_listed(each)}.")
    return sentences


def _other_explanations(gains: Gains) -> list[str]:
    """For gains over Backbone: the controls that the arm is not above, and what may then explain the gain."""
    names_by_controls: dict[tuple[str, ...], list[str]] = {}
    for case in gains:
        if case.judged.is_significant and case.difference.mean > 0 and case.arm.effect is not None:
            labels = tuple(
                case.arm.control_name(label)
                for label, control in case.arm.effect.against
                if not (control.difference.mean > 0 and control.p <= ALPHA)
            )
            if labels:
                names_by_controls.setdefault(labels, []).append(case.name)
    rules_out = {arm.label: arm.rules_out for arm in ARMS.values()}
    return [
        f"{_and(names)} {'is' if len(names) == 1 else 'are'} above Backbone but not above "
        f"{_and(labels, 'or')}, so {_and([rules_out[label] for label in labels], 'or')} may explain the gain."
        for labels, names in names_by_controls.items()
    ]


def _control_gains(controls: Gains) -> list[str]:
    if all(case.difference.n == 1 for case in controls):
        return []
    sentences = []
    for side, sign in (("above", 1), ("below", -1)):
        cases = sorted(controls, key=lambda case: -abs(case.difference.mean))
        each = [f"{case.name} by {in_points(case.difference)}" for case in cases if case.difference.sign == sign]
        if each:
            sentences.append(f"Controls {side} Backbone by their intervals: {_listed(each)}.")
    return sentences or ["No control differs from Backbone by its 95 % interval."]


def _stage_1(experiences: Sequence[ExperienceResult]) -> list[str]:
    """What the affective encoders learned, compared with those of shuffled labels."""
    shuffled = {(e.label, e.backbone): dict(e.metrics) for e in experiences if e.pretext == "shuffled"}
    sentences = []
    for experience in experiences:
        measured = {
            name: interval.mean
            for name, interval in experience.metrics
            if name.split("_")[-1] in ("ccc", "accuracy") and interval.n > 0
        }
        if experience.pretext != "affect" or not measured:
            continue
        baseline = {name: i.mean for name, i in shuffled.get((experience.label, experience.backbone), {}).items()}
        each = [
            f"{name.replace('_', ' ').replace('ccc', 'CCC')} {decimal(mean)}"
            + (f" ({decimal(baseline[name])} with shuffled labels)" if name in baseline else "")
            for name, mean in measured.items()
        ]
        is_no_better = all(name in baseline and mean <= baseline[name] for name, mean in measured.items())
        is_weak = all(name.endswith("ccc") and mean < WEAK_CCC for name, mean in measured.items())
        lesson = (
            ": it hardly learned emotion, so no emotion effect is to be expected" if is_no_better or is_weak else ""
        )
        sentences.append(
            f"In stage 1 the encoder of {experience.label} ({experience.backbone}) reached {_and(each)} on validation "
            f"images{lesson}."
        )
    return sentences


def _unlearned_rotation(experiences: Sequence[ExperienceResult]) -> list[str]:
    """Stimuli without an up and a down teach nothing by their rotation, which then controls for no pre-training."""
    each = [
        f"{experience.label} ({experience.backbone}), accuracy {decimal(accuracy.mean)}"
        for experience in experiences
        if experience.pretext == "rotation"
        if (accuracy := dict(experience.metrics).get("accuracy")) is not None and accuracy.mean < CHANCE_ROTATION
    ]
    if not each:
        return []
    return [
        f"neutral_pretext did not learn which way up an image is (chance: 0.25): {_listed(each)}. There it controls "
        "for little more than random_encoder does."
    ]


def _stuck_lambdas(arms: Sequence[tuple[str, ArmResult]]) -> list[str]:
    each = [
        f"{name} (near {limit} in {stuck} of {count(len(arm.lam), 'seed')})"
        for name, arm in arms
        for limit in (0, 1)
        if (stuck := sum(abs(lam - limit) < STUCK for lam in arm.lam))
    ]
    return [f"λ ended at a limit, where one response answers alone: {_listed(each)}."] if each else []


def _starved_responses(arms: Sequence[tuple[str, ArmResult]]) -> list[str]:
    """Networks in which one branch learned and the other hardly did, whichever it is in each seed."""
    each = []
    for name, arm in arms:
        if arm.responses is not None:
            pairs = list(zip(*(response.values for response in arm.responses), strict=True))
            weaker, stronger = (math.fsum(map(pick, pairs)) / len(pairs) for pick in (min, max))
            if weaker < STARVED * stronger:
                each.append(f"{name}, {percent(stronger)} % and {percent(weaker)} %")
    if not each:
        return []
    return [
        f"One response answers almost alone, by the accuracy of each without the other: {_listed(each)}. "
        "λ then says which of them won, not that emotion is useful."
    ]


def _unfinished(analysis: Analysis) -> list[str]:
    left = analysis.planned - analysis.finished
    if not left:
        return []
    failed = f" ({len(analysis.failures)} failed)" if analysis.failures else ""
    return [f"{left} of {analysis.planned} runs are not finished{failed} and are left out; these findings may change."]


def _method(analysis: Analysis, gains: Gains, effects: Effects) -> list[str]:
    families = ((analysis.tested_gains, "gain"), (analysis.tested_effects, "emotion effect"))
    compared = " and, separately, ".join(count(n, noun) for n, noun in families if n)
    sentences = []
    if compared:
        most = max([case.difference.n for case in gains] + [case.difference.n for case in effects])
        random = ", of 65,536 random flips above 16 seeds" if most > EXACT_SEEDS else ""
        sentences.append(
            f"Each p is from a sign-flip test paired by seed{random}, Holm-corrected over {compared}; "
            "the intervals are not corrected."
        )
    if effects and all(case.judged.by_validation for case in effects):
        sentences.append("The best control is the one with the highest mean accuracy on validation images.")
    elif effects:
        sentences.append(
            "Where there are no validation images, the best control is the one with the highest mean test accuracy, "
            "which makes the difference to it look smaller; p compares with every control and chooses none."
        )
    return sentences


def _best_control(case: Case[Effect]) -> str:
    return case.arm.control_name(case.judged.control)


def _falling(cases: Sequence[Case[Judged]]) -> list[Case[Judged]]:
    """The largest mean difference first."""
    return sorted(cases, key=lambda case: -case.difference.mean)


def _seeds(cases: Sequence[Case[Comparison] | Case[Effect]]) -> str:
    numbers = [case.difference.n for case in cases]
    low, high = min(numbers), max(numbers)
    return count(high, "seed") if low == high else f"{low} to {high} seeds"


def _share(cases: Gains | Effects, of: Gains | Effects) -> str:
    if len(of) == 1:
        return "The one regulated arm is"
    share = "All" if len(cases) == len(of) else f"{len(cases)} of"
    return f"{share} {len(of)} regulated arms {'is' if len(cases) == 1 else 'are'}"


def _listed(parts: Sequence[str]) -> str:
    more = [f"{len(parts) - LISTED} more"] if len(parts) > LISTED else []
    return "; ".join([*parts[:LISTED], *more])


def _and(parts: Sequence[str], word: str = "and") -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}"
