from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from emoreg.cli.main import main


@pytest.fixture
def run(runs: Path) -> str:
    return str(runs / "learned")


def test_predictions_are_a_table_with_what_is_felt(
    run: str, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["predict", run, str(photos), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    for word in ("regulated", "non-emotional", "emotional", "λ", "valence", "arousal", "a.png", "e.webp"):
        assert word in printed
    assert "reads out of the encoder as stage 1 left it" in " ".join(printed.split())


@pytest.mark.parametrize("columns", ["0", "abc", "1", "40", "80"])
def test_no_prediction_is_cut_on_a_narrow_terminal(
    columns: str, run: str, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["predict", run, str(photos), "--device", "cpu", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert all(str(path) in printed for path in photos.rglob("*.*"))
    assert len(re.findall(r"[+-]\d\.\d\d\b", printed)) == 10  # valence and arousal of five images


def test_with_many_images_the_first_are_shown_and_all_are_counted(
    run: str, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emoreg.inference.summary.MAX_ROWS", 2)
    assert main(["predict", run, str(photos), "--device", "cpu"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "3 more (--json and --out give all). Of all 5:" in printed and "e.webp" not in printed


def test_json_has_one_line_per_image(run: str, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", run, str(photos / "a.png"), str(photos / "b.jpg"), "--json", "--probabilities"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(row["image"]).name for row in rows] == ["a.png", "b.jpg"]
    assert set(rows[0]) == {"image", "class", "probability", "probabilities", "lambda"} | {
        "non_emotional",
        "emotional",
        "felt",
    }
    assert sum(rows[0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_files_are_csv_or_json_lines_by_their_suffix(
    run: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, lines = tmp_path / "new" / "rows.csv", tmp_path / "rows.jsonl"
    for path in (table, lines):
        assert main(["predict", run, str(photos), "--out", str(path), "--quiet"]) == 0
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    objects = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == len(objects) == 5
    for row, one in zip(rows, objects, strict=True):
        assert row["image"] == one["image"] and row["emotional.class"] == one["emotional"]["class"]
        assert float(row["felt.valence"]) == one["felt"]["valence"]
    assert list(tmp_path.glob("**/.*")) == []
    assert main(["predict", run, str(photos), "--out", str(tmp_path / "rows.xlsx")]) == 2
    assert "rows.xlsx must end in .jsonl or .csv" in capsys.readouterr().err


def test_an_unreadable_image_is_reported_and_the_exit_code_is_1(
    run: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.png").write_bytes(b"no image")
    assert main(["predict", run, str(photos), "--json"]) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 5
    assert "broken.png: not an image in a known format; skipped" in captured.err
    assert "1 of 6 images could not be read" in captured.err
    (photos / "broken.png").unlink()
    only = photos / "only.png"
    only.write_bytes(b"")
    assert main(["predict", run, str(only)]) == 1


def test_pictures_are_written_in_addition_to_the_table(run: str, photos: Path, tmp_path: Path) -> None:
    assert main(["predict", run, str(photos / "a.png"), "--pictures", str(tmp_path / "pictures"), "--lam", "0.3"]) == 0
    (picture,) = (tmp_path / "pictures").iterdir()
    assert picture.name.endswith("a.png")


def test_a_plain_classifier_says_that_it_feels_nothing(
    runs: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(runs / "plain"), str(photos / "a.png")]) == 0
    printed = capsys.readouterr().out
    assert "no felt emotion: the classifier has no emotional branch" in printed and "regulated" not in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN"], "the following arguments are required: IMAGE"),
        (["RUN", "a.png", "--json", "--out", "x.csv"], "give one of them"),
        (["RUN", "a.png", "--probabilities"], "--probabilities is for --json and --out"),
        (["RUN", "nowhere.png"], "nowhere.png does not exist"),
        (["nowhere", "a.png"], "nowhere is not a run folder"),
        (["RUN", "a.png", "--lam", "2"], "λ is 2.0; it must lie in [0, 1]"),
        (["RUN", "a.png", "--temperature", "-2"], "temperature: must be from 0.01 to 100, not -2"),
        (["RUN", "a.png", "--temperature", "calibrated"], "has no calibration.json: fit its temperature with"),
        (["RUN", "a.png", "--experience", "nowhere"], "its stage-1 run"),
        (["RUN", "a.png", "--piktures", "x"], "unknown option '--piktures' (did you mean '--pictures'?)"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, run: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [{"RUN": run, "a.png": str(photos / "a.png")}.get(word, word) for word in arguments]
    assert main(["predict", *given]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("emoreg: ") and error.count("\n") == 1


@pytest.mark.extra("explain")
def test_explain_writes_a_page_and_says_where(
    run: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "inside"
    given = [run, str(photos / "a.png"), "--out", str(out), "--projection", "pca", "--points", "20", "--quiet"]
    assert main(["explain", *given]) == 0
    assert capsys.readouterr().out.strip() == f"page: {out / 'explain.html'}"
    assert (out / "explain.html").exists()


def test_a_run_is_calibrated_and_predicts_at_its_temperature(
    run: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(shutil.copytree(run, tmp_path / "run"))
    assert main(["calibrate", folder, "--device", "cpu", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert re.match(
        r"temperature [\d.]+: fitted on \d+ validation images, whose NLL it changes from [\d.]+ to", printed
    )
    assert f"use it: emoreg predict {folder} IMAGE --temperature calibrated" in printed

    given = [folder, str(photos), "--device", "cpu", "--quiet", "--temperature"]
    temperature = json.loads((tmp_path / "run" / "calibration.json").read_text())["temperature"]
    assert main(["predict", *given, "calibrated", "--out", str(tmp_path / "rows.csv")]) == 0
    with (tmp_path / "rows.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["temperature"]) for row in rows] == [pytest.approx(temperature, abs=1e-6)] * 5
    capsys.readouterr()
    assert main(["predict", *given, "2.5"]) == 0
    assert "regulated: probabilities at temperature 2.5" in capsys.readouterr().out
