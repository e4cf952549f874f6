from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import BackboneSettings, EncoderSettings
from emoreg.errors import SettingError
from emoreg.models.backbones import build_backbone
from emoreg.models.weight_source import with_sources


def a_model(folder: Path, architecture: str = "test_vit", file: str = "model.safetensors", **args: Any) -> Any:
    """Write a model as timm does, and return it."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=0, **args)
    if file.endswith(".bin"):
        torch.save(model.state_dict(), folder / file)
    else:
        save_file(model.state_dict(), folder / file)
    about = {"architecture": architecture, "model_args": args, "pretrained_cfg": {"num_classes": 0}}
    (folder / "config.json").write_text(json.dumps(about), encoding="utf-8")
    return model


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_of_timms_is_a_backbone(file: str, tmp_path: Path) -> None:
    model = a_model(tmp_path / "m", file=file, img_size=32, patch_size=8, embed_dim=48).eval()
    built = build_backbone(BackboneSettings(f"local-dir:{tmp_path / 'm'}", pretrained=True), 32).eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(built(images), model(images))


def test_timm_loads_the_same_weights_from_the_folder(tmp_path: Path) -> None:
    a_model(tmp_path / "m", "test_resnet")
    name = f"local-dir:{tmp_path / 'm'}"
    images = torch.randn(2, 3, 64, 64)
    ours = build_backbone(BackboneSettings(name, pretrained=True, stem="imagenet"), 64).eval()
    theirs = timm.create_model(name, pretrained=True, num_classes=0).eval()
    assert torch.equal(ours(images), theirs(images))


def test_a_recipe_says_which_network_it_was(tmp_path: Path) -> None:
    a_model(tmp_path / "m", img_size=32, patch_size=8)
    source = BackboneSettings(f"local-dir:{tmp_path / 'm'}", pretrained=True)
    recipe = with_sources(TrainRecipe(backbone=source, encoder=EncoderSettings(backbone=source)))
    for settings in (recipe.backbone, recipe.encoder.backbone):
        assert settings is not None
        assert (settings.name, settings.patch_size, settings.pretrained) == ("test_vit", 8, False)
        assert settings.weights == str(tmp_path / "m" / "model.safetensors")


def test_a_model_of_the_hub_is_read_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def snapshot_download(repository: str, **options: Any) -> str:
        asked.append((repository, options["revision"]))
        return str(tmp_path / "m")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    a_model(tmp_path / "m", img_size=32)
    build_backbone(BackboneSettings("hf-hub:somebody/model@v1", pretrained=True), 32)
    assert asked == [("somebody/model", "v1")]


def test_without_a_network_the_error_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(*_: Any, **__: Any) -> str:
        raise ConnectionError("Network is unreachable")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(SettingError, match=r"backbone\.name: hf-hub:a/b cannot be loaded \(Network is unreachable\)"):
        build_backbone(BackboneSettings("hf-hub:a/b", pretrained=True))


@pytest.mark.parametrize("name", ["hf-hub:", "hf-hub:resnet18", "hf-hub:a/b/c", "local-dir:", "local-dir:nowhere"])
def test_an_invalid_place_is_refused(name: str) -> None:
    with pytest.raises(SettingError, match=r"backbone\.name: .*(not of the form|no folder)"):
        build_backbone(BackboneSettings(name, pretrained=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no config.json"),
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "does not name a timm architecture"),
        ('{"architecture": 3}', "does not name a timm architecture"),
        ('{"architecture": "test_vit", "model_args": 3}', "must be an object"),
        ('{"architecture": "test_vit", "model_args": {"depth": 3}}', "is built with depth: 3, which recipes lack"),
        ('{"architecture": "test_vit"}', "has no weights"),
    ],
)
def test_a_description_that_no_recipe_can_have_is_refused(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(SettingError, match=f"backbone.name: .*{message}"):
        build_backbone(BackboneSettings(f"local-dir:{tmp_path}", pretrained=True))


def test_an_architecture_that_timm_lacks_is_refused(tmp_path: Path) -> None:
    a_model(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text('{"architecture": "test_vitt"}', encoding="utf-8")
    with pytest.raises(SettingError, match=r"backbone\.name: .*test_vitt.*test_vit"):
        build_backbone(BackboneSettings(f"local-dir:{tmp_path / 'm'}", pretrained=True))


def test_weights_must_be_requested(tmp_path: Path) -> None:
    a_model(tmp_path / "m")
    with pytest.raises(SettingError, match=r"backbone\.pretrained: must be true .*called test_vit"):
        build_backbone(BackboneSettings(f"local-dir:{tmp_path / 'm'}"))
