from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from PIL import Image

from emoreg.errors import UserError
from emoreg.inference.confusion_files import draw_confusion, write_confusion


def test_the_table_has_true_classes_in_rows_and_predicted_ones_in_columns(tmp_path: Path) -> None:
    table, picture = write_confusion(tmp_path / "new", [[5, 1], [2, 7]], ("猫", "dog, big"))
    with table.open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [["true class \\ answer", "猫", "dog, big"], ["猫", "5", "1"], ["dog, big", "2", "7"]]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_many_classes_stays_small() -> None:
    matrix = [[int(row == column) for column in range(80)] for row in range(80)]
    with Image.open(io.BytesIO(draw_confusion(matrix, [f"class {number}" for number in range(80)]))) as picture:
        assert max(picture.size) < 1500


def test_a_folder_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        write_confusion(tmp_path / "file" / "x", [[1]], ("a",))


def test_short_names_of_classes_are_not_turned_on_their_side(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    turned = []

    def keep(figure: Figure, *_: object, **__: object) -> None:
        turned.append(figure.axes[0].get_xticklabels()[0].get_rotation())

    monkeypatch.setattr(Figure, "savefig", keep)
    for names in (["0", "1"], ["airplane", "automobile"]):
        draw_confusion([[3, 1], [0, 2]], names)
    assert turned == [0, 90]
