from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi
from PIL import Image

from emoreg.images.batches import normalise
from emoreg.images.decode import decode
from emoreg.images.files import File
from emoreg.settings import Granularity, Mixing, Mode
from emoreg.use.hub import RegulatedModel
from refusing import refusal
from use.combinations import COMBINATIONS, untrained


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
        assert (again is None and before is None) or torch.allclose(again, before, atol=1e-5)
    if model.encoder is not None:
        assert not any(parameter.requires_grad for parameter in model.encoder.parameters())  # frozen, as it was


def test_config_says_all_that_is_needed(tmp_path: Path) -> None:
    RegulatedModel.of(untrained("learned", "per_class", "logits", 0.3)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["regulation"] == {"mode": "learned", "granularity": "per_class", "mix": "logits", "lam": 0.3}
    assert (config["backbone"]["name"], config["encoder"]["name"]) == ("resnet8", "resnet14")
    assert config["image_size"] == 8 and len(config["mean"]) == len(config["std"]) == 3
    assert config["classes"][0] == "cat"


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    RegulatedModel.of(untrained("learned", "scalar", "logits", 0.3)).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())

    def edited(**changes: Any) -> Callable[[], Any]:
        path.write_text(json.dumps(config | changes))
        return lambda: RegulatedModel.from_pretrained(tmp_path)

    assert "mode must be one of" in refusal(edited(regulation={"mode": "calm"}))
    assert "no architecture 'resnet9'" in refusal(edited(backbone={"name": "resnet9"}))
    with pytest.raises(RuntimeError, match="size mismatch"):
        edited(classes=["cat", "dog"])()
    with pytest.raises(RuntimeError, match="Unexpected key"):  # the mixin alone would leave them out in silence
        edited(encoder=None, regulation={"mode": "none"})()


def test_images_are_prepared_as_for_training(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    model = RegulatedModel.of(untrained("none", "scalar", "logits", 0.5))
    path = write_image(tmp_path / "photo.jpg", size=(40, 30))
    pixels = torch.from_numpy(decode(File("photo.jpg", tmp_path), 8).copy()).permute(2, 0, 1)[None]
    prepared = model.prepare([path, str(path)])
    assert prepared.shape == (2, 3, 8, 8)
    assert torch.allclose(prepared[:1], normalise(pixels), atol=1e-5)
    with Image.open(write_image(tmp_path / "photo.png", size=(8, 8))) as image:
        assert torch.allclose(model.prepare([image]), model.prepare([tmp_path / "photo.png"]))


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
