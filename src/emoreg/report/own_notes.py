"""What was taken for what in results of an own loop, and what no table of them can show, in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from emoreg.config.outcomes import ACCURACY
from emoreg.report.analysis import REFERENCES, label_of
from emoreg.report.formatting import all_of, count, listed
from emoreg.report.method_notes import MethodNotes
from emoreg.report.own_columns import OF_AN_ARM, STORED
from emoreg.report.own_results import OwnResults
from emoreg.report.run_frame import EXPLORATION, Arm

AUTHORS_WORD = (
    "These are results of an own training loop. That its arms differ in nothing but mode and experience (images and "
    "their order, steps, optimiser, loss, the gradient that each branch starts with), that an encoder has experienced "
    "what its row says, and that nothing was chosen on the images that are scored, is its author's word: a table "
    "cannot show it."
)


@dataclass(frozen=True)
class TakenArm:
    """The runs of an arm in a cell, and what they were taken for."""

    given: str  # its names in the table
    arm: Arm
    label: str  # in reports
    role: str  # regulated arm, twin or reference
    cell: str  # "cifar10, resnet20"; empty where neither is named
    seeds: tuple[int, ...]


def taken_arms(own: OwnResults) -> list[TakenArm]:
    """What the runs were taken for, arm by arm, in the order of the table."""
    has_stimuli = len({arm.stimuli for arms in own.runs.cells.values() for arm in arms} - {None}) > 1
    return [
        TakenArm(
            " or ".join(dict.fromkeys(own.names[row] for row in rows.values())),
            arm,
            label_of(arm, has_stimuli),
            _role(arm),
            ", ".join(part for part in (cell.target, cell.backbone, cell.purpose) if part),
            tuple(rows),
        )
        for cell, arms in own.runs.cells.items()
        for arm, rows in arms.items()
    ]


def taken_values(own: OwnResults) -> list[str]:
    """What the other columns were taken for, a sentence each."""
    return [*_of_accuracy(own), *_of_answers(own), _of_plan(own), *_of_others(own)]


def not_checked(own: OwnResults) -> list[str]:
    """What the verdicts rest on and the table does not show, a sentence each."""
    is_given = {name for name in own.columns if own.frame.get(name) is not None and own.frame[name].notna().any()}
    sentences = [AUTHORS_WORD]
    if not own.runs.plans:
        sentences.append(
            "Without the column planned_seeds the seeds that all arms of a contrast have count as those that were "
            "planned: seeds that were chosen, or left out, by looking at results make its p-values too small."
        )
    if _has(is_given, "correct") and not _has(is_given, "checksum"):
        sentences.append("Without the column checksum all runs are taken to have the same test images in one order.")
    unknown = {
        "runs that answer hardly above chance": _has(is_given, "classes"),
        "starved branches": _has(is_given, "train_accuracy_emotional"),
    }
    if lost := [what for what, is_known in unknown.items() if not is_known]:
        columns = [
            *(["classes"] if not _has(is_given, "classes") else []),
            *(["train_accuracy_non_emotional, train_accuracy_emotional"] if lost[-1] == "starved branches" else []),
        ]
        sentences.append(f"Not looked for, as columns are missing ({'; '.join(columns)}): {all_of(lost)}.")
    return sentences


def own_notes(own: OwnResults) -> MethodNotes:
    """The same for a report, in place of settings that only a study knows."""
    has_cells = len(own.runs.cells) > 1
    arms = [
        f"{arm.given} as {arm.label} ({arm.role}{f', {arm.cell}' if has_cells and arm.cell else ''}, "
        f"{count(len(arm.seeds), 'seed')})"
        for arm in taken_arms(own)
    ]
    facts = (
        ("Results", f"of an own training loop, {count(len(own.places), 'run')} in {own.source}"),
        ("Taken for", "; ".join(arms)),
        ("Columns", " ".join(taken_values(own))),
    )
    return MethodNotes(facts=facts, remarks=tuple(not_checked(own)))


def _role(arm: Arm) -> str:
    if arm.mode in REFERENCES:
        return "reference"
    return "regulated arm" if arm.is_regulated else "twin"


def _has(given: set[str], name: str) -> bool:
    return bool({name, STORED.get(name, name)} & given)


def _of_accuracy(own: OwnResults) -> Iterator[str]:
    purposes = {cell.purpose for cell in own.runs.cells}
    images = "validation" if purposes == {EXPLORATION} else "test"
    if EXPLORATION in purposes and len(purposes) > 1:
        images = "test images, of explorations on validation"
    calculated = sum(number is not None for number in own.images)
    how = f", calculated from correct in {_of(calculated, own)}" if calculated else ""
    outcome = next(iter(own.runs.outcomes.values()), ACCURACY)
    if outcome.is_counted:
        yield f"Accuracies are shares of {images} images{how}."
    else:
        yield f"Runs are compared by {outcome.words} on {images} images."
    lacking = f"Without {'an accuracy' if outcome.is_counted else outcome.words}, so counted as collapsed"
    if lost := [place for place, is_lost in zip(own.places, np.isnan(own.runs.scores), strict=True) if is_lost]:
        yield f"{lacking}: {listed(lost)}."


def _of_answers(own: OwnResults) -> Iterator[str]:
    given = sum(answers is not None for answers in own.runs.correct)
    if not given:
        return
    numbers = sorted({number for number in own.images if number is not None})
    images = f"each of {all_of([f'{number:,}' for number in numbers], 'or')} images" if numbers else "each image"
    yield f"Right or wrong is known for {images} in {_of(given, own)}."
    if len(numbers) > 1:
        yield "Runs with other numbers of images are not paired image by image."


def _of(number: int, own: OwnResults) -> str:
    return "every run" if number == len(own.places) else f"{number} of {len(own.places)} runs"


def _of_plan(own: OwnResults) -> str:
    plans = dict.fromkeys(own.runs.plans.values())
    if not plans:
        return "No number of seeds is given as planned."
    each = [
        f"{count(plan.seeds, 'seed')} from {plan.first} on, looks at {all_of(list(map(str, plan.looks)))}"
        for plan in plans
    ]
    return f"Planned: {'; '.join(each)}."


def _of_others(own: OwnResults) -> Iterator[str]:
    told = ("arm", *OF_AN_ARM, "target", "backbone", "seed", "accuracy", "correct", "purpose", "planned_seeds", "looks")
    others = [name for name in own.columns if name not in (*told, *(STORED.get(name) for name in told))]
    if others:
        yield f"Read as their names say: {', '.join(others)}."
