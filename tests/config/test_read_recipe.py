from __future__ import annotations

import dataclasses
import importlib
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml

from emoreg.config.read_recipe import (
    SMOKE,
    all_settings,
    differences,
    flatten,
    read_recipe,
    recipe_yaml,
    smoke_settings,
)
from emoreg.config.recipe import EDITION, PretrainRecipe, Recipe, TrainRecipe
from emoreg.config.schema import BackboneSettings, EncoderSettings, RegulationSettings
from emoreg.errors import SettingError, UserError
from emoreg.models.backbones import build_backbone
from emoreg.models.features import num_features

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "recipes").rglob("*.yaml")
    if path.parent.name != "studies"  # see tests/study/test_read_study.py
)
OF_STAGE_2 = [name for name in SHIPPED if "experience" not in name]
REGULATED = [name for name in SHIPPED if name.endswith("-learn-e-reg.yaml")]


def shipped(name: str) -> PretrainRecipe | TrainRecipe:
    path = ROOT / name
    return read_recipe(PretrainRecipe, path) if "experience" in path.parts else read_recipe(TrainRecipe, path)


def without_download(backbone: BackboneSettings) -> BackboneSettings:
    assert not backbone.pretrained or timm.is_model_pretrained(backbone.name)
    return dataclasses.replace(backbone, pretrained=False)


def header_commands(name: str) -> list[list[str]]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [shlex.split(line.removeprefix("#")) for line in lines if line.startswith("#   emoreg ")]


