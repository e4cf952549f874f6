from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from emoreg.config.schema import BackboneSettings
from emoreg.errors import SettingError
from emoreg.models.backbones import build_backbone


@pytest.mark.parametrize("wrap", ["plain", "nested", "wrapped"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_backbone_starts_from_the_weights_in_a_file(wrap: str, suffix: str, tmp_path: Path) -> None:
    source = build_backbone("resnet8")
    weights: dict[str, Any] = dict(source.state_dict())
    path = tmp_path / f"weights{suffix}"
    if wrap == "wrapped":
        weights = {f"module.{name}": tensor for name, tensor in weights.items()} | {"module.fc.bias": torch.zeros(3)}
    if suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save({"state_dict": weights, "epoch": 3} if wrap == "nested" else weights, path)
    built = build_backbone(BackboneSettings("resnet8", weights=str(path)))
    for name, tensor in source.state_dict().items():
        assert torch.equal(built.state_dict()[name], tensor), name


def test_the_head_of_timms_weights_is_left_out(tmp_path: Path) -> None:
    source = timm.create_model("test_resnet", num_classes=5)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    built = build_backbone(BackboneSettings("test_resnet", stem="imagenet", weights=str(tmp_path / "w.pth")))
    assert torch.equal(built.state_dict()["conv1.0.weight"], source.state_dict()["conv1.0.weight"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"w\.pth cannot be read: No such file or directory$"),
        (b"", "cannot be read"),
        (b"not a file of weights", "cannot be read"),
        ({"epoch": 3}, "does not hold a state dict"),
        ({0: torch.zeros(3)}, "does not hold a state dict"),
        ({"conv1.weight": torch.zeros(16, 3, 3, 3)}, "another architecture: it lacks bn1.weight, .* and [0-9]+ more"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_the_reason(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(SettingError, match=rf"backbone\.weights: .*{message}"):
        build_backbone(BackboneSettings("resnet8", weights=str(path)))


def test_other_sizes_and_other_layers_are_reported(tmp_path: Path) -> None:
    torch.save(build_backbone(BackboneSettings("resnet8", width=8)).state_dict(), tmp_path / "narrow.pth")
    with pytest.raises(SettingError, match=r"another size: conv1.weight is \(8, 3, 3, 3\), not \(16, 3, 3, 3\)"):
        build_backbone(BackboneSettings("resnet8", weights=str(tmp_path / "narrow.pth")))
    torch.save(build_backbone("resnet14").state_dict(), tmp_path / "deep.pth")
    with pytest.raises(SettingError, match="it also has blocks"):
        build_backbone(BackboneSettings("resnet8", weights=str(tmp_path / "deep.pth")))
    with pytest.raises(SettingError, match="weights: must be null with pretrained true"):
        BackboneSettings("resnet18", pretrained=True, weights="w.pth")


def test_no_code_in_a_file_of_weights_is_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "run",)

    torch.save({"conv1.weight": Evil()}, tmp_path / "w.pth")
    with pytest.raises(SettingError, match="cannot be read"):
        build_backbone(BackboneSettings("resnet8", weights=str(tmp_path / "w.pth")))
    assert not (tmp_path / "run").exists()
