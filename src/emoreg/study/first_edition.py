"""Read studies of the first edition: their files, arms and tables of results."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from emoreg.config.read_recipe import build
from emoreg.config.recipe import PretrainRecipe, TrainRecipe, defaults
from emoreg.errors import SettingError, nearest, shortened
from emoreg.study.arms import REFERENCES, Experience, PlannedArm, RegulatedMode, check_once, check_seeds
from emoreg.study.columns import RunStatus
from emoreg.study.kept_data import KeptData

if TYPE_CHECKING:
    import pandas as pd

EDITION = 1
# Experience of the controls. Their mode was the study's `control_mode`, whatever the modes of the arms.
CONTROLS: Mapping[str, Experience] = {
    "random_encoder": "fresh",
    "shuffled_affect": "shuffled",
    "neutral_pretext": "rotation",
}
OTHERS: Mapping[str, PlannedArm] = {
    "backbone": PlannedArm("none"),
    "fixed": PlannedArm("fixed", "affect"),
    "random": PlannedArm("random", "affect"),
    "learned": PlannedArm("learned", "affect"),
    "random_learned": PlannedArm("random_learned", "affect"),
    "ensemble": PlannedArm("ensemble"),
}
NAMES = ("backbone", "fixed", "random", "learned", "random_learned", *CONTROLS, "ensemble")
OF_ITS_ARM = "is a key of the first edition; leave it out: twins have the mode of their arm"
FACTORS = ("modes", "experiences", "references")  # the current keys that replace `arms`
WORDS = {"pretraining": "experience", "stimuli": "experiences"}  # current keys and their names in the first edition
TODAY = {old: today for today, old in WORDS.items()}
# Columns that only tables of the first edition have. Their `experience` is now called `stimuli`.
GONE = ("arm", "pretext", "recipe.encoder.backbone")
CONTROL_MODE = "recipe.regulation.mode"  # column


@dataclass(frozen=True)
class StudyFile:
    """The keys of a study's file in the first edition."""

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
    """The first key of the first edition in a file of a later one, with advice what to write; None if it has none."""
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
    """A file of the first edition, converted to current keys."""

    values: dict[str, Any]
    keys: dict[str, tuple[str, ...]]  # by key of the first edition, the current keys that replace it
    read_as: str  # how the keys were converted, in a line

    def lines(self, lines: Mapping[str, int]) -> dict[str, int]:
        """Convert line numbers by dotted key to current keys."""
        moved: dict[str, int] = {}
        for key, line in lines.items():
            head = re.split(r"[.[]", key, maxsplit=1)[0]
            moved |= {f"{today}{key[len(head) :]}": line for today in self.keys.get(head, (head,))}
        return moved


