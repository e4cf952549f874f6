from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from emoreg.config.recipe import TrainRecipe, defaults
from emoreg.config.schema import BackboneSettings
from emoreg.config.training import TrainingSettings
from emoreg.data.images.batches import Batch
from emoreg.errors import UserError
from emoreg.models.backbones import build_backbone
from emoreg.runs.run import Run, start_run
from emoreg.training.fabric import make_fabric, place, resolve_precision, scoring_settings, training_settings


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_missing_device_is_refused_in_one_line(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=rf"training\.device is {device}.*cpu") as caught:
        make_fabric(TrainingSettings(device=device))
    assert "\n" not in str(caught.value)


def test_auto_is_the_cpu_without_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    fabric = make_fabric(TrainingSettings())
    assert isinstance(fabric, Fabric) and fabric.device == torch.device("cpu")


def give_the_processor(monkeypatch: pytest.MonkeyPatch, *capabilities: str, onednn: str | None = None) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(capabilities, True), raising=False)
    if onednn is None:
        monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    else:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", onednn)


@pytest.mark.parametrize(
    ("capabilities", "onednn", "precision"),
    [
        (("avx2",), None, "32-true"),
        (("avx2", "avx512_f"), None, "32-true"),
        (("avx512_f", "avx512_bf16"), None, "bf16-mixed"),
        (("avx512_f", "amx_bf16", "amx_tile"), "AVX512_CORE_AMX", "bf16-mixed"),
        (("avx512_f", "avx512_bf16", "amx_bf16"), "AVX512_CORE", "32-true"),
        (("avx512_f", "avx512_bf16"), "avx2", "32-true"),
        (("bf16", "sve"), None, "32-true"),  # ARM, not measured
    ],
)
def test_auto_precision_on_a_cpu_depends_on_its_instructions(
    capabilities: tuple[str, ...], onednn: str | None, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_the_processor(monkeypatch, *capabilities, onednn=onednn)
    assert resolve_precision(TrainingSettings(), "cpu") == precision
    assert resolve_precision(TrainingSettings(), "mps") == "32-true"
    assert resolve_precision(TrainingSettings(precision="32-true"), "cpu") == "32-true"


def test_without_capabilities_from_pytorch_auto_precision_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    give_the_processor(monkeypatch, "avx512_bf16")
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert resolve_precision(TrainingSettings(), "cpu") == "32-true"


def test_the_tests_have_one_precision_on_every_processor() -> None:
    assert resolve_precision(TrainingSettings(), "cpu") == "32-true"


AUTO = TrainRecipe(training=TrainingSettings(device="cpu"))


def begun_in(precision: str | None, folder: Path, recipe: TrainRecipe = AUTO, is_begun: bool = True) -> Run:
    run = start_run(folder, recipe)
    if precision is not None:
        (folder / "environment.json").write_text(json.dumps({"sessions": [{"precision": precision}]}))
    if is_begun:
        (folder / "checkpoint.pt").touch()
    return run


@pytest.mark.parametrize(
    ("recorded", "is_begun", "trained", "scored"),
    [
        ("32-true", True, "32-true", "32-true"),
        ("bf16-mixed", True, "bf16-mixed", "auto"),
        ("32-true", False, "auto", "auto"),  # a run that has saved nothing
        (None, True, "auto", "auto"),
        ("64-true", True, "auto", "auto"),
    ],
)
def test_a_run_continues_in_the_precision_in_which_it_was_started(
    recorded: str | None, is_begun: bool, trained: str, scored: str, tmp_path: Path
) -> None:
    run = begun_in(recorded, tmp_path / "run", is_begun=is_begun)
    assert training_settings(AUTO, run).precision == trained
    assert scoring_settings(AUTO, run, "cpu").precision == scored
    asked = dataclasses.replace(AUTO, training=TrainingSettings(precision="bf16-mixed", device="cpu"))
    assert training_settings(asked, run).precision == scoring_settings(asked, run, "cpu").precision == "bf16-mixed"


def test_a_run_of_the_first_edition_is_float32_on_a_processor(tmp_path: Path) -> None:
    old = dataclasses.replace(defaults(TrainRecipe, 1), training=TrainingSettings(device="cpu"))
    assert training_settings(old, begun_in(None, tmp_path / "run", old, is_begun=False)).precision == "32-true"


def test_auto_precision_depends_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    auto = TrainingSettings()
    resolved = [resolve_precision(auto, device) for device in ("cpu", "mps", "cuda")]
    assert resolved == ["32-true", "32-true", "bf16-mixed"]
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert resolve_precision(auto, "cuda") == "32-true"
    asked = TrainingSettings(precision="bf16-mixed", device="cpu")
    assert resolve_precision(asked, "cpu") == "bf16-mixed"
    assert make_fabric(asked)._precision.precision == "bf16-mixed"
    assert make_fabric(TrainingSettings(device="cpu"))._precision.precision == "32-true"


@pytest.mark.parametrize(("precision", "is_fused"), [("bf16-mixed", False), ("32-true", True)])
def test_attention_is_fused_if_that_is_fast(precision: Any, is_fused: bool) -> None:
    vit = build_backbone(BackboneSettings("vit_tiny_patch16_224", patch_size=8), image_size=16).eval()
    images = torch.rand(2, 3, 16, 16)
    features = vit(images)
    fabric = make_fabric(TrainingSettings(device="cpu", precision=precision))
    assert place(vit, fabric) is vit
    attention = [vars(module) for module in vit.modules() if "fused_attn" in vars(module)]
    assert {each["fused_attn"] for each in attention} == {is_fused}
    torch.testing.assert_close(vit(images), features)


def test_fused_attention_is_restored_on_another_device() -> None:
    vit = build_backbone(BackboneSettings("vit_tiny_patch16_224", patch_size=8), image_size=16)
    attention = [vars(module) for module in vit.modules() if "fused_attn" in vars(module)]
    attention[0]["fused_attn"] = False  # set by its owner
    for precision in ("bf16-mixed", "32-true", "bf16-mixed", "32-true"):
        place(vit, make_fabric(TrainingSettings(device="cpu", precision=precision)))
    assert [each["fused_attn"] for each in attention] == [False, *[True] * 11]


class Recording(nn.Module):
    """Keeps its input and does a computation."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.given = nn.Linear(3, 1), [torch.empty(0)]

    def forward(self, batch: Batch) -> Tensor:
        self.given = [batch.images, batch.labels]
        features: Tensor = self.linear(batch.images)
        assert features.dtype == torch.bfloat16
        return features.mean()


def test_in_mixed_precision_the_network_computes_in_bf16_and_labels_are_not_rounded() -> None:
    ratings = torch.tensor([[0.7371], [0.1234567]])
    fabric, network = make_fabric(TrainingSettings(device="cpu", precision="bf16-mixed")), Recording()
    set_up = fabric.setup(network, torch.optim.SGD(network.parameters(), lr=0.1))[0]
    loss = set_up(Batch(torch.rand(2, 3), ratings, torch.arange(2)))
    assert loss.dtype == torch.float32
    assert torch.equal(network.given[1], ratings) and network.given[0].dtype == torch.float32
