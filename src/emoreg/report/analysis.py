"""The contents of a report: the arms of each cell, their contrasts, and all measurements."""

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
from emoreg.report.statistics import TIE, Interval
from emoreg.report.verdicts import Verdict
from emoreg.suites.figures import Figure

if TYPE_CHECKING:
    import pandas as pd


REFERENCES = ("none", "ensemble", "wide", "transfer", "unregulated", *RELATIVES)  # modes
# The role of an arm in a comparison; it determines colour and marker.
ROLES = ("Backbone", "affect", *TWINS, *(MODES[mode] for mode in REFERENCES[1:]))


@dataclass(frozen=True)
class Difference:
    """An arm minus others, paired by seed, with its test."""

    against: str | None  # the (hardest) twin's experience, or a reference's mode
    size: Interval
    level: float  # one-sided level of the limits
    # One-sided, corrected for the family, to compare with `level`; for being below if that is the verdict, else above.
    p: float
    decided_at: int | None  # number of seeds at the look that decided for above or below
    verdict: Verdict | None

    @property
    def is_found(self) -> bool:
        """Whether the test passed, in either direction."""
        return self.verdict in (Verdict.ABOVE, Verdict.BELOW)

    @property
    def found_at(self) -> int | None:
        """The number of seeds at the look that decided, if it is an earlier one than that of the size; else None."""
        return self.decided_at if self.decided_at is not None and self.decided_at < self.size.n else None

    @property
    def has_faded(self) -> bool:
        """Whether an earlier look decided and all seeds so far no longer show it."""
        return self.found_at is not None and self.p > self.level + TIE


@dataclass(frozen=True)
class ContrastResult(Difference):
    """What a report shows of a contrast (`contrasts.JudgedContrast`).

    Its size is over seeds and images, with the difference from `against` of every seed as values.
    """

    name: str  # of the contrast, as in `contrasts`; for an arm's own outcome that of the outcome, such as accuracy
    over_seeds: Interval  # over seeds alone
    images: int  # number of test images that `size` covers; 0: it is over seeds alone
    family: int  # number of arms; 0 if nothing is tested
    missing: tuple[str, ...]  # twins
    smallest: float  # difference that the test finds with probability 0.8; NaN if nothing is tested or could pass
    collapsed: int  # number of runs
    extra_seeds: int  # number of seeds beyond the plan; they are not used
    mixed: tuple[str, ...]  # properties in which the runs differ: device, precision, edition
    next_look: int | None  # number of seeds at the next look; None without a plan or when it is complete
    possible_look: int | None = None  # with too few seeds: number of seeds at the next look at which a test can pass
    # Without a plan: arms, and the seeds that they lack and others have; the contrast does not use these seeds.
    lacking: tuple[tuple[Arm, tuple[int, ...]], ...] = ()

    @property
    def versus(self) -> str:
        """ "vs shuffled", if the contrast is against the hardest of several twins; else empty."""
        has_several = self.name in KINDS and KINDS[self.name].twins
        return f"vs {self.against}" if has_several and self.against else ""


@dataclass(frozen=True)
class ArmResult:
    """The results of one arm in one cell. Intervals other than those of contrasts are Student's, over seeds."""

    arm: Arm
    label: str  # "Learn-E-Reg", "Learn-E-Reg, shuffled", "Learn-E-Reg, mixture (oasis)"
    contrasts: Mapping[str, ContrastResult]  # by name, without those against single twins
    twins: tuple[ContrastResult, ...]  # a regulated arm minus each of its twins
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
    flops: int  # of a forward pass on one image
    images_per_second: float  # in training, mean over seeds
    curves: pd.DataFrame  # seed, epoch, train_loss, val_accuracy, lambda, gradient_share, ...: a row per seed and epoch
    # Balanced accuracy, macro F1, top-5 accuracy, mean absolute error and others, by their names in a table of results.
    measures: Mapping[str, Interval] = field(default_factory=dict)
    unlike: tuple[int, ...] = ()  # the numbers of parameters of its networks, if there are several
    omits_lambda_curve: bool = False  # whether `curves` omit a recorded λ that is not the mean over images
    outcome: Outcome = ACCURACY  # the outcome that arms are compared by

    @property
    def score(self) -> Interval:
        """The outcome on the test split, such as accuracy; in an exploration, on validation images."""
        return self.contrasts[self.outcome.name].size

    @property
    def role(self) -> str:
        """One of ROLES: a reference's name, or the experience."""
        is_twin = self.arm.mode not in REFERENCES and self.arm.experience is not None
        return str(self.arm.experience) if is_twin else MODES[self.arm.mode]

    @property
    def number(self) -> int:
        """Index of the role in ROLES, which determines colour and marker."""
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
    """A regulated arm and its twins: the same mode, variant and stimuli, with every experience."""

    title: str  # "Learn-E-Reg, mixture (oasis)"
    arms: tuple[ArmResult, ...]  # in the order of ROLES


