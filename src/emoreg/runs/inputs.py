"""What a run is made from besides its settings: images and the weights of stage 1, by their contents.

Wherever they lie when a run is resumed, and whatever their paths are then, they are the same if their contents are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emoreg.config.contents import Contents
from emoreg.config.read_recipe import differences
from emoreg.config.recipe import Recipe
from emoreg.runtime.safe_io import require_regular

EXPERIENCE = "encoder.experience"
SHOWN = 8  # digits of a checksum in messages


@dataclass(frozen=True)
class Inputs:
    """What a run is made from.

    Args:
        data: what stands at the roots of its image sets, by section of the recipe ("target", "also[0]"); without
            those of which nothing is known.
        experience: SHA-256 of the weights of its stage-1 run, the recipe's or that of a model which the caller gives;
            None without one, or where it is not known.
        given: the section whose images the caller gives in Python; for messages, and not recorded.
        has_model: whether the caller gives a model; recorded as "model".
        told: whose stage-1 weights that model has, in words; for messages, and not recorded.
        learning: SHA-256 of the names of those of its parameters that learn; None without a model, or where it is not
            known.
    """

    data: Mapping[str, Contents] = field(default_factory=dict)
    experience: str | None = None
    given: str | None = None
    has_model: bool = False
    told: str = field(default="", compare=False)
    learning: str | None = None

    def record(self) -> dict[str, Any]:
        """As it is written to a file; `from_record` reads it."""
        return {
            "data": {key: dataclasses.asdict(each) for key, each in self.data.items()},
            "experience": self.experience,
            "model": self.has_model,
            **({} if self.learning is None else {"learning": self.learning}),
        }

    @property
    def tells_experience(self) -> bool:
        """Whether it is known whose stage-1 weights there are: of a model also that there are none."""
        return self.experience is not None or self.has_model


def from_record(record: Mapping[str, Any]) -> Inputs:
    """The inverse of `Inputs.record`.

    Raises:
        ValueError: it is not what `record` gives.
    """
    data, experience = record.get("data"), record.get("experience")
    if not isinstance(data, dict) or not (experience is None or _is_checksum(experience)):
        raise ValueError("no data, or no checksum of an experience")
    has_model, learning = record.get("model") is True, record.get("learning")  # earlier records do not tell
    if not (learning is None or _is_checksum(learning)):
        raise ValueError("no checksum of the parameters that learn")
    found = {key: _contents(each) for key, each in data.items()}
    return Inputs(found, experience, has_model=has_model, learning=learning)


def _contents(record: Any) -> Contents:
    match record:
        case {"sha256": None | str() as digest, "files": int(files), "bytes": int(size)}:
            if digest is None or _is_checksum(digest):
                return Contents(digest, files, size)
    raise ValueError("images without a checksum")


def _is_checksum(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def weights_checksum(weights: Path) -> str | None:
    """SHA-256 of a file of weights; None if it is not there, or no regular file."""
    try:
        require_regular(weights)
        with weights.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def changes(old: Recipe, new: Recipe, before: Inputs, now: Inputs) -> tuple[list[str], list[str]]:
    """In what a run that is to be resumed is another one: its settings, and what it is made from.

    What is known of both is compared by contents, everything else by what is written.

    Args:
        old: the run's recipe.
        new: the one that is asked for now, of the same stage.
        before: what the run was begun with.
        now: what is there.

    Returns:
        A line for each setting, and a line for each of images and weights.
    """
    lines, known = [], []
    for section in sorted(before.data.keys() & now.data.keys()):
        known.append(f"{section}.root")
        then, there = before.data[section], now.data[section]
        if then.sha256 != there.sha256:
            is_given = section == now.given
            kind, others = ("images", "pixels, labels or classes") if is_given else ("files", "names or labels")
            what = f"{then.describe(kind)} then, {there.describe(kind)} now"
            if str(then) == str(there):
                what += f", but other {others}"
            where = f"{section}, given in Python" if is_given else f"{section}.root"
            lines.append(f"{where}: {what}" + ("" if is_given else f" in {new.sections[section].root}"))
    if before.tells_experience and now.tells_experience:
        known.append(EXPERIENCE)
        if before.experience != now.experience:
            lines.append(_other_experience(old, new, before, now))
    settings = differences(old, new, known)
    if not settings and None not in (before.learning, now.learning) and before.learning != now.learning:
        settings = ["model: other parameters learn (requires_grad) than did then"]  # else that follows from a setting
    return settings, lines


def _other_experience(old: Recipe, new: Recipe, before: Inputs, now: Inputs) -> str:
    if now.has_model:
        return f"model: stage-1 weights {(before.experience or 'none')[:SHOWN]} then, {now.told} now"
    places = [each.encoder.experience for each in (old, new) if hasattr(each, "encoder")]
    sums = (str(each)[:SHOWN] for each in (before.experience, now.experience))
    told = (f"{place} (weights {digest})" for place, digest in zip(places, sums, strict=True))
    return f"{EXPERIENCE}: {' -> '.join(told)}"