def refusal(kind: type[Recipe], path: Path | None = None, overrides: Any = ()) -> str:
    with pytest.raises(UserError) as caught:
        read_recipe(kind, path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    return tmp_path / "a recipe.yaml"


def test_recipes_are_shipped() -> None:
    assert len(SHIPPED) >= 47 and len(REGULATED) >= 10
    for target in ("cifar10", "cifar100"):
        for network in ("resnet20", "resnet18", "resnet50", "vit-tiny", "vit-small"):
            for kind in ("", "-fast", "-learn-e-reg", *(["-finetune"] if network != "resnet20" else [])):
                assert f"recipes/{target}/{network}{kind}.yaml" in SHIPPED
        for kind in ("", "-learn-e-reg"):
            assert f"recipes/{target}/speednet-fast{kind}.yaml" in SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_parses_and_builds_its_backbone(name: str) -> None:
    recipe = shipped(name)
    size = recipe.stimuli.image_size if isinstance(recipe, PretrainRecipe) else recipe.target.image_size
    assert width(without_download(recipe.backbone), size) > 0


@cache
def width(backbone: BackboneSettings, image_size: int) -> int:
    importlib.import_module("torchvision")  # cannot be imported under another device with torch 2.8
    with torch.device("meta"):
        return num_features(build_backbone(backbone, image_size))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_starts_with_its_command_whose_recipes_exist(name: str) -> None:
    commands = header_commands(name)
    assert commands, "no command in the header"
    for _, command, file, *options in commands:
        assert (ROOT / file).is_file()
        assert command == ("pretrain" if file.startswith("recipes/experience/") else "train")
        kind = PretrainRecipe if command == "pretrain" else TrainRecipe
        read_recipe(kind, ROOT / file, options)
    assert commands[-1][2] == name


@pytest.mark.parametrize("name", REGULATED)
def test_a_regulated_recipe_differs_from_the_plain_one_only_in_encoder_and_regulation(name: str) -> None:
    regulated, plain = shipped(name), shipped(name.replace("-learn-e-reg", ""))
    assert isinstance(regulated, TrainRecipe) and isinstance(plain, TrainRecipe)
    assert plain.encoder == EncoderSettings() and plain.regulation == RegulationSettings()
    assert regulated.regulation.mode == "learned"
    changed = {line.split(":")[0] for line in differences(plain, regulated)}
    branches = {"loss.regulated", "loss.non_emotional", "loss.emotional"}  # loss weights of each response
    assert changed == {"encoder.experience", "regulation.mode"} | branches


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_writes_its_edition(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert f"edition: {EDITION}" in lines and shipped(name).edition == EDITION


@pytest.mark.parametrize("name", REGULATED)
def test_a_regulated_recipe_writes_out_the_default_losses_and_budget(name: str) -> None:
    recipe, default = shipped(name), TrainRecipe(regulation=RegulationSettings(mode="learned"))
    assert isinstance(recipe, TrainRecipe) and recipe.loss_weights == default.loss_weights
    written = (ROOT / name).read_text(encoding="utf-8")
    weights = recipe.loss_weights
    for line in ("  mix: probabilities", "  budget: matched", f"  regulated: {weights.regulated}"):
        assert f"{line}\n" in written
    assert f"  non_emotional: {weights.non_emotional}\n  emotional: {weights.emotional}\n" in written


@pytest.mark.parametrize("name", OF_STAGE_2)
def test_a_header_gives_the_measured_accuracy_with_seeds_and_device_or_says_not_measured(name: str) -> None:
    """Accuracies of others are marked as published, with their source; those of the first edition are in results/."""
    header = (ROOT / name).read_text(encoding="utf-8").partition("edition:")[0].replace("\n# ", " ")
    _, figure, rest = re.split(r"Expected (accuracy|CCC|mean average precision): ", header)
    recipe = shipped(name)
    assert isinstance(recipe, TrainRecipe)
    assert figure == {"multilabel": "mean average precision", "dimensions": "CCC"}.get(recipe.target.labels, "accuracy")
    own, _, published = rest.partition("Published")
    assert own.strip() == "not measured." or re.match(r"\d\d\.\d+ % .*\bn = \d+.*(GPU|CPU|H100|H200)", own)
    assert not re.search(r"\d\d\.\d\d %", published) or re.search(r"\(.*(\d{4}|OpenMixup|github\.com)", published)


@pytest.mark.parametrize("name", [name for name in OF_STAGE_2 if name.startswith("recipes/cifar10/")])
def test_recipes_for_cifar_100_differ_from_those_for_cifar_10_only_in_the_target(name: str) -> None:
    """There are two files so that a command needs no options; the weight decay of one was chosen on each target."""
    ten, hundred = shipped(name), shipped(name.replace("cifar10", "cifar100"))
    chosen = ["optimizer.weight_decay: 0.3 -> 1.0"] if name.endswith("resnet18-fast.yaml") else []
    assert differences(ten, hundred) == ["target.name: cifar10 -> cifar100", *chosen]


@pytest.mark.parametrize("name", OF_STAGE_2)
def test_a_recipe_states_the_batch_size_of_its_learning_rate_and_trains_on_all_images(name: str) -> None:
    recipe = shipped(name)
    assert isinstance(recipe, TrainRecipe) and recipe.target.validation == 0
    assert recipe.optimizer.lr_per_batch is not None
    assert recipe.optimizer.peak_lr(recipe.training.batch_size) == recipe.optimizer.lr


@pytest.mark.parametrize("name", [name for name in OF_STAGE_2 if name.endswith("-fast.yaml")])
def test_a_fast_recipe_is_short_and_uses_one_cycle(name: str) -> None:
    recipe = shipped(name)
    assert 10 <= recipe.training.epochs <= 30 and recipe.optimizer.schedule == "one_cycle"


@pytest.mark.parametrize("name", REGULATED)
def test_a_regulated_recipe_uses_the_experience_that_the_command_before_it_trains(name: str) -> None:
    (_, _, experience_file, *options), (_, command, *_) = header_commands(name)
    regulated, experience = shipped(name), read_recipe(PretrainRecipe, ROOT / experience_file, options)
    assert command == "train" and isinstance(regulated, TrainRecipe) and isinstance(experience, PretrainRecipe)
    assert regulated.encoder.experience == f"runs/experience-{Path(experience_file).stem}-seed0"
    assert experience.backbone == regulated.backbone  # encoder and backbone are of the same family
    assert experience.stimuli.image_size == regulated.target.image_size


@pytest.mark.parametrize("name", SHIPPED)
def test_a_recipe_survives_a_round_trip_through_yaml(name: str, tmp_path: Path) -> None:
    recipe = shipped(name)
    (tmp_path / "copy.yaml").write_text(recipe_yaml(recipe), encoding="utf-8")
    assert read_recipe(type(recipe), tmp_path / "copy.yaml") == recipe


def test_extreme_values_survive_a_round_trip_through_yaml(recipe_file: Path) -> None:
    recipe = read_recipe(
        TrainRecipe,
        None,
        {
            "target.root": "1e-3",  # text that looks like a number
            "optimizer.lr": 1e-300,
            "optimizer.ema": 0.9999999999999999,
            "regulation.mode": "random",
            "encoder.backbone.name": "null",
            "encoder.experience": "Größe: 猫 #1\ttab 'q' \"d\" " + "long " * 50,
        },
    )
    recipe_file.write_text(recipe_yaml(recipe), encoding="utf-8")
    assert read_recipe(TrainRecipe, recipe_file) == recipe


def test_without_a_file_or_with_an_empty_one_a_recipe_has_its_defaults(recipe_file: Path) -> None:
    recipe_file.write_text("# nothing but a remark\n")
    for kind in (PretrainRecipe, TrainRecipe):
        assert read_recipe(kind) == read_recipe(kind, recipe_file) == kind()


def test_overrides_as_a_mapping_or_as_options_are_applied_to_the_file(recipe_file: Path) -> None:
    recipe_file.write_text("training: {epochs: 3, batch_size: 7}\nseed: 5\n")
    ways: list[Any] = [
        {"training.epochs": 9, "optimizer.lr": 1e-3},
        {"training": {"epochs": 9}, "optimizer": {"lr": 1e-3}},
        ["--training.epochs=9", "--optimizer.lr=1e-3"],
        ["--training.epochs", "9", "--optimizer.lr", "1e-3"],
        ["--training.epochs", "2", "--optimizer.lr", "0.001", "--training.epochs", "9"],  # the last one counts
    ]
    for overrides in ways:
        recipe = read_recipe(TrainRecipe, recipe_file, overrides)
        assert (recipe.training.epochs, recipe.training.batch_size, recipe.seed) == (9, 7, 5)
        assert recipe.optimizer.lr == 0.001


def test_a_recipe_file_is_not_changed_by_reading_it_twice(recipe_file: Path) -> None:
    recipe_file.write_text("training: {epochs: 3}\n")
    overrides = {"training": {"batch_size": 5}}
    assert read_recipe(TrainRecipe, recipe_file, overrides) == read_recipe(TrainRecipe, recipe_file, overrides)
    assert overrides == {"training": {"batch_size": 5}}


def test_null_removes_a_setting(recipe_file: Path) -> None:
    recipe_file.write_text(
        "regulation: {mode: learned}\nencoder: {experience: runs/x, backbone: {name: resnet8}}\n"
        "target: {limit: 5, root: ~}\noptimizer: {clip_norm: null}\n"
    )
    assert read_recipe(TrainRecipe, recipe_file).target.root is None
    for overrides in (
        {"encoder.experience": None, "encoder.backbone": None, "target.limit": None},
        ["--encoder.experience", "null", "--encoder.backbone=null", "--target.limit=null"],
    ):
        recipe = read_recipe(TrainRecipe, recipe_file, overrides)
        assert recipe.encoder == EncoderSettings() and recipe.target.limit is None


@pytest.mark.parametrize("backbone", ["null", "{name: resnet20, stem: imagenet}"])
def test_a_setting_of_the_encoders_backbone_can_be_overridden_with_or_without_a_backbone(
    backbone: str, recipe_file: Path
) -> None:
    recipe_file.write_text(f"regulation: {{mode: learned}}\nencoder: {{backbone: {backbone}}}\n")
    stem: Any = "auto" if backbone == "null" else "imagenet"
    for overrides in ({"encoder.backbone.name": "resnet8"}, ["--encoder.backbone.name", "resnet8"]):
        recipe = read_recipe(TrainRecipe, recipe_file, overrides)
        assert recipe.encoder.backbone == BackboneSettings("resnet8", stem=stem)


@pytest.mark.parametrize(
    "text", ["my photos/a b", "photos: 2024", "[1, 2]", "123", "'quoted'", "写真", "x" * 100 + " y", "-x", "a=b"]
)
def test_a_path_is_read_verbatim(text: str, recipe_file: Path) -> None:
    recipe_file.write_text(yaml.safe_dump({"target": {"root": text}}, allow_unicode=True), encoding="utf-8")
    for recipe in (
        read_recipe(TrainRecipe, recipe_file),
        read_recipe(TrainRecipe, None, {"target.root": text}),
        read_recipe(TrainRecipe, None, [f"--target.root={text}"]),
    ):
        assert recipe.target.root == text


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "0.001", ".001", "1.0e-3", "'1e-3'"])
def test_a_number_may_be_written_with_or_without_its_dot(text: str, recipe_file: Path) -> None:
    recipe_file.write_text(f"optimizer: {{lr: {text}}}\n")
    assert read_recipe(TrainRecipe, recipe_file).optimizer.lr == 0.001
    recipe_file.write_text("optimizer: {lr: 1}\n")
    assert type(read_recipe(TrainRecipe, recipe_file).optimizer.lr) is float


