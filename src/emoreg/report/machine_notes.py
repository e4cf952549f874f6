"""Settings and machines of a study's runs, for the end of a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emoreg.config.target_words import describe_target
from emoreg.report.formatting import seeds_in_words
from emoreg.report.shared_settings import shared_settings, targets_of
from emoreg.runtime.places import without_folders
from emoreg.runtime.progress import duration
from emoreg.study.columns import MACHINE, SETTINGS, each_once

if TYPE_CHECKING:
    import pandas as pd

DIGITS = 16  # of a checksum: enough to distinguish any two sets
PROCEDURAL = "procedural (drawn by emoreg, labels from psychophysics: not rated by people)"


def facts_of(done: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    """Facts as (name, value); the value lists all values if runs differ.

    Args:
        done: the finished runs of both stages, as `emoreg.study.results` makes them.
    """
    first, second = done[done["stage"] == 1], done[done["stage"] == 2]
    epochs = [(_values(runs, f"{SETTINGS}training.epochs"), stage) for stage, runs in ((1, first), (2, second))]
    once = each_once(done)
    seconds = once["seconds"].dropna().tolist() if "seconds" in once else []
    facts = {
        "Targets": "; ".join(_target(str(target), runs) for target, runs in second.groupby("target", sort=False)),
        "Backbones": _values(second, "backbone"),
        "Stimuli": _values(first, "stimuli"),
        "Images of stage 1": _values(first, f"{SETTINGS}stimuli.name").replace("procedural", PROCEDURAL),
        "Epochs": ", ".join(f"{values} in stage {stage}" for values, stage in epochs if values),
        **shared_settings(second),
        "Checksums of image sets": _checksums(done),
        "Seeds": seeds_in_words(sorted({int(seed) for seed in second["seed"]})),
        "Training": f"{duration(sum(seconds))} in {len(once)} runs" if seconds else "",
        "emoreg": _values(done, f"{MACHINE}emoreg", ", git ", f"{MACHINE}git"),
        "PyTorch": _values(done, f"{MACHINE}torch", ", Python ", f"{MACHINE}python"),
        "GPU": _values(done, f"{MACHINE}gpu"),
        "CPU": _values(done, f"{MACHINE}cpu", ", cores: ", f"{MACHINE}cores"),
        "Threads": _values(done, f"{MACHINE}threads"),
        "Device": _values(done, f"{MACHINE}device", ", precision ", f"{MACHINE}precision"),
        "Platform": _values(done, f"{MACHINE}platform"),
    }
    started, command = f"{MACHINE}started", f"{MACHINE}command"
    sessions = done.reindex(columns=[started, command]).dropna(subset=[started]).sort_values(started)  # ISO 8601, UTC
    if len(sessions):
        facts["Started"] = " to ".join(dict.fromkeys(str(time) for time in sessions[started].iloc[[0, -1]]))
    if len(commands := sessions[command].dropna()):
        facts["Command"] = without_folders(str(commands.iloc[-1]).split(" "))
    return tuple((name, value) for name, value in facts.items() if value)


def _target(label: str, runs: pd.DataFrame) -> str:
    counts = [
        f"{' or '.join(f'{int(count):,}' for count in runs[column].dropna().unique())} {split}"
        for split, column in (
            ("training", "images_train"),
            ("validation", "images_validation"),
            ("test", "images_test"),
        )
        if column in runs and runs[column].notna().any()
    ]
    described = "; ".join(dict.fromkeys(describe_target(*target) for target in targets_of(runs)))
    target = f"{label} ({described})" if described else label
    return f"{target}: {', '.join(counts)} images" if counts else target


def _checksums(done: pd.DataFrame) -> str:
    """The first digits of the checksums of each set's files, and of the test images' pixels in their order."""
    sets = [(f"target {name}", runs) for name, runs in done[done["stage"] == 2].groupby("target", sort=False)]
    sets += [(f"stimuli {name}", runs) for name, runs in done[done["stage"] == 1].groupby("stimuli", sort=False)]
    checksums = []
    for name, runs in sets:
        for column, content in (("images_sha256", "files"), ("test_checksum", "test pixels")):
            sums = runs[column].dropna().unique().tolist() if column in runs else []
            if sums:
                checksums.append(f"{name}, {content} {' or '.join(str(each)[:DIGITS] for each in sums)}")
    return "; ".join(checksums)


def _values(runs: pd.DataFrame, column: str, between: str = "", other: str = "") -> str:
    """The values of a column, each followed by the value of another column; every combination once."""
    columns = runs.reindex(columns=[column, other]).dropna(subset=[column]).convert_dtypes().astype("string")
    return "; ".join((columns[column] + (between + columns[other]).fillna("")).unique())
