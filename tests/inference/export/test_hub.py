from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from huggingface_hub import HfApi
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from emoreg.config.schema import BackboneSettings, EncoderSettings, Granularity, Mixing, Mode, RegulationSettings
from emoreg.data.images.augment import normalise
from emoreg.data.images.decode import as_rgb, decode
from emoreg.data.images.files import File
from emoreg.inference.export.hub import RegulatedModel
from emoreg.models.backbones import build_backbone
from emoreg.models.regulation import RegulatedClassifier
from inference.combinations import COMBINATIONS, untrained
from odd_images import write_odd_images
from refusing import refusal


@pytest.mark.parametrize(("mode", "granularity", "mix", "lam"), COMBINATIONS)
def test_a_folder_gives_the_same_responses(
    mode: Mode, granularity: Granularity, mix: Mixing, lam: float, tmp_path: Path
) -> None:
    loaded = untrained(mode, granularity, mix, lam)
    RegulatedModel.of(loaded).save_pretrained(tmp_path)
    model = RegulatedModel.from_pretrained(tmp_path)
    assert not model.training and model.classes == loaded.classes and model.image_size == 8
    images = torch.randn(3, 3, 8, 8)
    for again, before in zip(model.respond(images), loaded.model.respond(images), strict=True):
        assert (again is None) == (before is None)
        assert again is None or before is None or torch.allclose(again, before, atol=1e-5)
    if model.encoder is not None:
        assert not any(parameter.requires_grad for parameter in model.encoder.parameters())  # still frozen


def test_a_fine_tuned_encoder_is_one_network_of_its_own_architecture_and_width(tmp_path: Path) -> None:
    wide = BackboneSettings("resnet14", zero_gamma=True, width=6)
    loaded = untrained("none", "scalar", "logits", 0.5)
    recipe = replace(
        loaded.recipe,
        regulation=RegulationSettings("transfer"),
        encoder=EncoderSettings(experience="runs/stage1", backbone=wide),
    )
    model = RegulatedClassifier(build_backbone(wide), None, 3, mode="none").eval()
    loaded = replace(loaded, recipe=recipe, model=model)
    RegulatedModel.of(loaded).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["regulation"]["mode"] == "none" and config["encoder"] is None
    assert config["backbone"]["width"] == 6 and config["backbone"]["zero_gamma"] is None
    images = torch.randn(2, 3, 8, 8)
    assert torch.allclose(RegulatedModel.from_pretrained(tmp_path)(images), model(images), atol=1e-6)


def test_the_config_is_complete(tmp_path: Path) -> None:
    RegulatedModel.of(untrained("learned", "per_class", "logits", 0.3)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["regulation"] == {"mode": "learned", "granularity": "per_class", "mix": "logits", "lam": 0.3}
    assert (config["backbone"]["name"], config["encoder"]["name"]) == ("resnet8", "resnet14")
    assert config["image_size"] == 8 and len(config["mean"]) == len(config["std"]) == 3
    assert config["classes"][0] == "cat"


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    RegulatedModel.of(untrained("learned", "scalar", "logits", 0.3)).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())

    def edited(**changes: Any) -> Callable[[], Any]:
        path.write_text(json.dumps(config | changes))
        return lambda: RegulatedModel.from_pretrained(tmp_path)

    assert "mode: must be one of" in refusal(edited(regulation={"mode": "calm"}))
    assert "no architecture 'resnet9'" in refusal(edited(backbone={"name": "resnet9"}))
    assert "size mismatch" in refusal(edited(classes=["cat", "dog"]))
    # The mixin alone would ignore them silently.
    assert "Unexpected key" in refusal(edited(encoder=None, regulation={"mode": "none"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantum": True}, "unknown key 'quantum'; a later emoreg may have written it"),
        ({"classes": "cat"}, "classes must be a list of names"),
        ({"classes": []}, "classes must be a list of names"),
        ({"classes": ["cat", 2, "dog"]}, "classes must be names"),
        ({"classes": ["cat", "a\x1b[2J", "dog"]}, "without control characters"),
        ({"image_size": "8"}, "image_size must be a whole number"),
        ({"image_size": 10**12}, "must be 8 to 8,192 pixels"),
        ({"mean": [0.5, 0.5]}, "mean must be three numbers"),
        ({"std": [0.5, 0.5, 0]}, "std must be above 0"),
        ({"std": [0.5, 0.5, float("nan")]}, "std must be three numbers"),
        ({"backbone": None}, "does not describe a classifier"),
        ({"backbone": [1, 2]}, "does not describe a classifier"),
        ({"backbone": {"name": "resnet8", "shape": 3}}, "does not describe a classifier"),
        ({"regulation": {"lam": 7}}, "regulation.lam: λ must lie in [0, 1], not 7.0"),
        ({"regulation": "learned"}, "does not describe a classifier"),
        ({"temperature": 0}, "temperature: must be from 0.01 to 100, not 0"),
        ({"temperature": float("nan")}, "temperature: must be from 0.01 to 100, not nan"),
        ({"temperature": "warm"}, "temperature: must be a number, not 'warm'"),
        ({"temperature": 2, "task": "multilabel"}, "temperature must be null for anything but a classification"),
    ],
)
def test_a_config_that_does_not_describe_a_classifier_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RegulatedModel.of(untrained("learned", "scalar", "logits", 0.3)).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    line = refusal(lambda: RegulatedModel.from_pretrained(tmp_path))
    assert message in line and str(tmp_path) in line and len(line) < 1000
    assert "leave it out" not in line  # config.json is complete, unlike a recipe


class RunsCode:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.path), "w")