WRITTEN = """10 010 08 1:30 1_000 0x10 0b11 0o17 1e3 1e-3 1.5 01.5 1_0.5 0,1 .5 +5 -1 .inf inf .nan nan on No y true
null Null NULL ~ 2024-01-02 ３ '3' [a,b] [010,08] [2024-01-02,b] [no,yes] [1,2] a [a,null] 10% []"""
KEYS = ("seed", "target.limit", "optimizer.lr", "augment.flip", "target.classes")


def readings(key: str, text: str, file: Path) -> list[object]:
    """Return the value of a text for a setting, or the error, from a file and from the command line."""
    section, _, name = key.rpartition(".")
    file.write_text(f"{section}:\n  {name}: {text}\n" if section else f"{name}: {text}\n", encoding="utf-8")
    found: list[object] = []
    for path, options in ((file, []), (None, [f"--{key}", text])):
        try:
            recipe = read_recipe(TrainRecipe, path, options)
            found.append(getattr(getattr(recipe, section) if section else recipe, name))
        except SettingError as error:
            found.append(f"{error.key}: {error.reason}")
    return found


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("text", [*WRITTEN.split(), "1 000", "3 # three"])
def test_a_file_and_the_command_line_read_the_same_values_and_refuse_the_same(
    key: str, text: str, recipe_file: Path
) -> None:
    file, command_line = readings(key, text, recipe_file)
    assert file == command_line


