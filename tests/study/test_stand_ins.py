from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from emoreg.config.schema import StimuliSettings, TargetSettings
from emoreg.study.stand_ins import stimuli_like, target_like


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (TargetSettings("cifar10"), (50_000, 10_000, 10)),
        (TargetSettings("cifar100"), (50_000, 10_000, 100)),
        (TargetSettings("cifar100", classes=("apple", "bear")), (1_000, 200, 2)),
    ],
    ids=lambda value: str(getattr(value, "name", "")),
)
def test_the_stand_in_of_cifar_has_the_published_images_and_classes(
    settings: TargetSettings, expected: tuple[int, int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    target = target_like(settings)
    assert target is not None and target.test is not None
    assert (len(target.train), len(target.test), len(target.classes)) == expected
    assert set(target.train.labels.tolist()) == set(range(expected[2]))


def test_existing_and_unpublished_sets_have_no_stand_in(tmp_path: Path) -> None:
    assert target_like(TargetSettings("digits")) is None
    assert stimuli_like(StimuliSettings("emoset", str(tmp_path))) is None
    assert stimuli_like(StimuliSettings("manifest", str(tmp_path / "nowhere.csv"))) is None


def test_missing_stimuli_have_their_published_splits() -> None:
    stimuli = stimuli_like(StimuliSettings("emoset"))
    assert stimuli is not None and len(stimuli.images) == 118_102
    assert Counter(stimuli.splits)["test"] == 17_716
