"""What a run has scored: one file for each suite and set of options, in the run's folder.

| key | content |
|---|---|
| suite, options | what was scored; the options without the paths of images |
| figures | by name |
| images, checksums | which images they are of, in words, and digests of their pixels by set |
| run | a checksum of the run's final.json: figures of another training in the same folder are not taken for its own |
| environment | time, versions, git revision, hardware, device and precision |
| seconds | that it took |
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emoreg.errors import UserError, is_plain, shortened
from emoreg.runs.run import FINAL, Run
from emoreg.runtime.safe_io import make_folder, read_bounded, read_json, write_json, writing
from emoreg.suites.options import Suite

FOLDER = "suites"  # in a run's folder
FORMAT = 1
MOST_FIGURES = 1000


@dataclass(frozen=True)
class SuiteResult:
    """What a run has scored in a suite.

    Args:
        suite: its name.
        options: as `Suite.told` has them.
        figures: by name; NaN where one is not a number.
        images: which images they are of, in words.
        file: where it stands.
    """

    suite: str
    options: Mapping[str, Any]
    figures: Mapping[str, float]
    images: str
    file: Path


def file_of(run: Run, suite: Suite) -> Path:
    """Where the result of a suite with these options stands."""
    return run.folder / FOLDER / f"{suite.name}-{suite.id}.json"


def run_checksum(run: Run) -> str:
    """Of the run's final metrics. UserError if they cannot be read."""
    path = run.folder / FINAL
    try:
        return hashlib.sha256(read_bounded(path)).hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def read_result(run: Run, suite: Suite) -> SuiteResult | None:
    """The result of a suite with these options; None if it was not scored, or another training of the run was.

    Raises:
        UserError: the file is damaged.
    """
    path = file_of(run, suite)
    if not path.exists():
        return None
    try:
        found = read_json(path)
        if type(found["format"]) is int and found["format"] > FORMAT:
            raise UserError(f"{path} is of format {found['format']}, and this emoreg reads {FORMAT}: update emoreg")
        if found["suite"] != suite.name or found["options"] != suite.told:
            raise ValueError("its name does not fit its options")
        figures, images, run_id = found["figures"], found["images"], found["run"]
        if not isinstance(figures, dict) or not figures or len(figures) > MOST_FIGURES:
            raise ValueError("it has no figures")
        for name, value in figures.items():
            if not is_plain(name) or not (value is None or _is_number(value)):
                raise ValueError(f"figure {shortened(name, 40)} is no number")
        if not isinstance(images, str) or not isinstance(run_id, str):
            raise ValueError("it does not say what it is of")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except (KeyError, TypeError, ValueError) as error:
        reason = shortened(f"no {error}" if isinstance(error, KeyError) else str(error))
        raise UserError(f"{path} is damaged ({reason}); delete it, and score the suite again") from None
    if run_id != run_checksum(run):
        return None
    numbers = {name: math.nan if value is None else float(value) for name, value in figures.items()}
    return SuiteResult(suite.name, suite.told, numbers, images, path)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def write_result(run: Run, suite: Suite, content: Mapping[str, Any]) -> None:
    """Write a result atomically. UserError if it cannot be written."""
    path = file_of(run, suite)
    make_folder(path.parent, "folder of results")
    figures = {name: value if math.isfinite(value) else None for name, value in content["figures"].items()}
    told = {"format": FORMAT, "suite": suite.name, "options": suite.told, "run": run_checksum(run)}
    with writing(path):
        write_json(path, {**told, **content, "figures": figures})
