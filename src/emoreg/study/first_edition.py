"""What reading studies of the first edition needs: their files, their arms, and their tables of results."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from emoreg.config.read_recipe import build
from emoreg.config.recipe import PretrainRecipe, TrainRecipe, defaults
from emoreg.errors import SettingError, nearest, shortened
from emoreg.study.arms import REFERENCES, Arm, Experience, RegulatedMode, check_once, check_seeds
from emoreg.study.columns import RunStatus
from emoreg.study.kept_data import KeptData

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
OF_ITS_ARM = "is a key of the first edition; leave it out: twins have the mode of their arm"
FACTORS = ("modes", "experiences", "references")  # today's keys for its arms
WORDS = {"pretraining": "experience", "stimuli": "experiences"}  # what its study files called today's keys
TODAY = {old: today for today, old in WORDS.items()}
# Columns of its tables; their `experience` is today's `stimuli`, and the last was empty: its parts have columns.
GONE = ("arm", "pretext", "recipe.encoder.backbone")
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
    data: tuple[KeptData, ...] = ()
    smoke: bool = False

    def __post_init__(self) -> None:
        if not self.arms:
            raise SettingError("arms", "must name at least one arm")
        for number, arm in enumerate(self.arms):
            if arm not in NAMES:
                raise SettingError(f"arms[{number}]", f"no arm is called '{arm}'{nearest(arm, NAMES)}")
        check_once("arms", self.arms)
        check_seeds("seeds", self.seeds)


def old_key(values: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first key of the first edition in a file of a later one, with what to write instead; None if it has none."""
    for key in _old_keys(values):
        match key:
            case "arms":
                return key, f"is a key of the first edition; write {_shown(_nearest_factors(values['arms']))}"
            case "control_mode":
                return key, OF_ITS_ARM
            case "experience":
                return key, "is a key of the first edition; write pretraining: with the same settings"
            case _:
                return key, "holds the settings of stage 1, as in the first edition; write stimuli: with the same list"
    return None


class Translation(NamedTuple):
    """A file of the first edition in today's words."""

    values: dict[str, Any]
    keys: dict[str, tuple[str, ...]]  # today's keys in place of each key of the first edition
    read_as: str  # what was taken for what, in a line

    def lines(self, lines: Mapping[str, int]) -> dict[str, int]:
        """The lines of dotted keys, by today's."""
        moved: dict[str, int] = {}
        for key, line in lines.items():
            head = re.split(r"[.[]", key, maxsplit=1)[0]
            moved |= {f"{today}{key[len(head) :]}": line for today in self.keys.get(head, (head,))}
        return moved


def translated(values: Mapping[str, Any]) -> Translation | None:
    """A study's file that does not say its edition, with today's keys in place of the first edition's.

    Args:
        values: of the file.

    Returns:
        None if it has none of them.

    Raises:
        SettingError: today's keys cannot say the same, or the file says it in both ways. It names the line to write.
    """
    old = _old_keys(values)
    if not old:
        return None
    keys: dict[str, tuple[str, ...]] = {key: (TODAY[key],) for key in old if key in TODAY}
    parts = [f"{key} as {today}" for key, (today,) in keys.items()]
    factors: Mapping[str, Sequence[str]] = {}
    if "arms" in values:
        factors = _factors_of(values)
        keys["arms"] = tuple(factors)
        parts.insert(0, f"arms as {_shown(factors)}")
    elif "control_mode" in values:
        raise SettingError("control_mode", OF_ITS_ARM)
    elif not any(key in values and key not in keys for key in FACTORS):
        reason = f"is a key of the first edition, where a study without arms ran all of them; write {keys[old[0]][0]}:"
        raise SettingError(old[0], f"{reason} with the same settings, and {_shown(_nearest_factors(None))}")
    if "control_mode" in values:
        keys["control_mode"] = ()
        parts.append("control_mode as the mode of its arm")
    for key, today in keys.items():
        if twice := [name for name in today if name in values and name not in keys]:
            raise SettingError(key, f"is what the first edition called {twice[0]}, which is there too; keep one")
    kept = {key: value for key, value in values.items() if key not in keys}
    moved = {TODAY[key]: values[key] for key in keys if key in TODAY}
    return Translation({**factors, **kept, **moved}, keys, "; ".join(parts))


def _old_keys(values: Mapping[str, Any]) -> list[str]:
    """The keys of the first edition in a file. Today's `experiences` is a list of names."""
    of_settings = {
        "experience": isinstance(values.get("experience"), Mapping),
        "experiences": isinstance(parts := values.get("experiences"), list)
        and any(isinstance(part, Mapping) for part in parts),
    }
    return [key for key in values if of_settings.get(key, key in ("arms", "control_mode"))]


def _factors_of(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """Today's keys for the arms of a file; SettingError unless they are the same arms."""
    given = {key: values[key] for key in ("arms", "control_mode") if key in values}
    file: StudyFile = build(StudyFile(), given)
    factors = _nearest_factors(file.arms, file.control_mode)
    regulated = set(itertools.product(factors["modes"], factors["experiences"]))
    wanted = {arm_of(name, file.control_mode) for name in file.arms}
    if {(arm.mode, arm.experience) for arm in wanted if arm.is_regulated} != regulated:
        names = ", ".join(name for name in file.arms if name in CONTROLS)
        raise SettingError(
            "arms",
            f"is a key of the first edition, and now twins ({names}) go with affect, in every mode: write "
            f"{_shown(factors)}, or edition: 1 for the study as it was",
        )
    return factors


def _nearest_factors(arms: Any, control_mode: RegulatedMode = "learned") -> dict[str, list[str]]:
    """Today's keys for a list of arms, or for all; with twins, at least for these arms."""
    names = [name for name in NAMES if isinstance(arms, list | tuple) and name in arms] or NAMES
    found = [OTHERS[name] for name in names if name in OTHERS]
    twins: list[str] = [CONTROLS[name] for name in names if name in CONTROLS]
    modes: list[str] = [arm.mode for arm in found if arm.is_regulated]
    if twins and not modes:
        modes = [control_mode]
    return {
        "modes": modes,
        "experiences": ["affect", *twins] if modes else [],
        "references": [name for name, arm in REFERENCES.items() if arm in found],
    }


def _shown(factors: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(f"{key}: [{', '.join(names)}]" for key, names in factors.items())


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

    Args:
        table: with all columns of `columns.FIXED`.

    Raises:
        ValueError: an arm that the first edition did not have, or a control without its mode.
    """
    if "arm" not in table:
        return table
    old = table["edition"].isna()
    new = table.drop(columns=[name for name in GONE if name in table])
    old_rows = table.reindex(columns=["arm", "pretext", "experience", CONTROL_MODE])[old]
    factors = [_factors(*row) for row in zip(old_rows["arm"], old_rows["pretext"], old_rows[CONTROL_MODE], strict=True)]
    values: dict[str, list[Any]] = {
        "stimuli": old_rows["experience"].tolist(),
        "mode": [mode for mode, _ in factors],
        "experience": [experience for _, experience in factors],
        "edition": [EDITION] * len(old_rows),
    }
    for name, of_old in values.items():
        column = new[name].astype(object)
        column[old] = of_old
        new[name] = column
    done = new[old & (new["stage"] == 2) & (new["status"] == RunStatus.FINISHED)]
    if len(done) and done["test_accuracy"].isna().all():  # it had no word for explorations
        new.loc[old, "purpose"] = "exploration"
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
