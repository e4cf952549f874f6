"""What ran where: the settings and machines of a study's runs, each fact with all values that it had."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from emoreg.runtime.progress import duration

if TYPE_CHECKING:
    import pandas as pd

PROCEDURAL = "procedural (drawn here, labels from psychophysics: no person rated them)"


def facts_of(done: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    """Facts by name, for the end of a report. What differs between runs is shown with all its values.

    Args:
        done: the finished runs of both stages, as `emoreg.study.results` makes them.
    """
    first, second = done[done["stage"] == 1], done[done["stage"] == 2]
    epochs = [
        f"{told} in stage {stage}"
        for stage, runs in ((1, first), (2, second))
        if (told := _joined(runs, "recipe.training.epochs"))
    ]
    seeds = sorted({int(seed) for seed in second["seed"]})
    facts = {
        "Targets": "; ".join(_target(target, runs) for target, runs in second.groupby("target", sort=False)),
        "Backbones": _joined(second, "backbone"),
        "Experiences": _joined(first, "experience"),
        "Stimuli": _joined(first, "recipe.stimuli.name").replace("procedural", PROCEDURAL),
        "Epochs": ", ".join(epochs),
        "Seeds": _range(seeds),
        "Training": f"{duration(float(done['seconds'].sum()))} in {len(done)} runs" if "seconds" in done else "",
        "emoreg": _joined(done, "env.emoreg", "env.git", ", git "),
        "PyTorch": _joined(done, "env.torch", "env.python", ", Python "),
        "GPU": _joined(done, "env.gpu"),
        "CPU": _joined(done, "env.cpu", "env.cores", ", cores: "),
        "Threads": _joined(done, "env.threads"),
        "Device": _joined(done, "env.device", "env.precision", ", precision "),
        "Platform": _joined(done, "env.platform"),
        "Started": _first_and_last(done),
        "Command": _last_command(done),
    }
    return tuple((name, value) for name, value in facts.items() if value)


def _target(label: Any, runs: pd.DataFrame) -> str:
    parts = (("training", "images_train"), ("validation", "images_validation"), ("test", "images_test"))
    counts = [f"{told} {part}" for part, column in parts if (told := _joined(runs, column, thousands=True))]
    return f"{label}: {', '.join(counts)} images" if counts else str(label)


def _joined(runs: pd.DataFrame, column: str, other: str = "", between: str = "", thousands: bool = False) -> str:
    """The values of a column, each with that of another behind it; every combination that there is, once."""
    if column not in runs:
        return ""
    beside: Iterable[Any] = runs[other] if other in runs else [None] * len(runs)
    told = [
        _told(one, thousands) + ("" if _is_absent(second) else between + _told(second))
        for one, second in zip(runs[column], beside, strict=True)
        if not _is_absent(one)
    ]
    return (" or " if thousands else "; ").join(dict.fromkeys(told))


def _is_absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _told(value: Any, thousands: bool = False) -> str:
    if isinstance(value, float) and value.is_integer():  # a column of whole numbers with gaps is one of floats
        value = int(value)
    return f"{value:,}" if thousands else str(value)


def _range(seeds: list[int]) -> str:
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def _first_and_last(runs: pd.DataFrame) -> str:
    if "env.started" not in runs or (started := runs["env.started"].dropna()).empty:
        return ""
    first, last = started.min(), started.max()  # ISO 8601 in UTC sorts as text
    return str(first) if first == last else f"{first} to {last}"


def _last_command(runs: pd.DataFrame) -> str:
    if not {"env.command", "env.started"} <= set(runs.columns):
        return ""
    known = runs.dropna(subset=["env.command", "env.started"]).sort_values("env.started")
    return "" if known.empty else str(known["env.command"].iloc[-1])
