"""The settings that all arms of a study share, and those in which they differ, according to their recipes."""

from __future__ import annotations

import contextlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from emoreg.config.schema import TargetSettings
from emoreg.report.run_frame import MODES
from emoreg.runs.catalogue import is_missing
from emoreg.study.columns import SETTINGS

if TYPE_CHECKING:
    import pandas as pd

# Sections of a recipe by topic, in the order of the report.
TOPICS: Mapping[str, str] = {
    "target": "target.",
    "backbone": "backbone.",
    "encoder": "encoder.",
    "regulation": "regulation.",
    "loss": "loss.",
    "optimiser": "optimizer.",
    "training": "training.",
    "augmentation": "augment.",
}
# Not part of the method: paths of images, the encoder's run (its experience is reported), trackers, resources.
LEFT_OUT = ("target.root", "encoder.experience", "training.trackers", "training.devices", "training.memory_limit_gib")
OFF = (None, False, 0, "none", "", "[]", "()")  # omitted if all runs share such a value
# Settings that define a target, but not how it is measured.
OF_A_TARGET = (
    *("name", "root", "classes", "per_class", "share", "imbalance", "label_noise", "noise_share"),
    *("image_size", "limit", "labels"),
)
MOST = 4  # values that are listed with their arms
WHICH = "regulation.mode"  # is listed with its arms, however many values there are


def shared_settings(runs: pd.DataFrame) -> dict[str, str]:
    """Facts on finished runs of stage 2: what their recipes share, by topic, and every setting in which arms differ.

    Shared settings that are null, 0 or off are left out. Empty for a table without settings.

    Args:
        runs: rows of a table of results.
    """
    columns = [str(name) for name in runs if str(name).startswith(SETTINGS)]
    if runs.empty or runs.get(f"{SETTINGS}optimizer.name") is None:
        return {}
    values = {
        name: [plain(value) for value in runs[column].tolist()]
        for column in columns
        if (name := column.removeprefix(SETTINGS)) not in (*LEFT_OUT, "seed", "edition")
    }
    shared = {name: column[0] for name, column in values.items() if len(set(column)) == 1}
    by_topic: dict[str, list[str]] = defaultdict(list)
    for topic, prefix in TOPICS.items():
        for name, value in shared.items():
            if name.startswith(prefix) and value not in OFF:
                by_topic[topic].append(f"{name.removeprefix(prefix)} {_value(value)}")
    arms = [_arm(row) for row in runs.reindex(columns=["mode", "experience", "variant"]).itertuples(index=False)]
    differing = [
        f"{name}: {_by_arm(column, arms, math.inf if name == WHICH else MOST)}"
        for name, column in values.items()
        if name not in shared and name.startswith(tuple(TOPICS.values()))
    ]
    same = [f"{topic}: {', '.join(settings)}" for topic, settings in by_topic.items()]
    facts = {"All runs of stage 2 share": "; ".join(same), "They differ in": "; ".join(differing)}
    return {name: fact for name, fact in facts.items() if fact}


def targets_of(runs: pd.DataFrame) -> list[tuple[TargetSettings, int | None, int | None]]:
    """The distinct targets of runs of stage 2, as arguments of `describe_target`; empty without settings."""
    found: dict[tuple[Any, ...], tuple[TargetSettings, int | None, int | None]] = {}
    rows = runs.reindex(columns=[*(f"{SETTINGS}target.{name}" for name in OF_A_TARGET), "classes", "whole_classes"])
    for *values, classes, whole in rows.itertuples(index=False, name=None):
        settings = {name: plain(value) for name, value in zip(OF_A_TARGET, values, strict=True)}
        settings = {name: value for name, value in settings.items() if value is not None}
        if "name" not in settings:
            continue
        number = None if classes is None or isinstance(classes, float) else len(classes)
        key = (*settings.items(), number, plain(whole))
        with contextlib.suppress(ValueError, TypeError):  # a table that was edited
            if "classes" in settings:
                settings["classes"] = tuple(json.loads(settings["classes"]))
            found.setdefault(key, (TargetSettings(**settings), number, plain(whole)))
    return list(found.values())


def _by_arm(values: Iterable[Any], arms: Iterable[str], most: float) -> str:
    """The values with their arms; with more than `most` values, their number."""
    by_value: dict[Any, dict[str, None]] = {}
    for value, arm in zip(values, arms, strict=True):
        by_value.setdefault(value, {})[arm] = None
    if len(by_value) > most:
        return f"{len(by_value)} values"
    return ", ".join(f"{_value(value)} ({' / '.join(names)})" for value, names in by_value.items())


def _arm(row: Any) -> str:
    parts = (MODES.get(row.mode, row.mode), None if row.experience == "affect" else row.experience, row.variant)
    return " ".join(str(part) for part in parts if isinstance(part, str))


def plain(value: Any) -> Any:
    """A hashable value of a column: None if it is missing, and an int if it is a whole number."""
    if is_missing(value):
        return None
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, str | int | float) else str(value)


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
