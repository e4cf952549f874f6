from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from emoreg.config.read_recipe import has_edition
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import BackboneSettings, TargetSettings
from emoreg.errors import UserError
from emoreg.study.arms import PlannedArm, factorial
from emoreg.study.definition import Study
from emoreg.study.read_study import find_study, read_study
from emoreg.study.run_study import default_folder
from study_arms import BACKBONE, ENSEMBLE, FRESH, SHUFFLED


def written(tmp_path: Path, text: str, name: str = "mine.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def read(tmp_path: Path, text: str, **options: Any) -> Study:
    return read_study(written(tmp_path, text), **options)


GRID = """\
modes: [learned]
seeds: 3
pretraining:
  optimizer: {lr: 0.002}
stimuli:
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
VARIANTS = """\
variants:
  - name: own losses
  - name: mixture
    classifier: {loss: {regulated: 1, non_emotional: 0, emotional: 0}, regulation: {mix: logits}}
  - name: longer
    pretraining: {training: {epochs: 99}}
"""


def test_an_empty_file_is_a_confirmation_of_one_mode_with_all_twins_and_references(tmp_path: Path) -> None:
    study = read(tmp_path, "")
    assert (study.name, study.arms, study.seeds, study.looks) == ("mine", factorial(("learned",)), 8, None)
    assert (study.purpose, study.edition, list(study.seed_numbers)) == ("confirmation", 2, list(range(8)))
    (cell,) = study.grid
    assert (cell.target, cell.backbone) == ("digits", "resnet20")
    assert cell.recipe.training == TrainRecipe().training
    (stimuli,) = cell.stimuli
    assert (stimuli.label, stimuli.recipe) == ("procedural", PretrainRecipe())
    (variant,) = cell.regulated
    assert variant.label is None and variant.recipe.regulation.mode == "learned"


def test_relatives_are_arms_of_their_own_and_may_be_the_only_ones(tmp_path: Path) -> None:
    study = read(tmp_path, "relatives: [bel, LiAENN]")
    assert study.arms == (*factorial(), PlannedArm("bel"), PlannedArm("liaenn"))
    alone = read(tmp_path, "modes: []\nreferences: [backbone]\nrelatives: [embp]")
    assert alone.arms == (BACKBONE, PlannedArm("embp"))


def test_partial_recipes_are_laid_over_the_base_and_make_a_grid(tmp_path: Path) -> None:
    study = read(tmp_path, GRID)
    assert [(cell.target, cell.backbone) for cell in study.grid] == [
        (target, backbone) for target in ("cifar10", "cifar100") for backbone in ("resnet20", "resnet8")
    ]
    last = study.grid[-1]
    assert last.recipe.augment.flip and last.recipe.training.epochs == 7
    assert last.recipe.optimizer.lr == 0.3 and study.grid[0].recipe.optimizer.lr == TrainRecipe().optimizer.lr
    oasis, procedural = last.stimuli
    assert (oasis.label, procedural.label) == ("oasis", "procedural")
    assert oasis.recipe.optimizer.lr == procedural.recipe.optimizer.lr == 0.002
    assert (oasis.recipe.training.epochs, procedural.recipe.training.epochs) == (40, 15)


def test_an_encoder_has_the_backbone_and_image_size_of_its_cell_unless_others_are_given(tmp_path: Path) -> None:
    for cell in read(tmp_path, GRID).grid:
        for stimuli in cell.stimuli:
            assert stimuli.recipe.backbone == cell.recipe.backbone
            assert stimuli.recipe.stimuli.image_size == 16
    given = "classifier: {encoder: {backbone: {name: resnet14}}}\npretraining: {stimuli: {image_size: 24}}"
    (cell,) = read(tmp_path, given).grid
    assert cell.stimuli[0].recipe.backbone == BackboneSettings("resnet14")
    assert cell.stimuli[0].recipe.stimuli.image_size == 24


def test_a_union_of_sets_is_one_label_of_one_size(tmp_path: Path) -> None:
    text = """\
classifier: {target: {image_size: 16}}
pretraining:
  stimuli: {name: oasis, root: x}
  also: [{name: fi, root: y}]
"""
    (cell,) = read(tmp_path, text).grid
    (stimuli,) = cell.stimuli
    assert stimuli.label == "oasis+fi"
    assert [settings.image_size for settings in stimuli.recipe.sets] == [16, 16]


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


def test_variants_apply_to_networks_with_two_branches_and_the_base_recipe_to_references(tmp_path: Path) -> None:
    for cell in read(tmp_path, GRID + VARIANTS).grid:
        own, mixture, longer = cell.regulated
        assert [variant.label for variant in cell.regulated] == ["own losses", "mixture", "longer"]
        assert own.recipe.loss_weights == (0.5, 0.75, 0.75, 0) and own.recipe.regulation.mix == "probabilities"
        assert mixture.recipe.loss_weights == (1, 0, 0, 0) and mixture.recipe.regulation.mix == "logits"
        assert cell.recipe.loss_weights == (1, 0, 0, 0) and cell.recipe.regulation.mode == "none"
        assert own.stimuli == mixture.stimuli == cell.stimuli
        assert {stimuli.recipe.training.epochs for stimuli in longer.stimuli} == {99}
        for variant in cell.regulated:
            assert variant.recipe.target == cell.recipe.target and variant.recipe.training == cell.recipe.training


def test_a_per_class_lambda_is_allowed_in_a_study_of_several_modes(tmp_path: Path) -> None:
    text = "modes: [fixed, learned]\nclassifier: {regulation: {granularity: per_class}}"
    (cell,) = read(tmp_path, text).grid
    assert cell.recipe.regulation.granularity == "per_class"
    (cell,) = read(tmp_path, text.replace("fixed, learned", "fixed")).grid
    assert cell.recipe.regulation.granularity == "scalar"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("purpose: exploration", TargetSettings(validation=0.1, test=False)),
        ("purpose: confirmation", TargetSettings(validation=0.0)),
        (
            "purpose: exploration\nclassifier: {target: {validation: 0.2}}",
            TargetSettings(validation=0.2, test=False),
        ),
        ("classifier: {target: {validation: 0.2}}", TargetSettings(validation=0.2)),
    ],
)
def test_an_exploration_holds_images_out_and_leaves_the_test_split_unseen(
    text: str, expected: TargetSettings, tmp_path: Path
) -> None:
    study = read(tmp_path, text)
    (cell,) = study.grid
    assert cell.recipe.target == expected
    assert study.seed_numbers.start == (1000 if "exploration" in text else 0)


def test_a_replication_has_seeds_of_its_own(tmp_path: Path) -> None:
    assert read(tmp_path, "seeds: 12\nfirst_seed: 100").seed_numbers == range(100, 112)
    assert read(tmp_path, "seeds: 2\nfirst_seed: 998").seed_numbers == range(998, 1000)
    assert read(tmp_path, "purpose: exploration\nseeds: 2\nfirst_seed: 2000").seed_numbers == range(2000, 2002)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("seeds: 2\nfirst_seed: 999", "must be 0 to 998 for 2 seeds of purpose confirmation, not 999"),
        ("seeds: 2\nfirst_seed: -1", "must be 0 to 998 for 2 seeds of purpose confirmation, not -1"),
        (
            "seeds: 3\nfirst_seed: 7\npurpose: exploration",
            "must be 1,000 to 65,533 for 3 seeds of purpose exploration, not 7",
        ),
    ],
)
def test_the_seeds_of_confirmations_and_explorations_stay_apart(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf":2: first_seed: {reason}"):
        read(tmp_path, text)
    with pytest.raises(UserError, match=r"first_seed: must be 0 to 995 for 5 seeds"):
        read(tmp_path, "seeds: 2\nfirst_seed: 998", seeds=5)


def test_the_number_of_seeds_to_run_does_not_change_the_plan(tmp_path: Path) -> None:
    study = read(tmp_path, "seeds: 8\nlooks: [4, 8]", seeds=4)
    assert (study.seeds, study.looks, len(study.seed_numbers)) == (8, (4, 8), 4)
    assert len(read(tmp_path, "seeds: 8\nrun_seeds: 4", seeds=10).seed_numbers) == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modse: [x]", ":1: modse: unknown setting (did you mean 'modes'?)"),
        (
            "seeds: 3\nmodes: [lerned]",
            ":2: modes[0]: must be one of fixed, random, learned, random_learned, not 'lerned'",
        ),
        ("modes: [learned, learned]", ":1: modes[1]: 'learned' appears twice"),
        ("references: [backbone, backbone]", ":1: references[1]: 'backbone' appears twice"),
        ("modes: []\nreferences: []", ":1: modes: must name at least one, or references or relatives must"),
        ("experiences: []", ":1: experiences: must name affect"),
        ("experiences: [fresh, shuffled]", ":1: experiences: must name affect: the others are its twins"),
        ("modes: learned", ":1: modes: must be a list, not 'learned'"),
        ("seeds: 0", ":1: seeds: must be 1 to 1,000, not 0"),
        ("seeds: many", ":1: seeds: must be a whole number, not 'many'"),
        ("mode: [learned]", ":1: mode: unknown setting (did you mean 'modes'?)"),
        ("seed: 3", ":1: seed: unknown setting (did you mean 'seeds'?)"),
        (
            "modes: [learn]",
            ":1: modes[0]: must be one of fixed, random, learned, random_learned, not 'learn' (did you m",
        ),
        (
            "seeds: 3\nsmoke: true",
            ":2: smoke: is written by emoreg alone: leave it out, and give 'emoreg study' --smoke",
        ),
        ("purpose: exploration\nlooks: [4, 8]", ":2: looks: must be left out of an exploration"),
        ("seeds: 8\nlooks: [4, 6]", ":2: looks: must end with all 8 seeds, not be [4, 6]"),
        ("seeds: 8\nlooks: [5, 4, 8]", ":2: looks: must ascend from at least 1, not be [5, 4, 8]"),
        ("purpose: fun", ":1: purpose: must be one of exploration, confirmation, not 'fun'"),
        ("edition: 3", ":1: edition: must be 1 or 2, not 3"),
        ("targets: 5", ":1: targets: must be a list of mappings, each starting with '- '"),
        ("pretraining: {also: 5}", ":1: pretraining.also: must be a list of mappings, each starting with '- ', not 5"),
        (
            "seeds: 2\npretraining:\n  backbone: {name: resnet8}",
            ":3: pretraining.backbone: is decided by the study; set",
        ),
        ("stimuli:\n  - seed: 4", ":2: stimuli[0].seed: is decided by the study; leave it out"),
        ("backbones:\n  - regulation: {mode: fixed}", ":2: backbones[0].regulation.mode: is decided by the study"),
        ("classifier:\n  encoder: {experience: x}", ":2: classifier.encoder.experience: is decided by the study"),
        (
            "classifier:\n  encoder: {moments_only: true}",
            ":2: classifier.encoder.moments_only: is decided by the",
        ),
        ("classifier:\n  edition: 1", ":2: classifier.edition: is decided by the study"),
        ("classifier:\n  target: {test: true}", ":2: classifier.target.test: is decided by the study; set the study's"),
        ("classifier:\n  training:\n    epochs: 0", ":3: classifier.training.epochs: must be at least 1, not 0"),
        (
            "modes: [learned, fixed]\nclassifier:\n  loss: {regulated: 0}",
            ":3: classifier.loss.regulated: must be positive in mode learned",
        ),
        (
            "targets:\n- training: {epochs: 1}\n- training:\n    epochs: no",
            ":4: targets[1].training.epochs: must be a whole number",
        ),
        ("targets:\n- training: {epochs: 1}\n- training: {epochs: 1}", ":3: targets[1]: is the same as targets[0]"),
        (
            "backbones:\n- backbone: {nam: x}",
            ":2: backbones[0].backbone.nam: unknown setting (did you mean 'backbones[0].",
        ),
        ("variants:\n- classifier: {}", "variants[0].name: is missing"),
        ("variants:\n- name: a\n- name: a", ":3: variants[1].name: 'a' appears twice"),
        ("variants:\n- name: a\n- name: b", ":3: variants[1]: has the same settings as variants[0], 'a'; change one"),
        (
            "variants:\n- name: a\n- name: b\n  classifier: {regulation: {lam: 0.5}}",
            ":3: variants[1]: has the same settings as variants[0], 'a'; change one",
        ),
        (
            "variants:\n- name: a\n  classifier:\n    optimizer: {lr: 1}",
            ":4: variants[0].classifier.optimizer.lr: must not differ between variants, which share the references",
        ),
        (
            "variants:\n- name: a\n  classifier: {loss: {label_smoothing: 0.1}}",
            ":3: variants[0].classifier.loss.label_smoothing: must not differ between variants",
        ),
        (
            "variants:\n- name: a\n  classifier: {regulation: {lam: 2}}",
            ":3: variants[0].classifier.regulation.lam: λ must lie in [0, 1], not 2",
        ),
        ("variants:\n- name: a\n  pretraining: {seed: 1}", ":3: variants[0].pretraining.seed: is decided by the study"),
        ("variants:\n- name: a\n  pretraining: {training: {epochs: 0}}", ":3: variants[0].pretraining.training.epochs"),
        ("[]", ":1: must be a mapping of keys to values"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_mistake_is_reported_with_its_line_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path, text)
    assert message in str(error.value) and "mine.yaml" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "edition: 2\narms: [backbone, learned, fixed, random_encoder, neutral_pretext]",
            ":2: arms: is a key of the first edition; write modes: [fixed, learned], "
            "experiences: [affect, fresh, rotation], references: [backbone]",
        ),
        (
            "edition: 2\ncontrol_mode: fixed",
            ":2: control_mode: is a key of the first edition; leave it out: twins have",
        ),
        ("edition: 2\nexperience: {seed: 1}", ":2: experience: is a key of the first edition; write pretraining: with"),
        (
            "edition: 2\nexperiences:\n- stimuli: {}",
            ":2: experiences: holds the settings of stage 1, as in the first edition; write",
        ),
        (
            "seeds: 2\narms: [backbone, learned, fixed, random_encoder]",  # now a twin of each mode
            ":2: arms: is a key of the first edition, and now twins (random_encoder) go with affect, in every mode: "
            "write modes: [fixed, learned], experiences: [affect, fresh], references: [backbone], or edition: 1",
        ),
        ("arms: [backbone, random_encoder]", "write modes: [learned], experiences: [affect, fresh]"),  # without affect
        (
            "control_mode: fixed\narms: [random_encoder, learned]",
            "write modes: [learned], experiences: [affect, fresh]",
        ),
        ("arms: [lerned]", ":1: arms[0]: no arm is called 'lerned' (did you mean 'learned'?)"),
        ("arms: learned", ":1: arms: must be a list"),
        ("modes: [learned]\ncontrol_mode: fixed", ":2: control_mode: is a key of the first edition; leave it out"),
        (
            "experience: {seed: 1}",
            "a study without arms ran all of them; write pretraining: with the same settings, and",
        ),
        ("arms: [learned]\nmodes: [fixed]", ":1: arms: is what the first edition called modes, which the file has too"),
        (
            "arms: [learned]\nexperience: {}\npretraining: {}",
            ":2: experience: is what the first edition called pretraining, which the file has too; keep one",
        ),
        (
            "arms: [learned]\nexperience:\n  training: {epochs: 0}",
            ":3: pretraining.training.epochs: must be at least 1",
        ),
        ("arms: [learned]\nexperiences:\n- stimuli: {nam: x}", ":3: stimuli[0].stimuli.nam: unknown setting"),
    ],
)
def test_keys_of_the_first_edition_that_cannot_be_converted_are_refused_with_what_to_write(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path, text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("old", "today"),
    [
        ("arms: [learned]", "modes: [learned]\nexperiences: [affect]\nreferences: []"),
        ("arms: [ensemble, backbone]", "modes: []\nexperiences: []\nreferences: [backbone, ensemble]"),
        ("arms: [fixed, random]", "modes: [fixed, random]\nexperiences: [affect]\nreferences: []"),
        (
            "arms: [backbone, fixed, neutral_pretext, random_encoder, shuffled_affect]\ncontrol_mode: fixed",
            "modes: [fixed]\nexperiences: [affect, fresh, shuffled, rotation]\nreferences: [backbone]",
        ),
        (
            "arms: [learned]\nexperience: {training: {epochs: 3}}\nexperiences: [{stimuli: {name: oasis, root: x}}]",
            "modes: [learned]\nexperiences: [affect]\nreferences: []\npretraining: {training: {epochs: 3}}\n"
            "stimuli: [{stimuli: {name: oasis, root: x}}]",
        ),
        (
            "modes: [learned]\nexperience: {training: {epochs: 3}}",
            "modes: [learned]\npretraining: {training: {epochs: 3}}",
        ),
    ],
)
def test_keys_of_the_first_edition_are_converted_and_reported(
    old: str, today: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = read(tmp_path, f"seeds: 2\n{old}")
    message = capsys.readouterr().err
    assert (
        message.count("\n") == 1 and "mine.yaml: keys of the first edition: " in message and "now edition 2" in message
    )
    assert study == read(tmp_path, f"seeds: 2\n{today}") and study.edition == 2
    again = read(tmp_path, yaml.safe_dump(study.values))  # the copy in the study's folder
    assert again == study and not capsys.readouterr().err


FIRST = """\
arms: [backbone, fixed, random_encoder, shuffled_affect, ensemble]
seeds: 4
experience: {training: {epochs: 3}}
experiences: [{stimuli: {name: oasis, root: x}}]
"""


@pytest.mark.parametrize("how", ["explicit", "stored", "kept"])
def test_a_file_of_the_first_edition_keeps_its_meaning(how: str, tmp_path: Path) -> None:
    if how == "kept":
        (tmp_path / "results.parquet").touch()
        study = read_study(written(tmp_path, FIRST, "study.yaml"))
    else:
        text = f"edition: 1\n{FIRST}" if how == "explicit" else FIRST
        study = read(tmp_path, text, is_stored=True if how == "stored" else None)
    # Controls in mode learned.
    assert study.arms == (BACKBONE, PlannedArm("fixed", "affect"), FRESH, SHUFFLED, ENSEMBLE)
    assert (study.edition, study.purpose, study.seeds, len(study.seed_numbers)) == (1, None, 4, 4)
    (cell,) = study.grid
    assert cell.recipe.edition == cell.stimuli[0].recipe.edition == 1
    assert cell.stimuli[0].label == "oasis" and cell.stimuli[0].recipe.training.epochs == 3
    assert cell.recipe.loss.budget == "as_given" and cell.recipe.target.validation == 0.1
    again = read(tmp_path, yaml.safe_dump(study.values))
    assert (again.arms, again.grid, again.seeds) == (study.arms, study.grid, study.seeds)


def test_the_option_seeds_replaces_the_seeds_of_a_first_edition_file(tmp_path: Path) -> None:
    assert read(tmp_path, f"edition: 1\n{FIRST}", seeds=2).seeds == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arms: [lerned]", ":2: arms[0]: no arm is called 'lerned' (did you mean 'learned'?)"),
        ("arms: [learned, learned]", ":2: arms[1]: 'learned' appears twice"),
        ("control_mode: none", ":2: control_mode: must be one of fixed, random, learned, random_learned, not 'none'"),
        ("experience:\n  training: {epochs: 0}", ":3: experience.training.epochs: must be at least 1, not 0"),
        ("experiences:\n- seed: 1", ":3: experiences[0].seed: is decided by the study"),
        ("modes: [learned]", ":2: modes: unknown setting"),
        ("classifier:\n  loss: {budget: matched}", "classifier.loss.budget: must be as_given in edition 1"),
    ],
)
def test_errors_in_a_file_of_the_first_edition_use_its_keys(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path, f"edition: 1\n{text}")
    assert message in str(error.value)


def test_the_values_written_again_give_the_same_study(tmp_path: Path) -> None:
    study = read(tmp_path, GRID + VARIANTS, seeds=7)
    assert study.run_seeds == 7 and read(tmp_path, yaml.safe_dump(study.values)) == study
    assert study.values is not None and study.values["edition"] == 2


def test_a_file_with_an_edition_is_recognised(tmp_path: Path) -> None:
    assert not has_edition(written(tmp_path, "seeds: 2")) and not has_edition(written(tmp_path, ""))
    assert has_edition(written(tmp_path, "edition: 2"))


def test_a_users_file_may_be_called_study_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "seeds: 2", "study.yaml")
    (tmp_path / "runs" / "plain").mkdir(parents=True)
    assert default_folder("study.yaml") == Path("runs/study") and read_study("study.yaml").name == "study"


def test_smoke_shrinks_every_recipe_of_the_grid(tmp_path: Path) -> None:
    study = read(tmp_path, f"{GRID}{VARIANTS}looks: [2, 3]\n", smoke=True)
    assert study.seeds == 1 and study.looks is None
    variants = [variant for cell in study.grid for variant in cell.regulated]
    recipes = [cell.recipe for cell in study.grid] + [variant.recipe for variant in variants]
    stage_1 = [stimuli.recipe for variant in variants for stimuli in variant.stimuli]
    assert {recipe.training.epochs for recipe in recipes} == {recipe.training.epochs for recipe in stage_1} == {1}
    assert {(recipe.target.limit, recipe.target.test_limit) for recipe in recipes} == {(64, 64)}
    assert read(tmp_path, yaml.safe_dump(study.values), is_stored=True) == study


def test_a_study_started_before_stem_auto_keeps_its_stem(tmp_path: Path) -> None:
    text = """edition: 2
classifier:
  target: {name: folder, root: photos, image_size: 96}
  encoder: {backbone: {name: resnet18}}
backbones: [{backbone: {name: resnet18}}, {backbone: {name: resnet18, stem: imagenet}}]
"""
    began_before, new = read(tmp_path, text, is_stored=True), read(tmp_path, text)
    for study, stem in ((began_before, "cifar"), (new, "auto")):
        recipes = [point.recipe for point in study.grid]
        assert [recipe.backbone.stem for recipe in recipes] == [stem, "imagenet"]
        assert {recipe.encoder_backbone.stem for recipe in recipes} == {stem}
    assert new.values is not None
    assert read(tmp_path, yaml.safe_dump(new.values), is_stored=True) == new


def test_a_study_is_found_by_its_file_or_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "pilot"
    folder.mkdir()
    file = written(folder, "seeds: 2\nedition: 2", "study.yaml")
    assert find_study(folder) == find_study(file) == file
    (folder / "results.parquet").touch()
    assert read_study(file).name == "pilot" and default_folder(file) == default_folder(folder) == folder
    with pytest.raises(UserError, match=r"is not a study's folder: it has no study\.yaml"):
        find_study(tmp_path)
    with pytest.raises(UserError, match="no study file"):
        find_study(tmp_path / "nothing.yaml")