@pytest.mark.parametrize("text", WRITTEN.replace("'3'", "").split())
def test_text_in_a_file_is_read_as_on_the_command_line_or_must_be_quoted(text: str, recipe_file: Path) -> None:
    file, command_line = readings("target.root", text, recipe_file)
    assert file == command_line or "target.root: must be text, not " in str(file)


@pytest.mark.parametrize(
    ("word", "value"), [("yes", True), ("on", True), ("true", True), ("no", False), ("Off", False)]
)
def test_yes_and_no_are_yamls_booleans(word: str, value: bool, recipe_file: Path) -> None:
    recipe_file.write_text(f"augment: {{flip: {word}}}\n")
    assert read_recipe(TrainRecipe, recipe_file).augment.flip is value
    assert read_recipe(TrainRecipe, None, [f"--augment.flip={word}"]).augment.flip is value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training:\n  epoch: 3", r":2: training.epoch: unknown setting \(did you mean 'training.epochs'\?\)"),
        ("trainin: {epochs: 3}", r":1: trainin: unknown setting \(did you mean 'training'\?\)"),
        ("seed: 1\nlr: 0.1", r":2: lr: unknown setting \(did you mean 'optimizer.lr'\?\)"),
        ("training: {name: x}", r":1: training.name: unknown setting \(did you mean 'target.name' or .*"),
        ("loss: {zzz: 1}", r":1: loss.zzz: unknown setting \(known: budget, .*, non_emotional, regulated\)"),
        ("encoder: {backbone: {nam: x}}", r":1: encoder.backbone.nam: unknown setting .*'encoder.backbone.name'.*"),
        ("stimuli: {count: 50}", r":1: stimuli: unknown setting \(it belongs to 'emoreg pretrain'\)"),
        ("training.epochs: 3", r":1: training.epochs: write sections as mappings, not with dots"),
        ("1: 2", r":1: keys must be text, not 1"),
        ("? [a, b]\n: 2", r":1: keys must be text, not a list or mapping"),
        ("<<: {seed: 1}", r":1: merge keys \(<<\) are not supported; write the settings out"),
        ("seed: 1\ntraining: {epochs: 1}\nseed: 2", r":3: seed: appears twice \(first on line 1\)"),
        ("training:\n  epochs: 1\n  epochs: 2", r":3: training.epochs: appears twice \(first on line 2\)"),
        ("training:\n  epochs: three", r":2: training.epochs: must be a whole number, not 'three'"),
        ("training: {epochs: 1.0}", r":1: training.epochs: must be a whole number, not 1.0"),
        ("training: {epochs: '3'}", r":1: training.epochs: must be a whole number, not '3'; write it without quotes"),
        ("training: {epochs: true}", r":1: training.epochs: must be a whole number, not True"),
        ("training: {epochs: null}", r":1: training.epochs: must be a whole number, not null"),
        ("training: {epochs:}", r":1: training.epochs: must be a whole number, not null"),
        ("seed: ~", r":1: seed: must be a whole number, not null"),
        ("optimizer: {lr: fast}", r":1: optimizer.lr: must be a number, not 'fast'"),
        ("optimizer: {lr: true}", r":1: optimizer.lr: must be a number, not True"),
        ("optimizer: {lr: [0.1]}", r":1: optimizer.lr: must be a number, not \[0.1\]"),
        ("optimizer: {lr: 0,1}", r":1: optimizer: keys must be text, not 1"),
        (f"optimizer: {{lr: 1{'0' * 400}}}", r":1: optimizer.lr: must be positive and finite, not inf"),
        ("augment: {flip: 1}", r":1: augment.flip: must be true or false, not 1"),
        ("augment: {flip: maybe}", r":1: augment.flip: must be true or false, not 'maybe'"),
        ("target: {root: 2024}", r":1: target.root: must be text, not 2024; write it in quotes, as '2024'"),
        ("target: {root: no}", r":1: target.root: must be text, not False; write it in quotes, as 'no'"),
        ("target: {root: ' '}", r":1: target.root: must be text, not empty; leave it out for its default"),
        ("target: {classes: [1, 2]}", r":1: target.classes\[0\]: must be text, not 1; write it in quotes, as '1'"),
        ("target: {classes: cat}", r":1: target.classes: must be a list, not 'cat'; write \['cat'\]"),
        ("seed: 2024-02-03", r":1: seed: must be a whole number, not '2024-02-03'; use only the digits 0 to 9.*"),
        ("optimizer:\n  lr: 0,1", r":2: optimizer.lr: must be a number, not '0,1'; use .* with a decimal point.*"),
        ("target: {limit: none}", r":1: target.limit: must be a whole number, not 'none'"),
        (
            "regulation: {mode: learnd}",
            r":1: regulation.mode: must be one of none, fixed, .*, not 'learnd' \(did you mean 'learned'\?\)",
        ),
        ("regulation: {mode: null}", r":1: regulation.mode: must be one of none, fixed, .*, not null"),
        (
            "encoder:\n  backbone:\n    stem: x",
            r":3: encoder.backbone.stem: must be one of auto, cifar, imagenet, not 'x'",
        ),
        ("encoder: {backbone: {patch_size: x}}", r":1: encoder.backbone.patch_size: must be a whole number, not 'x'"),
        ("encoder: {backbone: resnet8}", r":1: encoder.backbone: must be a mapping of keys to values, not 'resnet8'"),
        ("training: [epochs, 3]", r":1: training: must be a mapping of keys to values, not \['epochs', 3\]"),
        ("training: 3", r":1: training: must be a mapping of keys to values, not 3"),
        ("training:", r":1: training: must be a mapping of keys to values, not null; leave it out for the defaults"),
        ("encoder: null", r":1: encoder: must be a mapping of keys to values, not null; leave it out for the defaults"),
        ("- seed: 1", r":1: must be a mapping of keys to values, not \[\{'seed': 1\}\]"),
        ("resnet20", r":1: must be a mapping of keys to values, not 'resnet20'; write 'key: value', .*"),
        ("!!set {seed}", r":1: tags \(!\) are not supported; .*"),
        ("training:\n  epochs: 0", r":2: training.epochs: must be at least 1, not 0"),
        ("regulation: {mode: fixed, lam: 1.5}", r":1: regulation.lam: λ must lie in \[0, 1\], not 1.5"),
        (
            "backbone: {drop_path: 0.1}\nencoder:\n  backbone: {drop_path: 2}",
            r":3: encoder.backbone.drop_path: must lie in \[0, 1\), not 2.0",
        ),
        ("encoder:\n  experience: runs/x", r":2: encoder.experience: must be null with regulation.mode none.*"),
        ("seed: [1", r":1: not valid YAML: .*"),
        ("training:\n\tepochs: 3", r":2: not valid YAML: .*"),
        ("seed: 1\n---\nseed: 2", r":2: not valid YAML: .*"),
        ("seed: \0", r":1: a character that YAML does not allow, U\+0000; .*"),
        ("target: {root: *nobody}", r":1: anchors and aliases .* are not supported; .*"),
        ("training: &a {epochs: *a}", r":1: anchors and aliases .* are not supported; .*"),
        ("seed: !!int three", r":1: tags \(!\) are not supported; .*"),
        (f"seed: {'[' * 40}", r":1: nested more than 32 deep"),
        ("seed: 1\ntarget: {root: 'a\0b'}", r":2: a character that YAML does not allow, U\+0000; .*"),
        ('target: {root: "a\\0b"}', r":1: target.root: must be text without null bytes or .*, not 'a\\x00b'"),
        ('target: {root: "\\ud800"}', r":1: target.root: must be text without null bytes or .*, not '\\ud800'"),
        (f"seed: {2**63}", r":1: seed: must be at most 9223372036854775807, not 9223372036854775808"),
    ],
)
def test_an_error_in_a_file_is_one_line_with_file_line_and_key(text: str, message: str, recipe_file: Path) -> None:
    recipe_file.write_text(text)
    assert re.fullmatch(re.escape(str(recipe_file)) + message, refusal(TrainRecipe, recipe_file))


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "inf", "nan"])
@pytest.mark.parametrize(
    "key",
    [
        "optimizer.lr", "optimizer.momentum", "optimizer.weight_decay", "optimizer.warmup", "optimizer.clip_norm",
        "optimizer.ema", "regulation.lam", "regulation.lr_factor", "encoder.lr_factor", "loss.label_smoothing",
        "loss.emotional", "loss.non_emotional", "target.validation", "backbone.drop_path", "training.memory_limit_gib",
    ],
)  # fmt: skip
def test_no_number_may_be_infinite_or_nan(key: str, value: str, recipe_file: Path) -> None:
    section, name = key.split(".")
    recipe_file.write_text(f"regulation: {{mode: learned}}\n{section}: {{{name}: {value}}}\n".split("\n", 1)[1])
    if section != "regulation":
        recipe_file.write_text(f"regulation: {{mode: learned}}\n{recipe_file.read_text()}")
    assert re.match(rf".*recipe\.yaml:\d: {key}: ", refusal(TrainRecipe, recipe_file))


