"""Results of suites: one file in the run's folder for each suite and set of options.

| key | content |
|---|---|
| suite, options | name of the suite, and its options without paths |
| figures | by name |
| images, checksums | a description of the images, and checksums of their pixels by set |
| contents | checksums of the files of other sets, as options name a folder without its path |
| run | a checksum of the run's final.json, which shows whether the folder was trained again since |
| environment | time, versions, git revision, hardware, device and precision |
| seconds | duration |
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emoreg.data.fingerprint import contents_of
from emoreg.errors import UserError, is_plain, shortened
from emoreg.runs.run import FINAL, Run
from emoreg.runtime.safe_io import make_folder, read_bounded, read_json, write_json, writing
from emoreg.suites.options import Suite, WithSets

FOLDER = "suites"  # in a run's folder
FORMAT = 1
MAX_FIGURES = 1000


@dataclass(frozen=True)
class SuiteResult:
    """The result of a run in a suite.

    Args:
        suite: name of the suite.
        options: `Suite.public_options`.
        figures: by name; NaN for one that is not finite.
        images: a description of the images.
        file: path of the result.
        contents: checksums of the files of other sets, by their labels, as far as they are known.
    """

    suite: str
    options: Mapping[str, Any]
    figures: Mapping[str, float]
    images: str
    file: Path
    contents: Mapping[str, str]


def file_of(run: Run, suite: Suite) -> Path:
    """The path of the result of a suite with these options."""
    return run.folder / FOLDER / f"{suite.name}-{suite.id}.json"


def run_checksum(run: Run) -> str:
    """The checksum of a run's final metrics. Raises UserError if they cannot be read."""
    path = run.folder / FINAL
    try:
        return hashlib.sha256(read_bounded(path)).hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def read_result(run: Run, suite: Suite) -> SuiteResult | None:
    """Read the result of a suite with these options; None if there is none, or the run was trained again since.

    Raises:
        UserError: the file is damaged.
    """
    path = file_of(run, suite)
    if not path.exists():
        return None
    try:
        content = read_json(path)
        if type(content["format"]) is int and content["format"] > FORMAT:
            raise UserError(f"{path} is of format {content['format']}, and this emoreg reads {FORMAT}: update emoreg")
        if content["suite"] != suite.name or content["options"] != suite.public_options:
            raise ValueError("its name does not fit its options")
        if not isinstance(content["images"], str) or not isinstance(content["run"], str):
            raise ValueError("images and run must be text")
        figures, contents = _figures(content["figures"]), content.get("contents", {})
        if not isinstance(contents, dict) or not all(isinstance(checksum, str) for checksum in contents.values()):
            raise ValueError("contents must be checksums")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except (KeyError, TypeError, ValueError) as error:
        reason = shortened(f"no {error}" if isinstance(error, KeyError) else str(error))
        raise UserError(f"{path} is damaged ({reason}); delete it, and score the suite again") from None
    if content["run"] != run_checksum(run):
        return None
    return SuiteResult(suite.name, suite.public_options, figures, content["images"], path, contents)


def current_result(run: Run, suite: Suite) -> SuiteResult | None:
    """As `read_result`; None too if another set is at hand and holds other files than those that were scored."""
    result = read_result(run, suite)
    if result is not None and result.contents:
        now = _contents_of_sets(suite)
        if any(now.get(label, checksum) != checksum for label, checksum in result.contents.items()):
            return None
    return result


def _contents_of_sets(suite: Suite) -> dict[str, str]:
    """Checksums of the files of other sets, by label, without sets that are missing or known by their name alone."""
    sets = suite.options.sets if isinstance(suite.options, WithSets) else ()
    found = {each.label: contents_of(each.target(32, "crop")) for each in sets}  # neither size nor fit matters
    return {label: each.sha256 for label, each in found.items() if each is not None and each.sha256 is not None}


def _figures(values: Any) -> dict[str, float]:
    """Check the figures of a file, and convert null to NaN. Raises ValueError for anything but numbers."""
    if not isinstance(values, dict) or not values or len(values) > MAX_FIGURES:
        raise ValueError("it has no figures")
    for name, value in values.items():
        is_number = value is None or (type(value) in (int, float) and math.isfinite(value))
        if not is_plain(name) or not is_number:
            raise ValueError(f"figure {shortened(name, 40)} is not a number")
    return {name: math.nan if value is None else float(value) for name, value in values.items()}


def write_result(run: Run, suite: Suite, content: Mapping[str, Any]) -> None:
    """Write a result atomically. Raises UserError if it cannot be written."""
    path = file_of(run, suite)
    make_folder(path.parent, "folder of results")
    figures = {name: value if math.isfinite(value) else None for name, value in content["figures"].items()}
    header = {"format": FORMAT, "suite": suite.name, "options": suite.public_options, "run": run_checksum(run)}
    with writing(path):
        write_json(path, {**header, **content, "figures": figures, "contents": _contents_of_sets(suite)})
