"""Shared fixtures: tiny image sets on disk, tiny recipes, a silent progress."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import extras
from emoreg.config.augment import AugmentSettings
from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.config.schema import BackboneSettings, StimuliSettings, TargetSettings
from emoreg.config.training import TrainingSettings
from emoreg.runtime.progress import Progress

pytest_plugins = ["trained_runs"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--core", action="store_true", help="leave out the tests marked extra or thorough (make test)")


def pytest_configure(config: pytest.Config) -> None:
    extras.core_only = config.getoption("core")
    # Hides bf16 support, so that training.precision: auto is float32 on every processor, also in child processes.
    os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE"
    os.environ.pop("COLUMNS", None)  # the workers of pytest-xdist have 80 columns, in which lines are wrapped


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if extras.core_only:
        left_out = [item for item in items if item.get_closest_marker("extra") or item.get_closest_marker("thorough")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


TINY = TrainingSettings(epochs=3, batch_size=16, device="cpu", precision="32-true", trackers=())


@pytest.fixture
def quiet() -> Progress:
    return Progress(quiet=True)


@pytest.fixture
def write_image() -> Callable[..., Path]:
    def write(path: Path, colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (12, 10)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = zlib.crc32("/".join(path.parts[-3:]).encode())  # from split, class and file name
        noise = np.random.default_rng(seed).integers(-20, 20, (*size[::-1], 3))
        Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path)
        return path

    return write


@pytest.fixture
def image_folder(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Two classes that differ in colour, each with 12 training and 4 test images; no two images are equal."""
    root = tmp_path / "flags"
    for split, count in (("train", 12), ("test", 4)):
        for name, colour in (("blue", (20, 40, 220)), ("red", (220, 40, 20))):
            for number in range(count):
                write_image(root / split / name / f"{number:04}.png", colour)
    return root


@pytest.fixture
def image_zip(image_folder: Path, tmp_path: Path) -> Path:
    """`image_folder` as a zip, below a folder named after the set."""
    path = tmp_path / "flags.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(image_folder.rglob("*.png")):
            archive.write(file, f"flags/{file.relative_to(image_folder).as_posix()}")
    return path


@pytest.fixture
def stage1() -> PretrainRecipe:
    return PretrainRecipe(
        stimuli=StimuliSettings(name="procedural", count=40, image_size=16, validation=0.25),
        backbone=BackboneSettings(name="resnet8"),
        optimizer=OptimizerSettings(name="adamw", lr=1e-3),
        training=TINY,
    )


@pytest.fixture
def stage2() -> TrainRecipe:
    return TrainRecipe(
        target=TargetSettings(name="digits", image_size=8, limit=64),
        backbone=BackboneSettings(name="resnet8"),
        augment=AugmentSettings(crop_padding=1, flip=False),
        optimizer=OptimizerSettings(lr=0.05),
        training=TINY,
    )


@pytest.fixture(autouse=True)
def _no_unmarked_extras(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run as in `make test`, without extras, unless they are marked `extra`."""
    if request.node.get_closest_marker("extra") is None:
        extras.hide(monkeypatch)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # on tiny tensors, more threads are slower
