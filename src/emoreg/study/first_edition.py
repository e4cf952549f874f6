"""What reading studies of the first edition needs: their files, their arms, and their tables of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from emoreg.config.schema import PretrainRecipe, TrainRecipe, defaults
from emoreg.errors import SettingError, nearest, shortened
from emoreg.study.arms import REFERENCES, Arm, Experience, RegulatedMode, check_once, check_seeds

if TYPE_CHECKING:
    import pandas as pd

EDITION = 1
# Experience of the controls, whose mode was the study's `control_mode`, whatever the arms' own.
CONTROLS: Mapping[str, Experience] = {
    "random_encoder": "fresh",
    "shuffled_affect": "shuffled",
    "neutral_pretext": "rotation",
}
OTHERS: Mapping[str, Arm] = {
    "backbone": Arm("none"),
    "fixed": Arm("fixed", "affect"),
    "random": Arm("random", "affect"),
    "learned": Arm("learned", "affect"),
    "random_learned": Arm("random_learned", "affect"),
    "ensemble": Arm("ensemble"),
}
NAMES = ("backbone", "fixed", "random", "learned", "random_learned", *CONTROLS, "ensemble")
WORDS = {"pretraining": "experience", "stimuli": "experiences"}  # what its study files called today's keys
GONE = ("arm", "pretext")  # columns of its tables; their `experience` is today's `stimuli`
CONTROL_MODE = "recipe.regulation.mode"  # column


@dataclass(frozen=True)
class StudyFile:
    """The keys of a study's file."""

    edition: int = EDITION
    arms: tuple[str, ...] = NAMES
    seeds: int = 5
    control_mode: RegulatedMode = "learned"
    experience: PretrainRecipe = field(default_factory=lambda: defaults(PretrainRecipe, EDITION))
    experiences: tuple[PretrainRecipe, ...] = ()
    classifier: TrainRecipe = field(default_factory=lambda: defaults(TrainRecipe, EDITION))
    targets: tuple[TrainRecipe, ...] = ()
    backbones: tuple[TrainRecipe, ...] = ()

    def __post_init__(self) -> None:
        if not self.arms:
            raise SettingError("arms", "must name at least one arm")
        for number, arm in enumerate(self.arms):
            if arm not in NAMES:
                raise SettingError(f"arms[{number}]", f"no arm is called '{arm}'{nearest(arm, NAMES)}")
        check_once("arms", self.arms)
        check_seeds("seeds", self.seeds)


def old_key(values: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first key of the first edition in a current file, with what to write instead; None if there is none."""
    for key, value in values.items():
        match key:
            case "arms":
                return key, f"is a key of the first edition; write {_translated(value)}"
            case "control_mode":
                return key, "is a key of the first edition; leave it out: twins have the mode of their arm"
            case "experience":
                return key, "is a key of the first edition; write pretraining: with the same settings"
            case "experiences" if isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
                return key, "holds the settings of stage 1, as in the first edition; write stimuli: with the same list"
    return None


def _translated(arms: Any) -> str:
    """Today's keys for a list of arms."""
    names = [name for name in NAMES if isinstance(arms, list) and name in arms] or NAMES
    found = [OTHERS[name] for name in names if name in OTHERS]
    twins = [CONTROLS[name] for name in names if name in CONTROLS]
    lists: dict[str, Sequence[str]] = {
        "modes": [arm.mode for arm in found if arm.is_regulated],
        "experiences": ["affect", *twins],
        "references": [name for name, arm in REFERENCES.items() if arm in found],
    }
    return ", ".join(f"{key}: [{', '.join(listed)}]" for key, listed in lists.items())


def arm_of(name: str, control_mode: RegulatedMode) -> Arm:
    """An arm by its name in the first edition.

    Args:
        name: one of `NAMES`.
        control_mode: regulation mode of the controls.
    """
    return Arm(control_mode, CONTROLS[name]) if name in CONTROLS else OTHERS[name]


def name_of(arm: Arm) -> str:
    """The name that an arm had in the first edition, which stands in the names of its run folders."""
    known = {own: name for name, own in OTHERS.items()}
    known |= {Arm(arm.mode, twin): name for name, twin in CONTROLS.items()}
    return known[arm]


def with_modes(table: pd.DataFrame) -> pd.DataFrame:
    """A table of results with the rows of the first edition as today's; any other comes back as it is.

    Raises:
        ValueError: an arm that the first edition did not have, or a control without its mode.
    """
    if "arm" not in table:
        return table
    import pandas as pd

    old = table["edition"].isna() if "edition" in table else pd.Series(True, index=table.index)
    new = table.drop(columns=[name for name in GONE if name in table])
    for name in ("mode", "variant", "stimuli", "edition"):
        if name not in new:
            new[name] = None
    own = table.reindex(columns=["arm", "pretext", "experience", CONTROL_MODE])[old]
    factors = [_factors(*row) for row in zip(own["arm"], own["pretext"], own[CONTROL_MODE], strict=True)]
    values: dict[str, list[Any]] = {
        "stimuli": own["experience"].tolist(),
        "mode": [mode for mode, _ in factors],
        "experience": [experience for _, experience in factors],
        "edition": [EDITION] * len(own),
    }
    for name, of_old in values.items():
        column = new[name].astype(object)
        column[old] = of_old
        new[name] = column
    return new


def _factors(name: Any, pretext: Any, mode: Any) -> tuple[str | None, str | None]:
    """Today's mode and experience of a row: of an arm in stage 2, of a pretext in stage 1."""
    if not isinstance(name, str):
        return None, pretext if isinstance(pretext, str) else None
    if name not in NAMES:
        raise ValueError(f"no arm is called '{shortened(name)}'{nearest(name, NAMES)}")
    if name in CONTROLS and not isinstance(mode, str):
        raise ValueError(f"a control '{name}' lacks its mode: the column '{CONTROL_MODE}' tells it")
    arm = arm_of(name, mode)
    return arm.mode, arm.experience
