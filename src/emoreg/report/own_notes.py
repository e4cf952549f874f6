"""Notes on results of a user's own training loop: how they were interpreted, and what a table cannot show."""

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
    "These results come from the author's own training loop. A table cannot show that the arms differ only in mode and "
    "experience (not in images and their order, steps, optimiser, loss or each branch's gradient at the start), that "
    "each encoder has experienced what its row says, and that nothing was chosen on the scored images: for all this "
    "there is only the author's word."
)


@dataclass(frozen=True)
class TakenArm:
    """The runs of an arm in a cell, and how they were interpreted."""

    given: str  # its names in the table
    arm: Arm
    label: str  # name in reports
    role: str  # regulated arm, twin or reference
    cell: str  # "cifar10, resnet20"; empty if neither is named
    seeds: tuple[int, ...]


def taken_arms(own: OwnResults) -> list[TakenArm]:
    """How the runs were interpreted, arm by arm, in the order of the table."""
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
    """How the other columns were interpreted, a sentence each."""
    return [*_on_accuracy(own), *_on_correct(own), _on_plan(own), *_on_others(own)]


def not_checked(own: OwnResults) -> list[str]:
    """What the verdicts rely on but the table does not show, a sentence each."""
    is_given = {name for name in own.columns if own.frame.get(name) is not None and own.frame[name].notna().any()}
    planned = {cell for cell, _ in own.runs.plans}
    sentences = [AUTHORS_WORD]
    tested = {cell for cell, arms in own.runs.cells.items() if any(arm.is_regulated for arm in arms)}
    if any(cell not in planned and cell.purpose != EXPLORATION for cell in tested):
        where = "For a target and backbone without planned_seeds" if planned else "Without the column planned_seeds"
        sentences.append(
            f"{where}, the seeds that all arms of a contrast have count as planned: if seeds were chosen or left out "
            "after seeing results, its p-values are too small."
        )
    if _has(is_given, "correct") and not _has(is_given, "checksum"):
        sentences.append("Without the column checksum, all runs are assumed to have the same test images in one order.")
    missing = {}
    if not _has(is_given, "classes"):
        missing["classes"] = "runs hardly above chance"
    if not _has(is_given, "train_accuracy_emotional"):
        missing["train_accuracy_non_emotional, train_accuracy_emotional"] = "starved branches"
    if missing:
        unknown = all_of(list(missing.values()))
        sentences.append(f"Not looked for, as columns are missing ({'; '.join(missing)}): {unknown}.")
    return sentences


def own_notes(own: OwnResults) -> MethodNotes:
    """These notes for a report, which has them instead of a study's settings."""
    has_cells = len(own.runs.cells) > 1
    arms = [
        f"{arm.given} as {arm.label} ({arm.role}{f', {arm.cell}' if has_cells and arm.cell else ''}, "
        f"{count(len(arm.seeds), 'seed')})"
        for arm in taken_arms(own)
    ]
    facts = (
        ("Results", f"from the author's own training loop, {count(len(own.places), 'run')} in {own.source}"),
        ("Interpretation", "; ".join(arms)),
        ("Columns", " ".join(taken_values(own))),
    )
    return MethodNotes(facts=facts, remarks=tuple(not_checked(own)))


def _role(arm: Arm) -> str:
    if arm.mode in REFERENCES:
        return "reference"
    return "regulated arm" if arm.is_regulated else "twin"


def _has(given: set[str], name: str) -> bool:
    return bool({name, STORED.get(name, name)} & given)


def _on_accuracy(own: OwnResults) -> Iterator[str]:
    purposes = {cell.purpose for cell in own.runs.cells}
    images = "validation" if purposes == {EXPLORATION} else "test"
    if EXPLORATION in purposes and len(purposes) > 1:
        images = "test images, in explorations of validation"
    calculated = sum(number is not None for number in own.images)
    how = f", calculated from correct in {_share(calculated, own)}" if calculated else ""
    outcome = next(iter(own.runs.outcomes.values()), ACCURACY)
    if outcome.is_counted:
        yield f"Accuracies are shares of {images} images{how}."
    else:
        yield f"Runs are compared by {outcome.words} on {images} images."
    lacking = f"Without {'an accuracy' if outcome.is_counted else outcome.words}, so counted as collapsed"
    if lost := [place for place, is_lost in zip(own.places, np.isnan(own.runs.scores), strict=True) if is_lost]:
        yield f"{lacking}: {listed(lost)}."


def _on_correct(own: OwnResults) -> Iterator[str]:
    given = sum(correct is not None for correct in own.runs.correct)
    if not given:
        return
    numbers = sorted({number for number in own.images if number is not None})
    images = f"each of {all_of([f'{number:,}' for number in numbers], 'or')} images" if numbers else "each image"
    yield f"Right or wrong is known for {images} in {_share(given, own)}."
    if len(numbers) > 1:
        yield "Runs with different numbers of images are not paired image by image."


def _share(number: int, own: OwnResults) -> str:
    return "every run" if number == len(own.places) else f"{number} of {len(own.places)} runs"


def _on_plan(own: OwnResults) -> str:
    plans = dict.fromkeys(own.runs.plans.values())
    if not plans:
        return "The planned number of seeds is not given."
    return f"Planned: {'; '.join(plan.words for plan in plans)}."


def _on_others(own: OwnResults) -> Iterator[str]:
    said = ("arm", *OF_AN_ARM, "target", "backbone", "seed", "accuracy", "correct", "purpose", "planned_seeds", "looks")
    others = [name for name in own.columns if name not in (*said, *(STORED.get(name) for name in said))]
    if others:
        yield f"Interpreted by their names: {', '.join(others)}."
