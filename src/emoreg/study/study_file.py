"""The keys of a study's file: base recipes, the factors that are crossed, and partial recipes laid over the base.

docs/study.md has an example.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from emoreg.config.recipe import EDITION, PretrainRecipe, TrainRecipe
from emoreg.config.schema import Relative
from emoreg.errors import SettingError
from emoreg.study.arms import (
    EXPERIENCES,
    USUAL_REFERENCES,
    Experience,
    Reference,
    RegulatedMode,
    check_once,
    check_seeds,
)
from emoreg.study.definition import Purpose
from emoreg.study.kept_data import KeptData
from emoreg.study.machine import Machine
from emoreg.suites.options import Suite, check_suites


@dataclass(frozen=True)
class BackboneFile(TrainRecipe):
    """A backbone with the training that suits it, in both stages."""

    pretraining: PretrainRecipe = field(default_factory=PretrainRecipe)
    """Stage 1 of its encoders."""


@dataclass(frozen=True)
class VariantFile:
    """Settings that are laid over the recipes of networks with two branches."""

    name: str | None = None
    """Name in reports; every variant needs its own."""
    classifier: TrainRecipe = field(default_factory=TrainRecipe)
    """Stage 2: encoder, regulation and loss, except label smoothing and class weights. All other settings are shared
    with the references."""
    pretraining: PretrainRecipe = field(default_factory=PretrainRecipe)
    """Stage 1."""


@dataclass(frozen=True)
class StudyFile:
    """The keys of a study's file. Recipes may be partial: omitted settings keep the value of the recipe underneath, or
    else their default."""

    edition: int = EDITION
    """Edition of the method (docs/method.md)."""
    purpose: Purpose = "confirmation"
    """exploration (10 % of the training images are held out for validation unless classifier.target.validation says
    otherwise, the test split stays unseen, seeds count from 1000, no verdicts) or confirmation (all training images,
    seeds from 0)."""
    modes: tuple[RegulatedMode, ...] = ("learned",)
    """How λ is made: fixed, random, learned, random_learned."""
    experiences: tuple[Experience, ...] = EXPERIENCES
    """What the encoder has experienced, in every mode: affect, and its twins fresh, moments, shuffled, neutral,
    rotation. Without a twin there is no verdict on what it would rule out."""
    references: tuple[Reference, ...] = USUAL_REFERENCES
    """Networks without a regulation, once per target, backbone and seed: backbone, ensemble, wide, transfer,
    unregulated. The last two are run once per stimulus set."""
    relatives: tuple[Relative, ...] = ()
    """Earlier networks with emotions of their own as heads of the backbone, once per target, backbone and seed: embp,
    bel, liaenn (docs/relatives.md). Counted as references: no twins, no verdict."""
    seeds: int = 8
    """Planned runs of each arm, at most 1,000. Further seeds get no verdict."""
    looks: tuple[int, ...] | None = None
    """Numbers of seeds at which verdicts are given, ascending; the last is `seeds`. null for one look at the end."""
    first_seed: int | None = None
    """The first of the seeds; the others follow it. null: 0, or 1000 in an exploration. A replication takes seeds that
    no earlier study had. Confirmations have seeds below 1000, explorations from 1000."""
    run_seeds: int | None = None
    """Number of seeds to run for now, possibly more than planned; null for `seeds`. emoreg study --seeds sets it."""
    pretraining: PretrainRecipe = field(default_factory=PretrainRecipe)
    """Stage 1. The encoder has the architecture of classifier.encoder.backbone, or else of classifier.backbone; its
    image size is the target's unless given here."""
    stimuli: tuple[PretrainRecipe, ...] = ()
    """Stimulus sets, each laid over `pretraining`; at most 100."""
    classifier: TrainRecipe = field(default_factory=TrainRecipe)
    """Stage 2."""
    targets: tuple[TrainRecipe, ...] = ()
    """Targets, each laid over `classifier`; at most 100."""
    backbones: tuple[BackboneFile, ...] = ()
    """Backbones with the training that suits them, each laid over every target; at most 100. `pretraining` in one is
    stage 1 of its encoders, laid over every stimulus set."""
    variants: tuple[VariantFile, ...] = ()
    """Variants of the method, each laid over the recipes of networks with two branches; at most 100. Without any, the
    base recipes are the only variant; with some, only these are run."""
    suites: tuple[Suite, ...] = ()
    """Suites in which every finished arm, twin and reference is scored: names (corruptions, calibration,
    out_of_distribution, adversarial, transfer, human_uncertainty), or mappings of a name to its options. They change no
    run."""
    machine: Machine | None = None
    """What training.device and training.precision of auto stand for; null for this machine. emoreg study writes it
    into the copy in the study's folder."""
    stem: Literal["auto", "cifar"] | None = None
    """Stem of backbones that specify none. null: auto in a file, cifar in the copy of a study that was started before
    auto existed. emoreg study writes it into the copy in the study's folder."""
    data: tuple[KeptData, ...] = ()
    """Checksums of the images when the study started. emoreg study writes them into the copy in the study's folder."""
    smoke: bool = False
    """Whether the study only checks that it runs: its plan may change. emoreg study --smoke writes it into the copy in
    the study's folder."""

    def __post_init__(self) -> None:
        for key in ("modes", "experiences", "references", "relatives"):
            check_once(key, getattr(self, key))
        if not self.modes and not self.references and not self.relatives:
            raise SettingError("modes", "must name at least one, or references or relatives must")
        if self.modes and "affect" not in self.experiences:
            raise SettingError("experiences", "must name affect: the others are its twins, to be compared with it")
        check_seeds("seeds", self.seeds)
        check_seeds("run_seeds", self.seeds if self.run_seeds is None else self.run_seeds)
        check_suites(self.suites)