@pytest.mark.parametrize(
    "text",
    [
        "seed: !!python/object/apply:os.system ['touch {}']",
        "target: {{root: !!python/object/apply:os.system ['touch {}']}}",
        "!!python/object/apply:os.system ['touch {}']",
        "training: !!python/object/new:os.system ['touch {}']",
    ],
)
def test_yaml_that_would_run_code_is_refused_and_never_run(text: str, recipe_file: Path, tmp_path: Path) -> None:
    recipe_file.write_text(text.format(tmp_path / "ran"))
    assert str(recipe_file) in refusal(TrainRecipe, recipe_file)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "nothere.yaml: No such file" in refusal(TrainRecipe, tmp_path / "nothere.yaml")
    assert str(tmp_path) in refusal(TrainRecipe, tmp_path)
    (tmp_path / "latin.yaml").write_bytes("target: {root: Größe}".encode("latin-1"))
    assert "latin.yaml" in refusal(TrainRecipe, tmp_path / "latin.yaml")


def test_any_script_and_a_byte_order_mark_are_read(recipe_file: Path) -> None:
    recipe_file.write_text("# λ\ntarget: {root: données/猫}\n", encoding="utf-8-sig")
    assert read_recipe(TrainRecipe, recipe_file).target.root == "données/猫"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"training.epoch": 3}, r"training.epoch: unknown setting \(did you mean 'training.epochs'\?\)"),
        ({"epochs": 3}, r"epochs: unknown setting \(did you mean 'training.epochs'\?\)"),
        ({"stimuli.count": 30}, r"stimuli.count: unknown setting \(it belongs to 'emoreg pretrain'\)"),
        ({"training.epochs": "3"}, "training.epochs: must be a whole number, not '3'; write it without quotes"),
        ({"training": 3}, "training: must be a mapping of keys to values, not 3"),
        ({"seed": None}, "seed: must be a whole number, not null"),
        ({"regulation.lam": 2}, r"regulation.lam: λ must lie in \[0, 1\], not 2.0"),
        (["--training.epoch", "3"], r"training.epoch: unknown setting \(did you mean 'training.epochs'\?\)"),
        (["--trainin.epochs=3"], r"trainin.epochs: unknown setting \(did you mean 'training.epochs'\?\)"),
        (["--encoder.backbone.nam", "x"], r"encoder.backbone.nam: unknown setting .*'encoder.backbone.name'.*"),
        (["--training", "{foo: 1}"], "training.foo: unknown setting .*"),
        (["--config", "x.yaml"], "config: unknown setting .*"),
        (["training.epochs=3"], "unexpected argument 'training.epochs=3'"),
        (["--training.epochs"], "training.epochs: needs a value: --training.epochs VALUE"),
        (["--training.epochs", "1.0"], "training.epochs: must be a whole number, not 1.0"),
        (["--training.epochs", "null"], "training.epochs: must be a whole number, not null"),
        (["--training", "{epochs: x}"], "training.epochs: must be a whole number, not 'x'"),
        (["--training", "nothere.yaml"], "training: must be a mapping of keys to values, not 'nothere.yaml'"),
        (["--encoder.backbone", "resnet8"], "encoder.backbone: must be a mapping of keys to values, not 'resnet8'"),
        (["--encoder.backbone.stem", "x"], "encoder.backbone.stem: must be one of auto, cifar, imagenet, not 'x'"),
        (["--encoder.backbone.patch_size", "x"], "encoder.backbone.patch_size: must be a whole number, not 'x'"),
        (["--target.limit", "none"], "target.limit: must be a whole number, not 'none'"),
        (["--augment.flip", "maybe"], "augment.flip: must be true or false, not 'maybe'"),
        (
            ["--regulation.mode", "learnd"],
            r"regulation.mode: must be one of none, fixed, .*, not 'learnd' \(did you mean 'learned'\?\)",
        ),
        (["--training.epochs", "-3"], "training.epochs: must be at least 1, not -3"),
        (["--optimizer.lr", "-0.1"], "optimizer.lr: must be positive and finite, not -0.1"),
        (["--optimizer.lr=-1e-3"], "optimizer.lr: must be positive and finite, not -0.001"),
        (["--optimizer.lr", ".nan"], "optimizer.lr: must be positive and finite, not nan"),
    ],
)
def test_an_error_in_an_override_is_one_line_with_its_key(overrides: Any, message: str, recipe_file: Path) -> None:
    recipe_file.write_text("training: {epochs: 2}\n")
    assert re.fullmatch(message, refusal(TrainRecipe, recipe_file, overrides))


