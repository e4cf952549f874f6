"""What a study compares: the regulated arms, each with its twins, and the references."""

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
# What an encoder has experienced: the stimuli's true labels, or, in a twin (ours), something else.
EXPERIENCES: tuple[Experience, ...] = get_args(Experience)
# What the encoder learns in stage 1, for every experience that has one. `moments` keeps only what affect's run
# tells of the scale of its weights.
PRETEXTS: Mapping[Experience, Pretext] = {
    "affect": "affect",
    "moments": "affect",
    "shuffled": "shuffled",
    "neutral": "neutral",
    "rotation": "rotation",
}
SHARED_OF_LOSS = ("label_smoothing", "class_weights")  # settings of the loss that all arms have, the references too
MAX_SEEDS = 1_000  # more than anybody has time for


@dataclass(frozen=True)
class Arm:
    """One thing that is compared: how λ is made, and what the encoder has experienced.

    Args:
        mode: a key of `LABELS`.
        experience: one of `EXPERIENCES`; None for Backbone, ensemble, wide and the relatives, whose networks have none.
    """

    mode: ArmMode
    experience: Experience | None = None

    @property
    def is_regulated(self) -> bool:
        """Whether it has an emotional branch: the method's own arms and their twins."""
        return self.mode in REGULATED

    @property
    def has_variants(self) -> bool:
        """Whether every variant of a study has its own: whatever has the two networks of the method."""
        return self.is_regulated or self.mode == "unregulated"

    @property
    def pretext(self) -> Pretext | None:
        """What its encoder learns in stage 1; None for an arm without stage 1."""
        return None if self.experience is None else PRETEXTS.get(self.experience)


REFERENCES: Mapping[Reference, Arm] = {
    "backbone": Arm("none"),
    "ensemble": Arm("ensemble"),
    "wide": Arm("wide"),
    "transfer": Arm("transfer", "affect"),
    "unregulated": Arm("unregulated", "affect"),
}
# What a study has that names none. It stays as it is, so that stored studies keep their plan.
USUAL_REFERENCES: tuple[Reference, ...] = ("backbone", "ensemble", "wide", "transfer")


def factorial(
    modes: Sequence[RegulatedMode] = ("learned",),
    experiences: Sequence[Experience] = EXPERIENCES,
    references: Sequence[Reference] = USUAL_REFERENCES,
    relatives: Sequence[Relative] = (),
) -> tuple[Arm, ...]:
    """Every mode with every experience, the references, and the relatives; Backbone first."""
    regulated = [Arm(mode, experience) for mode in modes for experience in experiences]
    others = [REFERENCES[name] for name in sorted(references, key=list(REFERENCES).index)]
    first = [arm for arm in others if arm.mode == "none"]
    earlier = [Arm(name) for name in sorted(relatives, key=RELATIVES.index)]
    return (*first, *regulated, *(arm for arm in others if arm.mode != "none"), *earlier)


def recipe_of(arm: Arm, recipe: TrainRecipe, pretraining: Path | str | None, seed: int) -> TrainRecipe:
    """The recipe of one run. It differs from `recipe` in what the arm says, and in the seed.

    Settings that do not apply to the arm are reset: those of a second branch for networks without one, the granularity
    of a λ that is not learned, the takeover of an encoder without stage 1. The ensemble is two plain backbones, each
    trained by its own loss alone on the same batches; their probabilities are averaged. So it is with `unregulated`,
    whose second network is the encoder of stage 1.

    Args:
        arm: what to compare. For `wide`, `recipe` has the wider backbone already.
        recipe: the study's, with the variant's settings for an arm that is regulated.
        pretraining: folder of the stage-1 run, for arms with a pretext.
        seed: of the run.
    """
    recipe = dataclasses.replace(recipe, seed=seed)
    default: TrainRecipe = defaults(TrainRecipe, recipe.edition)
    encoder, regulation = recipe.encoder, recipe.regulation
    plain = dataclasses.replace(default.loss, **{name: getattr(recipe.loss, name) for name in SHARED_OF_LOSS})
    stage_1 = None if arm.pretext is None else str(pretraining)
    match arm.mode:
        case "none" | "wide":
            return dataclasses.replace(recipe, encoder=EncoderSettings(), regulation=default.regulation, loss=plain)
        case "embp" | "bel" | "liaenn":
            head = dataclasses.replace(default.regulation, mode=arm.mode)
            return dataclasses.replace(recipe, encoder=EncoderSettings(), regulation=head, loss=plain)
        case "transfer":
            kept = {name: getattr(encoder, name) for name in ("takeover", "shrink", "anchor", "rehearsal")}
            taken_over = EncoderSettings(stage_1, encoder.backbone, **kept)
            alone = dataclasses.replace(default.regulation, mode="transfer")
            return dataclasses.replace(recipe, encoder=taken_over, regulation=alone, loss=plain)
        case "ensemble" | "unregulated":
            second = EncoderSettings(backbone=recipe.backbone)
            if arm.mode == "unregulated":
                second = dataclasses.replace(encoder, experience=stage_1)
            return dataclasses.replace(
                recipe,
                encoder=second,
                regulation=dataclasses.replace(default.regulation, mode="fixed", mix="probabilities"),
                loss=dataclasses.replace(plain, **APART._asdict()),
            )
    if arm.mode not in LEARNED:  # only a learned λ can differ between classes or samples, and be held at its start
        regulation = dataclasses.replace(regulation, granularity="scalar", warmup=0.0)
    if arm.experience in ("fresh", "moments"):  # neither has learned anything that it could rehearse
        encoder = dataclasses.replace(encoder, rehearsal=0.0)
    encoder = dataclasses.replace(encoder, experience=stage_1, moments_only=arm.experience == "moments")
    if stage_1 is None:
        fresh = EncoderSettings()
        encoder = dataclasses.replace(encoder, takeover=fresh.takeover, shrink=fresh.shrink)
    return dataclasses.replace(recipe, encoder=encoder, regulation=dataclasses.replace(regulation, mode=arm.mode))


def check_seeds(key: str, seeds: int) -> None:
    """SettingError for a number of seeds outside 1 to `MAX_SEEDS`."""
    if not 1 <= seeds <= MAX_SEEDS:
        raise SettingError(key, f"must be 1 to {MAX_SEEDS:,}, not {seeds}")


def check_once(key: str, names: Sequence[str]) -> None:
    """SettingError for a name that a list has twice."""
    for number, name in enumerate(names):
        if name in names[:number]:
            raise SettingError(f"{key}[{number}]", f"'{name}' appears twice")