def translated(values: Mapping[str, Any]) -> Translation | None:
    """Convert a study's file without an edition from keys of the first edition to current ones.

    Args:
        values: of the file.

    Returns:
        None if it has no key of the first edition.

    Raises:
        SettingError: current keys cannot express the same, or the file has both keys. The error says what to write.
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
    else:
        _refuse_without_arms(values, old)
    if "control_mode" in values:
        keys["control_mode"] = ()
        parts.append("control_mode as the mode of its arm")
    for key, today in keys.items():
        if twice := [name for name in today if name in values and name not in keys]:
            raise SettingError(key, f"is what the first edition called {twice[0]}, which the file has too; keep one")
    kept = {key: value for key, value in values.items() if key not in keys}
    moved = {TODAY[key]: values[key] for key in keys if key in TODAY}
    return Translation({**factors, **kept, **moved}, keys, "; ".join(parts))


def _refuse_without_arms(values: Mapping[str, Any], old: Sequence[str]) -> None:
    """Raise SettingError unless a file without `arms` has current keys instead: the first edition ran all arms then."""
    if "control_mode" in values:
        raise SettingError("control_mode", OF_ITS_ARM)
    if not any(key in values and key not in old for key in FACTORS):
        reason = f"is a key of the first edition, where a study without arms ran all of them; write {TODAY[old[0]]}:"
        raise SettingError(old[0], f"{reason} with the same settings, and {_shown(_nearest_factors(None))}")


def _old_keys(values: Mapping[str, Any]) -> list[str]:
    """The keys of the first edition in a file. Its `experiences` were settings; today they are a list of names."""
    old = {"arms", "control_mode"}
    if isinstance(values.get("experience"), Mapping):
        old.add("experience")
    experiences = values.get("experiences")
    if isinstance(experiences, list) and any(isinstance(each, Mapping) for each in experiences):
        old.add("experiences")
    return [key for key in values if key in old]


def _factors_of(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """Convert `arms` to current keys. Raises SettingError if these cannot name the same arms."""
    given = {key: values[key] for key in ("arms", "control_mode") if key in values}
    file: StudyFile = build(StudyFile(), given)
    factors = _nearest_factors(file.arms, file.control_mode)
    regulated = set(itertools.product(factors["modes"], factors["experiences"]))
    wanted = {arm_of(name, file.control_mode) for name in file.arms}
    if {(arm.mode, arm.experience) for arm in wanted if arm.has_regulated_mode} != regulated:
        names = ", ".join(name for name in file.arms if name in CONTROLS)
        raise SettingError(
            "arms",
            f"is a key of the first edition, and now twins ({names}) go with affect, in every mode: write "
            f"{_shown(factors)}, or edition: 1 for the study as it was",
        )
    return factors


def _nearest_factors(arms: Any, control_mode: RegulatedMode = "learned") -> dict[str, list[str]]:
    """Current keys for at least these arms, or for all arms if none is named: twins apply to every mode."""
    names = [name for name in NAMES if isinstance(arms, list | tuple) and name in arms] or NAMES
    others = [OTHERS[name] for name in names if name in OTHERS]
    twins: list[str] = [CONTROLS[name] for name in names if name in CONTROLS]
    modes: list[str] = [arm.mode for arm in others if arm.has_regulated_mode]
    if twins and not modes:
        modes = [control_mode]
    return {
        "modes": modes,
        "experiences": ["affect", *twins] if modes else [],
        "references": [name for name, arm in REFERENCES.items() if arm in others],
    }


def _shown(factors: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(f"{key}: [{', '.join(names)}]" for key, names in factors.items())


def arm_of(name: str, control_mode: RegulatedMode) -> PlannedArm:
    """Return the arm with a name of the first edition.

    Args:
        name: one of `NAMES`.
        control_mode: regulation mode of the controls.
    """
    return PlannedArm(control_mode, CONTROLS[name]) if name in CONTROLS else OTHERS[name]


def name_of(arm: PlannedArm) -> str:
    """Return the name of an arm in the first edition, which is part of the names of its run folders."""
    names = {other: name for name, other in OTHERS.items()}
    names |= {PlannedArm(arm.mode, twin): name for name, twin in CONTROLS.items()}
    return names[arm]


def with_modes(table: pd.DataFrame) -> pd.DataFrame:
    """Convert the first-edition rows of a table of results to current columns.

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
    for name, old_values in values.items():
        column = new[name].astype(object)
        column[old] = old_values
        new[name] = column
    done = new[old & (new["stage"] == 2) & (new["status"] == RunStatus.FINISHED)]
    if len(done) and done["test_accuracy"].isna().all():  # it had no column for the purpose
        new.loc[old, "purpose"] = "exploration"
    return new


def _factors(name: Any, pretext: Any, mode: Any) -> tuple[str | None, str | None]:
    """Current mode and experience of a row: from the arm in stage 2, from the pretext in stage 1."""
    if not isinstance(name, str):
        return None, pretext if isinstance(pretext, str) else None
    if name not in NAMES:
        raise ValueError(f"no arm is called '{shortened(name)}'{nearest(name, NAMES)}")
    if name in CONTROLS and not isinstance(mode, str):
        raise ValueError(f"a control '{name}' lacks its mode: add the column '{CONTROL_MODE}'")
    arm = arm_of(name, mode)
    return arm.mode, arm.experience
