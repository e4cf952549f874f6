"""Malformed tables of results from a user's own training loop."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from hostile.malformed import Malformed

HEADER = "arm,seed,accuracy"
TEXTS: tuple[tuple[str, str | bytes, str], ...] = (
    ("nothing", "", "mine.csv"),
    ("a header alone", HEADER, "mine.csv"),
    ("a misspelt column", "arm,sead,accuracy\nBackbone,0,0.7\n", "row 1"),
    ("an unknown column", f"{HEADER},lr\nBackbone,0,0.7,1\n", "row 1"),
    ("a column twice", f"{HEADER},seed\nBackbone,0,0.7,1\n", "'seed'"),
    ("an unknown arm", f"{HEADER}\nBackbone,0,0.7\nBackbond,0,0.7\n", "row 3"),
    ("a misspelt experience", f'{HEADER}\n"E-Reg, shufled",0,0.7\n', "row 2"),
    ("a seed of 300 digits", f"{HEADER}\nBackbone,{'9' * 300},0.7\n", "row 2"),
    ("a percentage", f"{HEADER}\nBackbone,0,70\n", "row 2"),
    ("an infinite time", f"{HEADER},seconds\nBackbone,0,0.7,inf\n", "row 2"),
    ("a formula", f"{HEADER}\nBackbone,0,=1/2\n", "row 2"),
    ("a million classes and more", f"{HEADER},classes\nBackbone,0,0.7,99999999999\n", "row 2"),
    ("looks that are not numbers", f"{HEADER},planned_seeds,looks\nBackbone,0,0.7,8,soon\n", "row 2"),
    ("correctness with digits other than 0 and 1", f"{HEADER},correct\nBackbone,0,0.5,0123\n", "row 2"),
    ("correctness that contradicts the accuracy", f"{HEADER},correct\nBackbone,0,0.5,0001\n", "row 2"),
    ("correctness nested without end", f"{HEADER},correct\nBackbone,0,0.5,{'[' * 5000}\n", "row 2"),
    ("a run twice", f"{HEADER}\nBackbone,0,0.7\nBackbone,0,0.7\n", "row 3"),
    ("control characters", f"{HEADER}\nBack\x1b[2Jbone,0,0.7\n", "row 2"),
    ("a quote that never ends", f'{HEADER}\n"Backbone,0,0.7\n', "mine.csv"),
    ("bytes", b"\xff\xfe\x00", "mine.csv"),
    ("curves of other lengths", f'{HEADER},epochs.epoch,epochs.train_loss\nBackbone,0,0.7,[1],"[1.0, 2.0]"\n', "mine"),
)


def result_inputs() -> Iterator[Malformed]:
    """Every table, as input of `emoreg report`."""
    for what, text, place in TEXTS:
        yield Malformed("own results", what, {"mine.csv": text}, ("report", "mine.csv"), place)
    for what, name, value in (
        ("text as accuracy", "accuracy", "good"),
        ("a list as seed", "seed", [0]),
        ("a date as arm", "arm", "2026"),
    ):
        frame = pd.DataFrame({"arm": ["Backbone"], "seed": [0], "accuracy": [0.7]})
        frame[name] = pd.Series([value], dtype=object)
        files = {"mine.parquet": frame.to_parquet()}
        yield Malformed("own results", what, files, ("report", "mine.parquet"), "row 1")
