from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from emoreg.config.schema import BackboneSettings, PretrainRecipe, TrainRecipe
from emoreg.errors import UserError
from emoreg.study.arms import ARMS
from emoreg.study.definition import Study, find_study, read_study
from emoreg.study.run_study import default_folder


def written(tmp_path: Path, text: str, name: str = "mine.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def read(tmp_path: Path, text: str, **options: Any) -> Study:
    return read_study(written(tmp_path, text), **options)


GRID = """\
arms: [backbone, learned]
seeds: 3
experience:
  optimizer: {lr: 0.002}
experiences:
  - stimuli: {name: oasis, root: oasis.zip}
  - stimuli: {name: procedural}
    training: {epochs: 15}
classifier:
  augment: {flip: true}
  target: {image_size: 16}
targets:
  - target: {name: cifar10}
  - target: {name: cifar100}
    training: {epochs: 7}
backbones:
  - backbone: {name: resnet20}
  - backbone: {name: resnet8}
    optimizer: {lr: 0.3}
"""


def test_an_empty_file_is_a_study_of_all_arms_on_the_defaults(tmp_path: Path) -> None:
    study = read(tmp_path, "")
    assert (study.name, study.arms, study.seeds, study.control_mode) == ("mine", tuple(ARMS), 5, "learned")
    (cell,) = study.grid
    assert (cell.target, cell.backbone) == ("digits", "resnet20")
    assert cell.recipe.training == TrainRecipe().training
    (experience,) = cell.experiences
    assert (experience.label, experience.recipe) == ("procedural", PretrainRecipe(edition=1))


def test_partial_recipes_are_laid_over_the_base_and_make_a_grid(tmp_path: Path) -> None:
    study = read(tmp_path, GRID)
    assert [(cell.target, cell.backbone) for cell in study.grid] == [
        (target, backbone) for target in ("cifar10", "cifar100") for backbone in ("resnet20", "resnet8")
    ]
    last = study.grid[-1]
    assert last.recipe.augment.flip and last.recipe.training.epochs == 7
    assert last.recipe.optimizer.lr == 0.3 and study.grid[0].recipe.optimizer.lr == TrainRecipe().optimizer.lr
    oasis, procedural = last.experiences
    assert (oasis.label, procedural.label) == ("oasis", "procedural")
    assert oasis.recipe.optimizer.lr == procedural.recipe.optimizer.lr == 0.002
    assert (oasis.recipe.training.epochs, procedural.recipe.training.epochs) == (40, 15)


def test_an_encoder_has_the_backbone_and_image_size_of_its_cell_unless_others_are_given(tmp_path: Path) -> None:
    for cell in read(tmp_path, GRID).grid:
        for experience in cell.experiences:
            assert experience.recipe.backbone == cell.recipe.backbone
            assert experience.recipe.stimuli.image_size == 16
    given = "classifier: {encoder: {backbone: {name: resnet14}}}\nexperience: {stimuli: {image_size: 24}}"
    (cell,) = read(tmp_path, given).grid
    assert cell.experiences[0].recipe.backbone == BackboneSettings("resnet14")
    assert cell.experiences[0].recipe.stimuli.image_size == 24


def test_a_union_of_sets_is_one_experience_of_one_size(tmp_path: Path) -> None:
    text = """\
classifier: {target: {image_size: 16}}
experience:
  stimuli: {name: oasis, root: x}
  also: [{name: fi, root: y}]
"""
    (cell,) = read(tmp_path, text).grid
    (experience,) = cell.experiences
    assert experience.label == "oasis+fi"
    assert [settings.image_size for settings in experience.recipe.sets] == [16, 16]


def test_equal_names_are_distinguished_by_the_settings_that_differ(tmp_path: Path) -> None:
    text = """\
targets:
  - target: {name: cifar10, limit: 500}
  - target: {name: cifar10}
  - target: {name: folder, root: photos/cats.zip}
backbones:
  - regulation: {granularity: per_class}
  - loss: {label_smoothing: 0.1}
"""
    study = read(tmp_path, text)
    assert list(dict.fromkeys(cell.target for cell in study.grid)) == ["cifar10, limit 500", "cifar10", "cats"]
    assert list(dict.fromkeys(cell.backbone for cell in study.grid)) == [
        "resnet20, granularity per_class",
        "resnet20, label_smoothing 0.1",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arm: [x]", ":1: arm: unknown setting (did you mean 'arms'?)"),
        ("seeds: 3\narms: [lerned]", ":2: arms[0]: no arm is called 'lerned' (did you mean 'learned'?)"),
        ("arms: [learned, learned]", ":1: arms[1]: 'learned' appears twice"),
        ("arms: []", ":1: arms: must name at least one arm"),
        ("arms: learned", ":1: arms: must be a list, not 'learned'"),
        ("seeds: 0", ":1: seeds: must be 1 to 1,000, not 0"),
        ("seeds: many", ":1: seeds: must be a whole number, not 'many'"),
        ("control_mode: none", ":1: control_mode: must be one of fixed, random, learned, random_learned, not 'none'"),
        ("targets: 5", ":1: targets: must be a list of mappings, each begun with '- '"),
        ("experience: {also: 5}", ":1: experience.also: must be a list of mappings, each begun with '- ', not 5"),
        ("seeds: 2\nexperience:\n  backbone: {name: resnet8}", ":3: experience.backbone: is decided by the study; set"),
        ("experiences:\n  - seed: 4", ":2: experiences[0].seed: is decided by the study; leave it out"),
        ("backbones:\n  - regulation: {mode: fixed}", ":2: backbones[0].regulation.mode: is decided by the study"),
        ("classifier:\n  encoder: {experience: x}", ":2: classifier.encoder.experience: is decided by the study"),
        ("classifier:\n  training:\n    epochs: 0", ":3: classifier.training.epochs: must be at least 1, not 0"),
        (
            "targets:\n- training: {epochs: 1}\n- training:\n    epochs: no",
            ":4: targets[1].training.epochs: must be a whole number",
        ),
        ("targets:\n- training: {epochs: 1}\n- training: {epochs: 1}", ":3: targets[1]: is the same as targets[0]"),
        (
            "backbones:\n- backbone: {nam: x}",
            ":2: backbones[0].backbone.nam: unknown setting (did you mean 'backbones[0].",
        ),
        ("[]", ":1: must be a mapping of keys to values"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_mistake_is_reported_with_its_line_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path, text)
    assert message in str(error.value) and "mine.yaml" in str(error.value) and "\n" not in str(error.value)


def test_the_values_written_again_give_the_same_study(tmp_path: Path) -> None:
    study = read(tmp_path, GRID, seeds=7)
    assert study.seeds == 7 and read(tmp_path, yaml.safe_dump(study.values)) == study


def test_a_file_of_a_person_s_own_may_be_called_study_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "seeds: 2", "study.yaml")
    (tmp_path / "runs" / "plain").mkdir(parents=True)
    assert default_folder("study.yaml") == Path("runs/study") and read_study("study.yaml").name == "study"


def test_smoke_shrinks_every_recipe_of_the_grid(tmp_path: Path) -> None:
    study = read(tmp_path, GRID, smoke=True)
    assert study.seeds == 1
    recipes = [cell.recipe for cell in study.grid] + [e.recipe for cell in study.grid for e in cell.experiences]
    assert {recipe.training.epochs for recipe in recipes} == {1}
    assert {cell.recipe.target.limit for cell in study.grid} == {64}
    assert read(tmp_path, yaml.safe_dump(study.values)) == study


def test_a_study_is_found_by_its_file_or_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "pilot"
    folder.mkdir()
    file = written(folder, "seeds: 2", "study.yaml")
    assert find_study(folder) == find_study(file) == file
    (folder / "results.parquet").touch()
    assert read_study(file).name == "pilot" and default_folder(file) == default_folder(folder) == folder
    with pytest.raises(UserError, match=r"is not a study's folder: it has no study\.yaml"):
        find_study(tmp_path)
    with pytest.raises(UserError, match="no study file"):
        find_study(tmp_path / "nothing.yaml")


def test_every_study_that_ships_can_be_read() -> None:
    shipped = sorted((Path(__file__).parents[2] / "recipes" / "studies").glob("*.yaml"))
    assert shipped
    for path in shipped:
        assert read_study(path).grid
