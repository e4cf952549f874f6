"""What the encoders learned in stage 1, in sentences, compared with chance and shuffled labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

from emoreg.report.analysis import StageOneResult
from emoreg.report.formatting import all_of, decimal, listed

WEAK_CCC = 0.1
CHANCE_ROTATION = 0.3  # chance is 0.25 for four quarter turns; the rest is a margin


def stage_one_findings(results: Sequence[StageOneResult]) -> list[str]:
    """What the affective encoders learned, compared with chance and with encoders trained on shuffled labels."""
    shuffled = {(e.stimuli, e.backbone): dict(e.metrics) for e in results if e.experience == "shuffled"}
    sentences = []
    for result in results:
        measured = {
            name: interval.mean
            for name, interval in result.metrics
            if name.split("_")[-1] in ("ccc", "accuracy") and interval.n > 0
        }
        if result.experience != "affect" or not measured:
            continue
        baseline = {name: i.mean for name, i in shuffled.get((result.stimuli, result.backbone), {}).items()}
        each = [_learned(result, name, mean, baseline.get(name)) for name, mean in measured.items()]
        is_no_better = all(name in baseline and mean <= baseline[name] for name, mean in measured.items())
        is_weak = all(name.endswith("ccc") and mean < WEAK_CCC for name, mean in measured.items())
        lesson = ""
        if is_no_better or is_weak:
            lesson = ": it hardly learned its labels, so no label effect is to be expected"
        sentences.append(
            f"In stage 1 the encoder of {result.stimuli} ({result.backbone}) reached {all_of(each)} on validation "
            f"images{lesson}."
        )
    return sentences


def _learned(result: StageOneResult, name: str, mean: float, with_shuffled: float | None) -> str:
    """ "CCC 0.84 (chance 0, −0.03 with shuffled labels; 100 images)"."""
    stimuli_set = name.rpartition("_")[0]  # empty if there is only one
    facts = dict(result.facts)
    chance = 0.0 if name.endswith("ccc") else facts.get(f"{stimuli_set}_chance".lstrip("_"), math.nan)
    beside = [] if math.isnan(chance) else [f"chance {decimal(chance) if chance else 0}"]
    if with_shuffled is not None:
        beside.append(f"{decimal(with_shuffled)} with shuffled labels")
    images = facts.get(f"{stimuli_set}_images".lstrip("_"))
    remarks = "; ".join(filter(None, [", ".join(beside), "" if images is None else f"{images:,.0f} images"]))
    return f"{name.replace('_', ' ').replace('ccc', 'CCC')} {decimal(mean)}{remarks and f' ({remarks})'}"


def unlearned_rotation(results: Sequence[StageOneResult]) -> list[str]:
    """Stimuli without an up and a down: predicting their rotation teaches nothing, so the twin rules out little."""
    each = [
        f"{result.stimuli} ({result.backbone}), accuracy {decimal(accuracy.mean)}"
        for result in results
        if result.experience == "rotation"
        if (accuracy := dict(result.metrics).get("accuracy")) is not None and accuracy.mean < CHANCE_ROTATION
    ]
    if not each:
        return []
    return [
        f"The rotation twin did not learn which way up an image is (chance: 0.25): {listed(each)}. There it rules out "
        "little more than fresh."
    ]