def test_smoke_shrinks_settings_that_exist() -> None:
    for kind, overrides in SMOKE.items():
        assert {key.replace("also[].", "stimuli.") for key in overrides} <= set(all_settings(kind))
        assert read_recipe(kind, None, overrides).training.epochs == 1
        first = smoke_settings(kind, edition=1)  # which has no test_limit
        assert read_recipe(kind, None, {**first, "edition": 1}).training.epochs == 1


def test_differences_name_each_setting_with_both_values() -> None:
    old = TrainRecipe()
    new = read_recipe(TrainRecipe, None, {"training.epochs": 10, "regulation.mode": "fixed", "encoder.backbone": {}})
    assert differences(old, old) == []
    changed = differences(old, read_recipe(TrainRecipe, None, {"training.epochs": 10, "seed": 2}))
    assert changed == ["training.epochs: 100 -> 10", "seed: 0 -> 2"]
    assert new.encoder.backbone is None  # an empty mapping of overrides sets nothing


def test_all_settings_are_exactly_the_leaves() -> None:
    assert {key for key, _ in flatten(dataclasses.asdict(TrainRecipe()))} - {"encoder.backbone"} <= set(
        all_settings(TrainRecipe)
    )
    assert "training" not in all_settings(TrainRecipe) and "encoder.backbone.name" in all_settings(TrainRecipe)


