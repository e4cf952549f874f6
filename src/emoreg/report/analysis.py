"""What a report shows of a study: the arms of each cell, their contrasts, and all that was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emoreg.config.outcomes import ACCURACY, Outcome
from emoreg.config.schema import RELATIVES
from emoreg.report.collapse import Frequency
from emoreg.report.contrast_kinds import KINDS
from emoreg.report.doses import Doses
from emoreg.report.method_notes import MethodNotes
from emoreg.report.run_frame import EXPLORATION, MODES, TWINS, Arm
from emoreg.report.statistics import LEVEL, TIE, Interval
from emoreg.report.verdicts import Verdict
from emoreg.suites.figures import Figure

if TYPE_CHECKING:
    import pandas as pd


REFERENCES = ("none", "ensemble", "wide", "transfer", "unregulated", *RELATIVES)  # modes
# What an arm is within a comparison; decides its colour and marker.
ROLES = ("Backbone", "affect", *TWINS, *(MODES[mode] for mode in REFERENCES[1:]))


@dataclass(frozen=True)
class Contrast:
    """What a contrast (`contrasts.Judged`) came to, with the differences that it is made of."""

    name: str  # of the outcome, such as accuracy; or of a contrast, as `contrasts` has them
    against: str | None  # the (hardest) twin's experience, or a reference's mode
    size: Interval  # over seeds and images; its values are the differences to `against`, one per seed
    over_seeds: Interval  # over seeds alone
    level: float  # one-sided, of the limits
    images: int  # that `size` covers; 0: over seeds alone
    p: float  # one-sided, for the family: of being below where the verdict is below, else of being above
    family: int  # arms; 0 where nothing is tested
    missing: tuple[str, ...]  # twins
    smallest: float  # difference that its test finds with probability 0.8; NaN where none is tested or could pass
    collapsed: int  # runs
    extra_seeds: int  # beyond the plan, not used
    mixed: tuple[str, ...]  # what differs between the runs: device, precision, edition
    next_look: int | None  # at so many seeds; None without a plan, or when it is complete
    decided_at: int | None  # seeds of the look that decided for above or below
    verdict: Verdict | None
    # Without a plan: arms without seeds that others of the contrast have, which are in no figure of it.
    lacking: tuple[tuple[Arm, tuple[int, ...]], ...] = ()

    @property
    def to(self) -> str:
        """ "to shuffled", where the hardest of several twins must be beaten; else empty."""
        has_several = self.name in KINDS and KINDS[self.name].twins
        return f"to {self.against}" if has_several and self.against else ""

    @property
    def is_found(self) -> bool:
        """Whether the test passed, in either direction."""
        return self.verdict in (Verdict.ABOVE, Verdict.BELOW)

    @property
    def has_faded(self) -> bool:
        """Whether an early look decided, and the seeds since no longer show it."""
        return self.is_found and self.decided_at is not None and self.decided_at < self.size.n and self.p > LEVEL + TIE


@dataclass(frozen=True)
class ArmResult:
    """The results of one arm in one cell. Intervals other than those of contrasts are Student's, over seeds."""

    arm: Arm
    label: str  # "Learn-E-Reg", "Learn-E-Reg, shuffled", "Learn-E-Reg, mixture (oasis)"
    contrasts: Mapping[str, Contrast]  # by name, without those to single twins
    twins: tuple[Contrast, ...]  # a regulated arm minus each of its twins
    validation: Interval | None  # the outcome on validation images; None without any
    lam: tuple[float, ...]  # mean λ over the scored images, one value per seed; empty without an emotional branch
    # The outcome of each response alone: non-emotional, emotional; None without an emotional branch.
    responses: tuple[Interval, Interval] | None
    collapsed: Frequency
    starved: Frequency  # runs in which one branch starved
    ece: Interval  # expected calibration error
    reliability: tuple[tuple[float, float, int], ...]  # (mean confidence, accuracy, images) of each bin, all seeds
    per_class_gain: tuple[Interval, ...]  # accuracy of each class minus Backbone's, paired; empty for Backbone
    seconds: float  # mean training time of a run
    parameters: int
    flops: int  # forward, one image
    images_per_second: float  # mean over seeds, in training
    curves: pd.DataFrame  # seed, epoch, train_loss, val_accuracy, lambda, gradient_share, ...: a row per seed and epoch
    # Balanced accuracy, macro F1, top-5 accuracy, mean absolute error and others, by their names in a table of results.
    measures: Mapping[str, Interval] = field(default_factory=dict)
    unlike: tuple[int, ...] = ()  # numbers of parameters of its runs' networks, where these are not one
    omits_lambda_curve: bool = False  # whether `curves` leave out a recorded λ that is not the mean over images
    outcome: Outcome = ACCURACY  # what it is compared by

    @property
    def score(self) -> Interval:
        """The outcome on the test split, such as accuracy; of an exploration, on validation images."""
        return self.contrasts[self.outcome.name].size

    @property
    def role(self) -> str:
        """One of ROLES: a reference's name, or the experience."""
        is_twin = self.arm.mode not in REFERENCES and self.arm.experience is not None
        return str(self.arm.experience) if is_twin else MODES[self.arm.mode]

    @property
    def number(self) -> int:
        """Place of the role, which decides colour and marker."""
        return ROLES.index(self.role)

    @property
    def overconfidence(self) -> float:
        """Mean confidence minus accuracy over the scored images of all seeds; NaN if it was not measured."""
        bins = [entry for entry in self.reliability if entry[2]]
        if not bins:
            return math.nan
        excess = math.fsum((confidence - accuracy) * images for confidence, accuracy, images in bins)
        return excess / sum(images for _, _, images in bins)


