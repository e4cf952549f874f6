from __future__ import annotations

from pathlib import Path

from emoreg.inference.writers import row_writer
from emoreg.runtime.lock import hold


def test_rows_are_kept_while_other_commands_lock_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with row_writer(path), hold(tmp_path):
        assert not path.exists()
    assert [each.name for each in tmp_path.iterdir() if each.name != ".lock"] == ["rows.jsonl"]


def test_the_rows_of_two_processes_with_one_number_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with row_writer(path):
        with row_writer(path):
            assert len(list(tmp_path.glob(".*.unfinished"))) == 2
        assert len(list(tmp_path.glob(".*.unfinished"))) == 1
    assert list(tmp_path.iterdir()) == [path]