def test_a_section_that_is_given_in_part_keeps_the_recipes_own_defaults(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("optimizer:\n  lr: 0.01\n")
    for recipe in (
        read_recipe(PretrainRecipe, tmp_path / "r.yaml"),
        read_recipe(PretrainRecipe, overrides=["--optimizer.lr", "0.01"]),
        read_recipe(PretrainRecipe, overrides={"optimizer.lr": 0.01}),
    ):
        assert recipe.optimizer == dataclasses.replace(PretrainRecipe().optimizer, lr=0.01)
        assert recipe.optimizer.name == "adamw"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("data/cats", "./data//cats/"),
        ("data/cats", "data\\cats"),
        ("data/cats", "{here}/data/cats"),
        ("data/cats", "link"),
    ],
)
def test_two_paths_to_the_same_place_do_not_differ(
    before: str, after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "cats").mkdir(parents=True)
    (tmp_path / "link").symlink_to("data/cats")
    one, two = (
        read_recipe(TrainRecipe, None, {"target.name": "folder", "target.root": root.format(here=tmp_path)})
        for root in (before, after)
    )
    assert differences(one, two) == []
    other = read_recipe(TrainRecipe, None, {"target.name": "folder", "target.root": "data/dogs"})
    assert differences(one, other) == ["target.root: data/cats -> data/dogs"]
    assert differences(one, other, ignored=["target.root"]) == []