@dataclass(frozen=True)
class CellResult:
    """All arms on one target with one backbone. References first, then the modes in their order."""

    target: str
    backbone: str
    purpose: str | None  # exploration, confirmation or, in the first edition, None
    classes: tuple[str, ...]  # names
    benchmark: str | None  # cifar10 or cifar100, if the target is the whole set
    images: int  # number of training images
    has_stimuli: bool  # whether labels name the stimuli, because the study has several
    arms: tuple[ArmResult, ...]
    part: str = ""  # the part of the target that is used, such as "5 of 100 classes"; empty for all of it
    heading: str = ""  # name of the target without the settings that `part` gives; empty to use its label

    @property
    def title(self) -> str:
        """Heading: "cifar10, resnet20", "cifar100 (5 of 100 classes), resnet20"."""
        target = self.heading or self.target
        target = f"{target} ({self.part})" if self.part else target
        return f"{target}, {self.backbone}{'' if self.is_tested else ', exploration'}"

    @property
    def is_tested(self) -> bool:
        """Whether contrasts have tests, as they have outside of explorations."""
        return self.purpose != EXPLORATION

    @property
    def outcome(self) -> Outcome:
        """The outcome that its arms are compared by."""
        return self.arms[0].outcome

    @property
    def references(self) -> tuple[ArmResult, ...]:
        """Backbone, Ensemble, Wide, Transfer, Unregulated and the relatives, as far as they were run."""
        return tuple(arm for arm in self.arms if arm.arm.mode in REFERENCES)

    @property
    def regulated(self) -> tuple[ArmResult, ...]:
        """The arms that are tested."""
        return tuple(arm for arm in self.arms if arm.arm.is_regulated)

    @property
    def families(self) -> tuple[Family, ...]:
        """The families of all other arms. A twin without stimuli (fresh) belongs to the families of all stimuli."""
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
    # On the validation images: ("images", ...), ("chance", ...), each prefixed by the set's name if there are several.
    facts: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class SuiteCell:
    """The scores of a cell's runs in a suite."""

    cell: CellResult
    suite: str
    figures: tuple[Figure, ...]  # the figures shown; contrasts are of the first
    values: Mapping[Arm, Mapping[str, Interval]]  # by arm and figure; Student's, over seeds
    # The tested contrasts of regulated arms in the first figure, over seeds, in the figure's own sign: an arm with a
    # smaller ECE has a negative difference, and the verdict above, which means better.
    contrasts: Mapping[Arm, Mapping[str, Difference]]
    images: str  # description of the images that were scored
    other_options: int  # number of runs left out because they were scored with other options, or on other images


@dataclass(frozen=True)
class Analysis:
    """Everything a report shows of a study."""

    name: str
    cells: tuple[CellResult, ...]
    stage_1: tuple[StageOneResult, ...]
    planned: int  # number of runs in the plan, both stages
    finished: int
    failures: tuple[tuple[str, str], ...]  # (run, error) of runs that are left out
    diverged: tuple[tuple[str, str], ...]  # (run, error) of runs of stage 2 that count as collapsed
    facts: tuple[tuple[str, str], ...]  # settings and machines: (name, value)
    notes: MethodNotes
    left_out: tuple[str, ...]  # what the plan leaves out, with the reason
    contrasts: pd.DataFrame  # the contrast frame
    doses: Doses | None = None  # None unless the stimuli are doses of one experience
    suites: tuple[SuiteCell, ...] = ()
    is_own: bool = False  # results of a user's own training loop, which guarantees less than a study

    @property
    def arms(self) -> tuple[ArmResult, ...]:
        """The arms of all cells."""
        return tuple(arm for cell in self.cells for arm in cell.arms)


def label_of(arm: Arm, has_stimuli: bool) -> str:
    """An arm's name in reports, without the experience `affect` and, in a study with one set, without the stimuli."""
    parts = (MODES[arm.mode], arm.experience if arm.experience != "affect" else None, arm.variant)
    label = ", ".join(part for part in parts if part)
    return f"{label} ({arm.stimuli})" if has_stimuli and arm.stimuli else label