def damages(folder: Path) -> dict[str, Callable[[], object]]:
    """Ways to damage an exported folder, by name."""
    weights, config = folder / "model.safetensors", folder / "config.json"
    content = weights.read_bytes()
    tensors, name = safetensors.torch.load(content), "head.weight"  # not the logit of λ, which may be infinite
    return {
        "no config.json": config.unlink,
        "no weights": weights.unlink,
        "a config.json that is none": lambda: config.write_text("{half"),
        "a config.json that is a list": lambda: config.write_text("[1]"),
        "a config.json nested deep": lambda: config.write_text("[" * 100_000),
        "a config.json of bytes": lambda: config.write_bytes(b"\xff\xfe"),
        "empty weights": lambda: weights.write_bytes(b""),
        "weights cut off": lambda: weights.write_bytes(content[: len(content) // 2]),
        "weights that are code": lambda: torch.save(RunsCode(folder / "trace"), weights),
        "a weight of another shape": lambda: save_file(tensors | {name: torch.ones(3)}, weights),
        "a weight that is NaN": lambda: save_file(tensors | {name: tensors[name] * float("nan")}, weights),
        "an infinite weight": lambda: save_file(tensors | {name: tensors[name] + float("inf")}, weights),
        "a weight that is missing": lambda: save_file({key: tensors[key] for key in tensors if key != name}, weights),
        "weights that are a folder": lambda: [step() for step in (weights.unlink, weights.mkdir)],
    }


@pytest.mark.parametrize(
    "damage",
    [
        "no config.json", "no weights", "a config.json that is none", "a config.json that is a list",
        "a config.json nested deep", "a config.json of bytes", "empty weights", "weights cut off",
        "weights that are code",
        "a weight of another shape", "a weight that is NaN", "an infinite weight", "a weight that is missing",
        "weights that are a folder",
    ],
)  # fmt: skip
def test_a_damaged_folder_is_refused_in_one_line_with_its_path(damage: str, tmp_path: Path) -> None:
    RegulatedModel.of(untrained("learned", "scalar", "logits", 0.3)).save_pretrained(tmp_path)
    damages(tmp_path)[damage]()
    line = refusal(lambda: RegulatedModel.from_pretrained(tmp_path))
    assert str(tmp_path) in line and len(line) < 1000 and not (tmp_path / "trace").exists()


def test_pickled_weights_from_the_hub_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import hub_mixin
    from huggingface_hub.errors import EntryNotFoundError

    RegulatedModel.of(untrained("learned", "scalar", "logits", 0.3)).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(RunsCode(tmp_path / "trace"), tmp_path / "pytorch_model.bin")

    def download(*, filename: str, **_: Any) -> str:
        if not (tmp_path / filename).exists():
            raise EntryNotFoundError(filename)
        return str(tmp_path / filename)

    monkeypatch.setattr(hub_mixin, "hf_hub_download", download)
    line = refusal(lambda: RegulatedModel.from_pretrained("me/mine"))
    assert "me/mine: there is no model.safetensors" in line and not (tmp_path / "trace").exists()


def test_nothing_is_downloaded_whatever_the_config_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RegulatedModel.of(untrained("none", "scalar", "logits", 0.5)).save_pretrained(tmp_path)
    pretrained: list[bool] = []

    def build(settings: BackboneSettings, size: int) -> nn.Module:
        pretrained.append(settings.pretrained)
        return build_backbone(settings, size)

    monkeypatch.setattr("emoreg.inference.export.hub.build_backbone", build)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"backbone": {"name": "resnet8", "pretrained": True}}))
    RegulatedModel.from_pretrained(tmp_path)
    assert pretrained == [False]


