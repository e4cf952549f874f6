"""The arms that a study compares: the regulated arms, each with its twins, and the references."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from emoreg.config.loss import APART
from emoreg.config.recipe import TrainRecipe, defaults
from emoreg.config.schema import LEARNED, RELATIVES, EncoderSettings, Pretext, Relative
from emoreg.config.setting_types import NAMES_IN_REPORTS
from emoreg.errors import SettingError

RegulatedMode = Literal["fixed", "random", "learned", "random_learned"]
ArmMode = Literal["none", RegulatedMode, "ensemble", "wide", "transfer", "unregulated", Relative]
Experience = Literal["affect", "fresh", "moments", "shuffled", "neutral", "rotation"]
Reference = Literal["backbone", "ensemble", "wide", "transfer", "unregulated"]

# Names in reports, as in docs/method.md.
LABELS: Mapping[ArmMode, str] = {
    **{cast(ArmMode, mode): name for name, mode in NAMES_IN_REPORTS.items()},
    "ensemble": "Ensemble",
    "wide": "Wide",
    "transfer": "Transfer",
    "unregulated": "Unregulated",
}
REGULATED: tuple[RegulatedMode, ...] = get_args(RegulatedMode)
EXPERIENCES: tuple[Experience, ...] = get_args(Experience)
# What the encoder learns in stage 1, for every experience that has one. `moments` takes only the scale of its weights,
# and its biases and gains, from the run of affect.
PRETEXTS: Mapping[Experience, Pretext] = {
    "affect": "affect",
    "moments": "affect",
    "shuffled": "shuffled",
    "neutral": "neutral",
    "rotation": "rotation",
}
SHARED_LOSS_SETTINGS = ("label_smoothing", "class_weights")  # the same in all arms and references
MAX_SEEDS = 1_000


@dataclass(frozen=True)
class PlannedArm:
    """What a plan knows of an arm: how λ is made, and what the encoder has experienced.

    With a variant and stimuli it is an arm of the report (`run_frame.Arm`).

    Args:
        mode: a key of `LABELS`.
        experience: one of `EXPERIENCES`; None for Backbone, ensemble, wide and the relatives.
    """

    mode: ArmMode
    experience: Experience | None = None

    @property
    def has_regulated_mode(self) -> bool:
        """True for regulated arms and their twins, which have an emotional branch and a mode of the method."""
        return self.mode in REGULATED

    @property
    def has_variants(self) -> bool:
        """True if variants apply to the arm: it has the two networks of the method."""
        return self.has_regulated_mode or self.mode == "unregulated"

    @property
    def pretext(self) -> Pretext | None:
        """The task of its encoder in stage 1; None for an arm without stage 1."""
        return None if self.experience is None else PRETEXTS.get(self.experience)


REFERENCES: Mapping[Reference, PlannedArm] = {
    "backbone": PlannedArm("none"),
    "ensemble": PlannedArm("ensemble"),
    "wide": PlannedArm("wide"),
    "transfer": PlannedArm("transfer", "affect"),
    "unregulated": PlannedArm("unregulated", "affect"),
}
# The default of a study's file. It must not change: stored studies keep their plan.
USUAL_REFERENCES: tuple[Reference, ...] = ("backbone", "ensemble", "wide", "transfer")


def factorial(
    modes: Sequence[RegulatedMode] = ("learned",),
    experiences: Sequence[Experience] = EXPERIENCES,
    references: Sequence[Reference] = USUAL_REFERENCES,
    relatives: Sequence[Relative] = (),
) -> tuple[PlannedArm, ...]:
    """Cross modes with experiences, and add references and relatives; Backbone comes first."""
    regulated = [PlannedArm(mode, experience) for mode in modes for experience in experiences]
    others = [REFERENCES[name] for name in sorted(references, key=list(REFERENCES).index)]
    first = [arm for arm in others if arm.mode == "none"]
    earlier = [PlannedArm(name) for name in sorted(relatives, key=RELATIVES.index)]
    return (*first, *regulated, *(arm for arm in others if arm.mode != "none"), *earlier)


def recipe_of(arm: PlannedArm, recipe: TrainRecipe, pretraining: Path | str | None, seed: int) -> TrainRecipe:
    """Derive the recipe of one run from the study's.

    Settings that do not apply to the arm are reset: those of a second branch for networks without one, the granularity
    of a λ that is not learned, the takeover of an encoder without stage 1. The ensemble is two plain backbones, each
    trained by its own loss alone on the same batches, whose probabilities are averaged. `unregulated` is the same with
    the encoder of stage 1 as its second network.

    Args:
        arm: of the run.
        recipe: the study's; with the variant's settings for an arm that has variants, and with the wider backbone for
            `wide`.
        pretraining: folder of the stage-1 run, for arms with a pretext.
        seed: of the run.
    """
    recipe = dataclasses.replace(recipe, seed=seed)
    stage_1 = None if arm.pretext is None else str(pretraining)
    default: TrainRecipe = defaults(TrainRecipe, recipe.edition)
    encoder, regulation = EncoderSettings(), default.regulation
    loss = dataclasses.replace(default.loss, **{name: getattr(recipe.loss, name) for name in SHARED_LOSS_SETTINGS})
    match arm.mode:
        case "embp" | "bel" | "liaenn":
            regulation = dataclasses.replace(regulation, mode=arm.mode)
        case "transfer":
            kept = {name: getattr(recipe.encoder, name) for name in ("takeover", "shrink", "anchor", "rehearsal")}
            encoder = EncoderSettings(stage_1, recipe.encoder.backbone, **kept)
            regulation = dataclasses.replace(regulation, mode="transfer")
        case "ensemble" | "unregulated":
            encoder = EncoderSettings(backbone=recipe.backbone)
            if arm.mode == "unregulated":
                encoder = dataclasses.replace(recipe.encoder, experience=stage_1)
            regulation = dataclasses.replace(regulation, mode="fixed", mix="probabilities")
            loss = dataclasses.replace(loss, **APART._asdict())
        case "fixed" | "random" | "learned" | "random_learned":
            encoder, regulation, loss = _regulated_encoder(arm, recipe.encoder, stage_1), recipe.regulation, recipe.loss
            if arm.mode not in LEARNED:  # only a learned λ has a granularity and a warm-up
                regulation = dataclasses.replace(regulation, granularity="scalar", warmup=0.0)
            regulation = dataclasses.replace(regulation, mode=arm.mode)
    return dataclasses.replace(recipe, encoder=encoder, regulation=regulation, loss=loss)


def _regulated_encoder(arm: PlannedArm, encoder: EncoderSettings, stage_1: str | None) -> EncoderSettings:
    if arm.experience in ("fresh", "moments"):  # neither has learned anything to rehearse
        encoder = dataclasses.replace(encoder, rehearsal=0.0)
    encoder = dataclasses.replace(encoder, experience=stage_1, moments_only=arm.experience == "moments")
    if stage_1 is None:
        fresh = EncoderSettings()
        encoder = dataclasses.replace(encoder, takeover=fresh.takeover, shrink=fresh.shrink)
    return encoder


def check_seeds(key: str, seeds: int) -> None:
    """Raise SettingError for a number of seeds outside 1 to `MAX_SEEDS`."""
    if not 1 <= seeds <= MAX_SEEDS:
        raise SettingError(key, f"must be 1 to {MAX_SEEDS:,}, not {seeds}")


def check_once(key: str, names: Sequence[str]) -> None:
    """Raise SettingError for a name that a list has twice."""
    for number, name in enumerate(names):
        if name in names[:number]:
            raise SettingError(f"{key}[{number}]", f"'{name}' appears twice")
