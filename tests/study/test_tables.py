from __future__ import annotations

import json

import pandas as pd
from rich.console import Console

from emoreg.study.tables import rows_table, rows_text

TABLE = pd.DataFrame({"arm": ["learned", None], "test_accuracy": [0.91239, float("nan")], "seed": [0, 1]})


def test_rows_as_markdown_round_numbers_and_show_what_is_missing_as_a_dash() -> None:
    assert rows_text(TABLE, "markdown").splitlines() == [
        "| arm | test_accuracy | seed |",
        "| --- | --- | --- |",
        "| learned | 0.9124 | 0 |",
        "| – | – | 1 |",
    ]


def test_rows_as_csv_and_json_keep_all_digits() -> None:
    assert rows_text(TABLE, "csv") == "arm,test_accuracy,seed\nlearned,0.91239,0\n,,1\n"
    text = rows_text(TABLE, "json")
    assert text.endswith("]\n") and json.loads(text)[1] == {"arm": None, "test_accuracy": None, "seed": 1}


def test_names_in_the_terminals_table_are_no_markup() -> None:
    console = Console(width=60)
    with console.capture() as captured:
        console.print(rows_table(TABLE.rename(columns={"arm": "[red]arm"}).replace("learned", "a\x1b[31mb")))
    shown = captured.get()
    assert "[red]arm" in shown and "\x1b" not in shown and "0.9124" in shown