def test_images_are_prepared_as_for_training(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    model = RegulatedModel.of(untrained("none", "scalar", "logits", 0.5))
    path = write_image(tmp_path / "photo.jpg", size=(40, 30))
    pixels = torch.from_numpy(decode(File("photo.jpg", tmp_path), 8).copy()).permute(2, 0, 1)[None]
    prepared = model.prepare([path, str(path)])
    assert prepared.shape == (2, 3, 8, 8)
    assert torch.allclose(prepared[:1], normalise(pixels), atol=1e-5)


def test_an_image_gives_the_same_values_in_every_form(tmp_path: Path) -> None:
    model = RegulatedModel.of(untrained("none", "scalar", "logits", 0.5))
    for path in write_odd_images(tmp_path):
        expected = model.prepare(path)
        with Image.open(path) as image, path.open("rb") as file:
            size, frame = image.size, image.tell()
            for given in (image, path.read_bytes(), file, file, image):
                assert torch.equal(model.prepare([given]), expected), f"{path.name}, {type(given).__name__}"
            assert (image.size, image.tell()) == (size, frame)  # unchanged for the caller
            image.load()
            if path.suffix != ".jpg":  # a loaded JPEG can no longer be decoded at a fraction
                assert torch.equal(model.prepare([image]), expected), f"{path.name}, loaded"
                rgb = as_rgb(image)
                assert torch.equal(model.prepare([rgb, np.asarray(rgb)]), expected.repeat(2, 1, 1, 1)), path.name
            else:
                assert (model.prepare([image]) - expected).abs().mean() < 0.1, path.name


def test_a_frame_that_the_caller_has_chosen_is_kept(tmp_path: Path) -> None:
    model = RegulatedModel.of(untrained("none", "scalar", "logits", 0.5))
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    red.save(tmp_path / "moving.gif", save_all=True, append_images=[blue])
    with Image.open(tmp_path / "moving.gif") as moving:
        moving.seek(1)
        assert torch.equal(model.prepare(moving), model.prepare(blue)) and moving.tell() == 1


def test_a_model_is_in_evaluation_mode_even_if_the_mixin_leaves_it_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RegulatedModel.of(untrained("learned", "scalar", "logits", 0.3)).save_pretrained(tmp_path)
    inherited = RegulatedModel._from_pretrained

    def in_training(**options: Any) -> RegulatedModel:  # as huggingface_hub 0.36 to 1.8 leave it
        model = inherited(**options)
        model.train()
        return model

    monkeypatch.setattr(RegulatedModel, "_from_pretrained", in_training)
    model = RegulatedModel.from_pretrained(tmp_path)
    assert not any(module.training for module in model.modules())


def test_the_card_of_a_folder_is_pushed_with_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = RegulatedModel.of(untrained("none", "scalar", "logits", 0.5))
    model.card = "---\nlicense: apache-2.0\n---\n# Mine\n"
    model.save_pretrained(tmp_path / "folder")
    pushed: dict[str, str] = {}

    def upload_folder(self: HfApi, *, folder_path: Path, **_: Any) -> str:
        pushed.update({path.name: path.read_text("utf-8", "replace") for path in Path(folder_path).iterdir()})
        return "done"

    created = type("Created", (), {"repo_id": "me/mine"})
    monkeypatch.setattr(HfApi, "create_repo", lambda *_, **__: created)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    assert RegulatedModel.from_pretrained(tmp_path / "folder").push_to_hub("me/mine") == "done"
    assert set(pushed) == {"README.md", "config.json", "model.safetensors"}
    assert pushed["README.md"] == model.card
