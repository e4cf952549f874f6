from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pytest

from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.recipe import PretrainRecipe, TrainRecipe, require_recipe
from emoreg.config.schema import (
    RELATIVES,
    BackboneSettings,
    EncoderSettings,
    Mode,
    RegulationSettings,
    Relative,
    StimuliSettings,
    TargetSettings,
)
from emoreg.config.setting_types import NAMES_IN_REPORTS, path_of, typed_value
from emoreg.errors import SettingError
from emoreg.study.arms import LABELS, RegulatedMode
from emoreg.suites.options import HumanUncertaintyOptions, OtherSet

# As called by users who do not check types.
Target: Any = TargetSettings
Optimizer: Any = OptimizerSettings
Encoder: Any = EncoderSettings
Regulation: Any = RegulationSettings
Pretraining: Any = PretrainRecipe
Training: Any = TrainRecipe


@pytest.mark.parametrize(("name", "mode"), NAMES_IN_REPORTS.items())
def test_a_mode_may_have_its_name_in_reports(name: Any, mode: str) -> None:
    assert Regulation(mode=name).mode == mode
    assert typed_value(Mode, name.lower(), "mode") == mode
    assert LABELS[Regulation(mode=name).mode] == name
    if mode != "none":
        mode_type = Relative if mode in RELATIVES else RegulatedMode  # in a study's file
        assert typed_value(mode_type, name, "modes[0]") == mode


def test_the_names_of_modes_are_not_accepted_for_other_words() -> None:
    with pytest.raises(SettingError, match="policy: must be one of none, trivial, not 'Backbone'"):
        typed_value(Literal["none", "trivial"], "Backbone", "policy")
    with pytest.raises(SettingError):
        typed_value(RegulatedMode, "Backbone", "modes[0]")


@pytest.mark.parametrize(
    ("value", "meant"),
    [("lerned", "learned"), ("Lern-E-Reg", "Learn-E-Reg"), ("FIXED", "fixed"), ("random-learned", "random_learned")],
)
def test_a_misspelt_mode_suggests_the_closest_match(value: Any, meant: str) -> None:
    with pytest.raises(SettingError, match=rf"mode: must be one of none, .* \(did you mean '{meant}'\?\)"):
        Regulation(mode=value)


def test_python_values_are_converted_to_the_types_of_a_recipe() -> None:
    target = Target(classes=["cat", "dog"], per_class=np.int64(3), root=Path("images"))
    assert target == TargetSettings(classes=("cat", "dog"), per_class=3, root="images")
    assert type(target.per_class) is int and hash(target)
    assert type(Optimizer(lr=1).lr) is float and Optimizer(lr=np.float32(0.5)).lr == 0.5
    assert Encoder(experience=Path("runs/x")).experience == str(Path("runs/x"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Training(seed="3"), "seed: must be a whole number, not '3'"),
        (lambda: Training(target={"name": "digits"}), "target: must be of TargetSettings, not {"),
        (lambda: Training(target=StimuliSettings()), "target: must be of TargetSettings, not a StimuliSettings"),
        (lambda: Target(classes="cat"), r"classes: must be a list, not 'cat'; write \['cat'\]"),
        (lambda: Target(name=3), "name: must be text, not 3; write it in quotes"),
        (lambda: Regulation(lam=None), "lam: must be a number, not null"),
        (lambda: Optimizer(name="adam"), r"name: .* not 'adam' \(did you mean 'adamw'\?\)"),
        (lambda: Optimizer(lr=np.zeros(3)), "lr: must be a number, not a ndarray"),
        (lambda: Encoder(frozen=1), "frozen: must be true or false, not 1"),
        (lambda: Pretraining(also=(TargetSettings(),)), r"also\[0\]: must be of StimuliSettings"),
    ],
)
def test_settings_of_another_type_are_refused_with_their_name(make: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make()


def test_a_setting_may_be_a_word_a_list_or_a_mapping() -> None:
    annotation = Literal["none", "balanced"] | tuple[float, ...] | Mapping[str, float]
    assert typed_value(annotation, "balanced", "w") == "balanced"
    assert typed_value(annotation, [1, 2.5], "w") == (1.0, 2.5)
    assert typed_value(annotation, {"cat": 2}, "w") == {"cat": 2.0}
    for wrong, message in (
        (["a"], r"w\[0\]: must be a number"),
        ({"cat": "x"}, r"w\.cat: must be a number"),
        ("b", "w"),
    ):
        with pytest.raises(SettingError, match=message):
            typed_value(annotation, wrong, "w")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (PretrainRecipe(), "train takes a TrainRecipe, not a PretrainRecipe; emoreg.pretrain takes that"),
        (TrainRecipe, "not the class TrainRecipe; .* gives one with the defaults"),
        (PretrainRecipe, r"not the class PretrainRecipe; emoreg.read_recipe\(emoreg.TrainRecipe\) gives one"),
        ("recipe.yaml", r"not a path; emoreg.read_recipe\(emoreg.TrainRecipe, path\) reads it"),
        (None, "not a NoneType"),
    ],
)
def test_anything_but_a_recipe_of_this_stage_is_refused(given: object, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        require_recipe(given, TrainRecipe, "train")
    assert require_recipe(TrainRecipe(), TrainRecipe, "train") == TrainRecipe()


def test_a_path_is_a_path_or_text() -> None:
    assert path_of("runs", "out") == path_of(Path("runs"), "out") == Path("runs")
    for wrong in (None, 3, ["runs"]):
        with pytest.raises(SettingError, match="out: must be a path, not "):
            path_of(wrong, "out")


def test_a_tilde_is_expanded_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # on Windows
    there = str(tmp_path / "sets")
    assert str(path_of("~/sets", "out")) == str(path_of(Path("~/sets"), "out")) == there
    assert StimuliSettings(root="~/sets").root == TargetSettings(root="~/sets").root == there
    assert EncoderSettings(experience="~/sets").experience == BackboneSettings(weights="~/sets").weights == there
    assert OtherSet(root="~/sets").root == HumanUncertaintyOptions("~/sets").file == there
    assert TargetSettings(root="sets/~").root == "sets/~" and path_of("~no-one/x", "out") == Path("~no-one/x")


def test_every_mode_except_transfer_has_a_name_in_reports() -> None:
    assert (
        set(NAMES_IN_REPORTS.values())
        == set(get_args(Mode)) - {"transfer"}
        == {"none", *get_args(RegulatedMode), *RELATIVES}
    )