@dataclass(frozen=True)
class Family:
    """A regulated arm and its twins: one mode, variant and set of stimuli, with every experience."""

    title: str  # "Learn-E-Reg, mixture (oasis)"
    arms: tuple[ArmResult, ...]  # in the order of ROLES


@dataclass(frozen=True)
class CellResult:
    """All arms on one target with one backbone. References first, then the modes in their order."""

    target: str
    backbone: str
    purpose: str | None  # exploration, confirmation or, in the first edition, None
    classes: tuple[str, ...]  # names
    benchmark: str | None  # cifar10 or cifar100 where the target is all of it
    images: int  # training images
    has_stimuli: bool  # whether labels name the stimuli, as the study has several
    arms: tuple[ArmResult, ...]
    part: str = ""  # of the target that this is: "5 of 100 classes"; empty for all of it
    heading: str = ""  # name of the target, without settings that `part` tells; empty for its label

    @property
    def title(self) -> str:
        """For headings: "cifar10, resnet20", "cifar100 (5 of 100 classes), resnet20"."""
        target = self.heading or self.target
        target = f"{target} ({self.part})" if self.part else target
        return f"{target}, {self.backbone}{', exploration' if self.purpose == EXPLORATION else ''}"

    @property
    def outcome(self) -> Outcome:
        """What its arms are compared by."""
        return self.arms[0].outcome

    @property
    def references(self) -> tuple[ArmResult, ...]:
        """Backbone, Ensemble, Wide, Transfer and the relatives, as far as they were run."""
        return tuple(arm for arm in self.arms if arm.arm.mode in REFERENCES)

    @property
    def regulated(self) -> tuple[ArmResult, ...]:
        """The arms that are tested."""
        return tuple(arm for arm in self.arms if arm.arm.is_regulated)

    @property
    def families(self) -> tuple[Family, ...]:
        """All other arms. A twin without stimuli (fresh) belongs to the families of all stimuli."""
        others = [arm for arm in self.arms if arm.arm.mode not in REFERENCES]
        keys = dict.fromkeys((arm.arm.mode, arm.arm.variant, arm.arm.stimuli) for arm in others)
        with_stimuli = {key[:2] for key in keys if key[2] is not None}
        families = []
        for mode, variant, stimuli in keys:
            if stimuli is None and (mode, variant) in with_stimuli:
                continue
            own = [arm for arm in others if (arm.arm.mode, arm.arm.variant) == (mode, variant)]
            own = sorted((arm for arm in own if arm.arm.stimuli in (None, stimuli)), key=lambda arm: arm.number)
            title = label_of(Arm(mode, "affect", variant, stimuli), self.has_stimuli)
            families.append(Family(title, tuple(own)))
        return tuple(families)


@dataclass(frozen=True)
class StageOneResult:
    """What the encoders of one set of stimuli, one experience and one backbone learned in stage 1."""

    stimuli: str  # label, with the variant if it has one
    experience: str  # affect, shuffled, neutral, rotation
    backbone: str
    metrics: tuple[tuple[str, Interval], ...]  # on validation images: ("ccc", ...), ("accuracy", ...), ("loss", ...)
    seconds: float
    # Of the validation images: ("images", ...), ("chance", ...), each behind the set's name if there are several.
    facts: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class SuiteContrast:
    """A regulated arm minus others in the first figure of a suite, in the figure's own sign."""

    against: str | None  # as of `Contrast`
    size: Interval  # over seeds; a smaller ECE is a negative difference
    p: float  # one-sided, corrected for the arms of the cell; of being worse where the verdict is below
    verdict: Verdict | None  # above is better, also where less is better


@dataclass(frozen=True)
class SuiteCell:
    """What the runs of a cell have scored in a suite."""

    cell: CellResult
    suite: str
    figures: tuple[Figure, ...]  # that are shown; the contrasts are of the first
    values: Mapping[Arm, Mapping[str, Interval]]  # by arm and figure; Student's, over seeds
    contrasts: Mapping[Arm, Mapping[str, SuiteContrast]]  # of regulated arms, those that are tested
    images: str  # which images the figures are of, in words
    other_options: int  # runs left out, as they were scored with other options


@dataclass(frozen=True)
class Analysis:
    """Everything a report shows of a study."""

    name: str
    cells: tuple[CellResult, ...]
    stage_1: tuple[StageOneResult, ...]
    seeds: tuple[int, ...]  # with at least one finished run of stage 2
    planned: int  # runs in the plan, both stages
    finished: int
    failures: tuple[tuple[str, str], ...]  # (run, error) of runs that are left out
    diverged: tuple[tuple[str, str], ...]  # the same of runs of stage 2 that count as collapsed
    facts: tuple[tuple[str, str], ...]  # settings and machines: (name, value)
    notes: MethodNotes
    left_out: tuple[str, ...]  # what the plan leaves out, with the reason
    contrasts: pd.DataFrame  # the contrast frame
    doses: Doses | None = None  # where its stimuli are doses of one experience
    suites: tuple[SuiteCell, ...] = ()
    is_own: bool = False  # results of an own loop: what a study makes sure of is its author's word

    @property
    def arms(self) -> tuple[ArmResult, ...]:
        """The arms of all cells."""
        return tuple(arm for cell in self.cells for arm in cell.arms)


def label_of(arm: Arm, has_stimuli: bool) -> str:
    """An arm's name in reports; `affect` goes without saying, and so do the stimuli of a study with one set."""
    parts = (MODES[arm.mode], arm.experience if arm.experience != "affect" else None, arm.variant)
    label = ", ".join(part for part in parts if part)
    return f"{label} ({arm.stimuli})" if has_stimuli and arm.stimuli else label
