"""Inputs of a run other than its settings, namely images and stage-1 weights, identified by their contents.

When a run is resumed, inputs are the same if their contents are, whatever their paths.
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
from emoreg.config.recipe import PretrainRecipe, Recipe, TrainRecipe
from emoreg.runtime.safe_io import require_regular

EXPERIENCE = "encoder.experience"
CHECKSUM_DIGITS = 8  # in messages


@dataclass(frozen=True)
class Inputs:
    """Images and stage-1 weights of a run.

    Args:
        data: contents of its image sets, by section of the recipe ("target", "also[0]"), as far as they are known.
        experience: SHA-256 of the weights of the stage-1 run of its recipe or of a user-supplied model; None if there
            is none, or if it is unknown.
        given: the section whose images the caller supplies in Python; for messages, not recorded.
        has_model: whether the caller supplies a model; recorded as "model".
        origin: description of the origin of that model's stage-1 weights; for messages, not recorded.
        learning: SHA-256 of the names of the trainable parameters of a user-supplied model or stage-1 encoder; None
            without one, or if unknown.
    """

    data: Mapping[str, Contents] = field(default_factory=dict)
    experience: str | None = None
    given: str | None = None
    has_model: bool = False
    origin: str = field(default="", compare=False)
    learning: str | None = None

    def record(self) -> dict[str, Any]:
        """Return the content of the file that `from_record` reads."""
        return {
            "data": {key: dataclasses.asdict(each) for key, each in self.data.items()},
            "experience": self.experience,
            "model": self.has_model,
            **({} if self.learning is None else {"learning": self.learning}),
        }

    @property
    def knows_experience(self) -> bool:
        """Whether the origin of the stage-1 weights is known; for a model, also if it has none."""
        return self.experience is not None or self.has_model


def from_record(record: Mapping[str, Any]) -> Inputs:
    """The inverse of `Inputs.record`.

    Raises:
        ValueError: the record is not one that `record` returns.
    """
    data, experience, learning = record.get("data"), record.get("experience"), record.get("learning")
    if not isinstance(data, dict) or not (experience is None or _is_checksum(experience)):
        raise ValueError("no data, or no checksum of an experience")
    if not (learning is None or _is_checksum(learning)):
        raise ValueError("no checksum of the trainable parameters")
    contents = {key: _contents(value) for key, value in data.items()}
    return Inputs(contents, experience, has_model=record.get("model") is True, learning=learning)


def _contents(record: Any) -> Contents:
    match record:
        case {"sha256": None | str() as digest, "files": int(files), "bytes": int(size)}:
            if digest is None or _is_checksum(digest):
                return Contents(digest, files, size)
    raise ValueError("images without a checksum")


def _is_checksum(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def weights_checksum(weights: Path) -> str | None:
    """Return the SHA-256 of a file of weights; None if it does not exist or is not a regular file."""
    try:
        require_regular(weights)
        with weights.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def changes(old: Recipe, new: Recipe, before: Inputs, now: Inputs) -> tuple[list[str], list[str]]:
    """List what differs between a run and a request to resume it.

    Inputs that are known for both are compared by contents, everything else by its settings.

    Args:
        old: the run's recipe.
        new: the requested recipe, of the same stage.
        before: inputs that the run was started with.
        now: current inputs.

    Returns:
        A line for each setting that differs, and a line for each of images and weights that differ.
    """
    lines, known = [], []
    for section in sorted(before.data.keys() & now.data.keys()):
        known.append(f"{section}.root")
        if before.data[section].sha256 != now.data[section].sha256:
            is_given = section == now.given
            change = _image_change(before.data[section], now.data[section], is_given)
            if is_given:
                lines.append(f"{section}, given in Python: {change}")
            else:
                lines.append(f"{section}.root: {change} in {new.sections[section].root}")
    if before.knows_experience and now.knows_experience:
        known.append(EXPERIENCE)
        if before.experience != now.experience:
            lines.append(_other_experience(old, new, before, now))
    settings = differences(old, new, known)
    # A setting that differs may change the trainable parameters, so these are compared only if none does.
    if not settings and None not in (before.learning, now.learning) and before.learning != now.learning:
        network = "encoder" if isinstance(new, PretrainRecipe) else "model"
        settings = [f"{network}: other parameters are trainable (requires_grad) than were then"]
    return settings, lines


def _image_change(before: Contents, now: Contents, is_given: bool) -> str:
    unit, others = ("images", "pixels, labels or classes") if is_given else ("files", "names or labels")
    change = f"{before.describe(unit)} then, {now.describe(unit)} now"
    return f"{change}, but other {others}" if str(before) == str(now) else change


def _other_experience(old: Recipe, new: Recipe, before: Inputs, now: Inputs) -> str:
    if now.has_model:
        return f"model: stage-1 weights {(before.experience or 'none')[:CHECKSUM_DIGITS]} then, {now.origin} now"
    folders = [recipe.encoder.experience for recipe in (old, new) if isinstance(recipe, TrainRecipe)]
    checksums = (str(inputs.experience)[:CHECKSUM_DIGITS] for inputs in (before, now))
    parts = (f"{folder} (weights {checksum})" for folder, checksum in zip(folders, checksums, strict=True))
    return f"{EXPERIENCE}: {' -> '.join(parts)}"
