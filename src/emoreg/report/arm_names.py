"""Parses the names that arms have in tables and reports."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from emoreg.errors import UserError, nearest
from emoreg.report.run_frame import MODES, WITHOUT_EXPERIENCE, Arm
from emoreg.study.arms import EXPERIENCES, REGULATED

_BY_NAME: Mapping[str, str] = {label.lower(): mode for mode, label in MODES.items()} | {mode: mode for mode in MODES}
OF_AFFECT = ("transfer", "unregulated")  # references whose encoder always has the experience affect
NEAR = 0.75  # similarity, at most 1, from which a variant counts as a misspelt experience


def mode_named(name: str | None) -> str:
    """The mode with this name in the code or in reports, in any case. UserError for any other name, or None."""
    if name is None:
        raise UserError("a run has no mode; Backbone's is 'none'")
    if (mode := _BY_NAME.get(name.lower())) is None:
        raise UserError(f"mode '{name}' is unknown{nearest(name, (*MODES, *MODES.values()))}")
    return mode


def arm_of(mode: str, experience: str | None, variant: str | None, stimuli: str | None) -> Arm:
    """The arm of a run. Backbone, ensemble, wide and the relatives are shared by all variants and stimuli.

    Raises:
        UserError: the mode has no experience and is given one or a variant; or it lacks an experience, or the
            experience is unknown.
    """
    if mode in WITHOUT_EXPERIENCE:
        if experience is not None:
            raise UserError(f"a run of mode '{mode}' has the experience '{experience}'; {MODES[mode]} has none")
        if variant is not None:
            raise UserError(
                f"a run of mode '{mode}' has the variant '{variant}'; {MODES[mode]} has none, as it is compared with "
                "all variants: leave it out"
            )
        return Arm(mode, None, None, None)
    if mode in OF_AFFECT:
        if experience not in (None, "affect"):
            raise UserError(
                f"a run of mode '{mode}' has the experience '{experience}'; that of {MODES[mode]} is affect"
            )
        experience = "affect"
    if experience not in EXPERIENCES:
        problem = f"experience '{experience}' is unknown" if experience else f"a run of mode '{mode}' has no experience"
        raise UserError(f"{problem}{nearest(experience or '', EXPERIENCES)}")
    return Arm(mode, experience, variant, stimuli)


def arm_named(label: str | None) -> Arm:
    """Parse an arm's name in reports: "Backbone", "Learn-E-Reg, shuffled", "E-Reg, mixture (oasis)".

    The mode is followed by an experience, a variant, or both; stimuli are in parentheses at the end. A variant with a
    name close to an experience is refused as a misspelt one.

    Raises:
        UserError: no report prints such a name.
    """
    if label is None:
        raise UserError("a run has no arm; write its name as a report prints it, such as 'Learn-E-Reg, shuffled'")
    in_parentheses = re.search(r"\(([^()]*)\)\s*$", label)
    name, stimuli = (label, None) if in_parentheses is None else (label[: in_parentheses.start()], in_parentheses[1])
    first, *rest = (part.strip() for part in name.split(","))
    if first.lower() not in _BY_NAME:
        raise UserError(f"no arm is called '{label}'{nearest(first, MODES.values())}")
    mode = mode_named(first)
    experience = "affect" if mode in REGULATED else None
    if rest and rest[0].lower() in EXPERIENCES:
        experience = rest.pop(0).lower()
    for part in rest:
        if meant := difflib.get_close_matches(part.lower(), EXPERIENCES, n=1, cutoff=NEAR):
            raise UserError(f"no arm is called '{label}' (did you mean '{meant[0]}' for '{part}'?)")
    return arm_of(mode, experience, ", ".join(rest) or None, stimuli or None)
