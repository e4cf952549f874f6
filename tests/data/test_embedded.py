from __future__ import annotations

from pathlib import Path

import pytest

from emoreg.config.schema import StimuliSettings, TargetSettings
from emoreg.data.embedded import refuse_root, without_unread_root
from emoreg.data.stimuli import read_stimuli
from emoreg.data.targets import read_for_scoring, read_target
from emoreg.errors import SettingError


def test_a_root_beside_a_forgotten_name_is_refused_instead_of_training_on_the_default_set(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="must be null for digits, which has no files") as caught:
        read_target(TargetSettings(root=str(tmp_path)))
    assert caught.value.key == "target.root" and "target.name (folder for" in str(caught.value)
    with pytest.raises(SettingError, match="must be null for procedural, which has no files") as caught:
        read_stimuli(StimuliSettings(root=str(tmp_path), count=10), 0)
    assert caught.value.key == "stimuli.root" and "stimuli.name (emotion_folder or manifest" in str(caught.value)


def test_sets_with_files_and_embedded_ones_without_a_root_pass(tmp_path: Path) -> None:
    for settings in (TargetSettings(), StimuliSettings(), TargetSettings("folder", str(tmp_path))):
        refuse_root(settings)


def test_a_run_that_was_trained_with_such_a_root_is_scored_on_what_it_was_trained_on(tmp_path: Path) -> None:
    stored = TargetSettings(root=str(tmp_path))
    classes = tuple(map(str, range(10)))
    assert len(read_for_scoring(stored, None, classes)) == len(read_target(TargetSettings()).test)
    for settings in (TargetSettings(), TargetSettings("folder", str(tmp_path))):
        assert without_unread_root(settings) == settings
