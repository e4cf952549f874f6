from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from emoreg.config.read_recipe import build
from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import StimuliSettings, TargetSettings
from emoreg.errors import UserError
from emoreg.runtime.progress import Progress
from emoreg.study.definition import StimuliRecipe, Study
from emoreg.study.image_counts import count_images
from emoreg.study.missing_sets import describe_missing, download_notes, is_missing, missing_sets
from emoreg.study.plan import plan_runs
from emoreg.study.run_study import run_study


@pytest.fixture
def study(tiny_study: Study, tmp_path: Path) -> Study:
    """A study with three missing stimulus sets."""
    point = tiny_study.grid[0]
    base = point.stimuli[0].recipe
    sets = [("emoset", str(tmp_path / "emoset")), ("fi", str(tmp_path / "fi")), ("manifest", str(tmp_path / "own"))]
    stimuli = tuple(StimuliRecipe(name, build(base, {"stimuli": {"name": name, "root": root}})) for name, root in sets)
    return dataclasses.replace(tiny_study, grid=(dataclasses.replace(point, stimuli=stimuli),), seeds=1)


def test_all_missing_sets_are_listed_at_once_with_how_to_get_them(study: Study, tmp_path: Path) -> None:
    found = missing_sets(plan_runs(study, tmp_path))
    assert [each.name for each in found] == ["emoset", "fi", "manifest"]
    emoset = found[0]
    assert emoset.asked_by == ("stimuli emoset",) and emoset.runs == 2  # affect and shuffled
    for part in ("118,102", "vcc.tech/EmoSet", "train.json", str(tmp_path / "emoset"), "emoreg data pack emoset"):
        assert part in emoset.line


def test_sets_that_users_provide_are_missing_without_a_root_or_if_it_does_not_exist(tmp_path: Path) -> None:
    nowhere, here = str(tmp_path / "nowhere"), str(tmp_path)
    missing: list[StimuliSettings | TargetSettings]
    others: list[StimuliSettings | TargetSettings]
    missing = [StimuliSettings("emoset"), StimuliSettings("emoset", nowhere), TargetSettings("folder", nowhere)]
    others = [StimuliSettings(), StimuliSettings("emoset", here), TargetSettings("cifar10"), TargetSettings("hf:a/b")]
    assert all(map(is_missing, missing)) and not any(map(is_missing, others))


def test_a_study_whose_sets_are_missing_is_refused_before_any_run(
    study: Study, tmp_path: Path, quiet: Progress
) -> None:
    with pytest.raises(UserError) as caught:
        run_study(study, tmp_path / "out", progress=quiet)
    assert str(caught.value).startswith("3 image sets are not here, and no run was started")
    assert all(f"[{number}]" in str(caught.value) for number in (1, 2, 3))
    assert not (tmp_path / "out" / "runs").exists()


def test_a_study_with_a_root_beside_a_forgotten_name_is_refused_before_any_run(
    tiny_study: Study, tmp_path: Path, quiet: Progress
) -> None:
    point = tiny_study.grid[0]
    recipe = build(point.recipe, {"target": {"root": str(tmp_path / "photos")}})
    study = dataclasses.replace(tiny_study, grid=(dataclasses.replace(point, recipe=recipe),))
    with pytest.raises(UserError, match=r"target\.root: must be null for digits"):
        run_study(study, tmp_path / "out", progress=quiet)
    assert not (tmp_path / "out" / "runs").exists()


def test_a_set_that_cannot_be_read_is_a_line_among_the_others(study: Study, tmp_path: Path, quiet: Progress) -> None:
    (tmp_path / "fi").mkdir()
    planned = plan_runs(study, tmp_path / "runs")
    counted = count_images((run.recipe for run in planned), quiet)
    head, *lines = describe_missing(missing_sets(planned, counted.faults))
    assert head == "3 image sets are not here or cannot be used with these settings, and needed before any run:"
    assert lines[0].startswith("[1] stimuli emoset (2 runs): nothing at ")
    assert lines[1].startswith("[2] stimuli fi (2 runs): ") and str(tmp_path / "fi") in lines[1]
    assert lines[2].startswith("[3] stimuli manifest (2 runs): nothing at ")
    by_set = {run.stimuli: counted.of(run.recipe) for run in planned if run.mode is None}
    assert by_set["fi"] is by_set["manifest"] is None  # no published number
    assert by_set["emoset"] is not None
    assert by_set["emoset"].train == pytest.approx(94_481, rel=0.02)  # its published training split
    assert all(counted.of(run.recipe) for run in planned if run.mode is not None)


def test_a_dry_run_downloads_no_set_and_says_what_the_first_run_downloads(
    tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_arguments: object, **_options: object) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr("urllib.request.urlopen", download)
    (tmp_path / "data").mkdir()
    for root in (tmp_path / "data", tmp_path / "nowhere"):
        recipe = TrainRecipe(target=TargetSettings("svhn", str(root)))
        counted = count_images([recipe], quiet)
        assert counted.of(recipe) is None and not counted.faults
        assert download_notes([recipe]) == [
            f"svhn cannot be read from {root}: the first run downloads it there, if torchvision can; size unknown"
        ]
    assert list(tmp_path.iterdir()) == [tmp_path / "data"] and not list((tmp_path / "data").iterdir())


@pytest.mark.extra("hub")
def test_a_dry_run_does_not_download_a_set_of_the_hub(
    tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    builder = SimpleNamespace(cache_dir=str(tmp_path / "cache"))
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_: builder)
    monkeypatch.setattr(datasets, "load_dataset", None)
    recipe = TrainRecipe(target=TargetSettings("hf:me/pets"))
    counted = count_images([recipe], quiet)
    assert counted.of(recipe) is None and not counted.faults
    (line,) = download_notes([recipe])
    assert line == "hf:me/pets is not on this machine: the first run downloads it from the Hub; size unknown"
    (tmp_path / "cache").mkdir()
    assert not download_notes([recipe])
