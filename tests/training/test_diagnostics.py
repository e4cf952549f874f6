from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from emoreg.config.training import TrainingSettings
from emoreg.data.images.batches import Batch
from emoreg.data.images.files import list_files
from emoreg.data.images.image_set import ImageSet
from emoreg.data.images.table import Table
from emoreg.errors import Diverged, SettingError, UserError
from emoreg.training.diagnostics import (
    check_losses,
    check_weights,
    explain_out_of_memory,
    refuse_single_images,
    refuse_too_many_parts,
    refuse_without_compiler,
)
from emoreg.training.step import Objective

LABELS = np.arange(12, dtype=np.int64)


def batches(done: int = 0) -> Iterator[Batch]:
    for step in range(done, 3):
        rows = torch.arange(4 * step, 4 * step + 4).flip(0)
        yield Batch(torch.zeros(4, 3, 8, 8), torch.from_numpy(LABELS)[rows], rows)


def told(images: ImageSet, *losses: float) -> str:
    with pytest.raises(UserError) as caught:
        check_losses(torch.tensor(losses), batches, images, epoch=6)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_finite_losses_say_nothing() -> None:
    pixels = np.zeros((12, 8, 8, 3), np.uint8)
    images = ImageSet(Table("noise", pixels, LABELS), 8, None, torch.from_numpy(LABELS))
    check_losses(torch.tensor([1.0, 2.0]), batches, images, 0)


def test_the_first_bad_step_and_its_images_are_named(image_folder: Path) -> None:
    files = list_files(image_folder / "train" / "red")
    images = ImageSet(Table("red", files, LABELS), 8, None, torch.from_numpy(LABELS))
    message = told(images, 1.0, torch.inf, torch.nan)
    assert "became inf in step 2 of epoch 7" in message
    assert all(str(files[row]) in message for row in (7, 6, 5, 4)) and str(files[3]) not in message


def test_images_in_memory_are_named_by_their_rows() -> None:
    pixels = np.zeros((12, 8, 8, 3), np.uint8)
    images = ImageSet(Table("noise", pixels, LABELS), 8, None, torch.from_numpy(LABELS))
    assert "at the images row 3, row 2, row 1, row 0 of noise" in told(images, torch.nan)


def test_weights_that_are_not_finite_are_named() -> None:
    model = nn.BatchNorm1d(2)
    check_weights(model, "epoch 1")
    model.get_buffer("running_var")[1] = torch.inf
    with pytest.raises(Diverged, match="running_var is not finite after epoch 3"):
        check_weights(model, "epoch 3")


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_full_memory_suggests_a_batch_size(error: RuntimeError) -> None:
    with (
        pytest.raises(UserError, match=r"^out of memory on cuda in .*training\.batch_size to 64 \(now 128\)"),
        explain_out_of_memory(TrainingSettings(), torch.device("cuda:0")),
    ):
        raise error
    single, cpu = TrainingSettings(batch_size=1), torch.device("cpu")
    with pytest.raises(UserError, match="smaller network"), explain_out_of_memory(single, cpu):
        raise error


def test_other_errors_are_left_alone() -> None:
    cpu = torch.device("cpu")
    with pytest.raises(RuntimeError, match="shapes"), explain_out_of_memory(TrainingSettings(), cpu):
        raise RuntimeError("shapes do not match")


def loss_of(model: nn.Module, batch: Batch) -> torch.Tensor:
    return model(batch.images).sum()


@pytest.mark.parametrize(
    ("count", "batch_size", "told"),
    [
        (1, 1, "^noise leaves one image to train on, but this network .*: give at least two$"),
        (1, 64, "^noise leaves one image to train on, but this network .*: give at least two$"),
        (9, 1, r"^training\.batch_size: must be at least 2, not 1: this network .* at 8 pixels$"),
        (9, 3, r"^training\.batch_size: 3 leaves one image to some process"),
        (9, 4, r"^training\.accumulate: 4 leaves one image to some part of a step, but this network"),
    ],
)
def test_a_step_on_one_image_is_refused_where_batch_norm_has_maps_of_one_pixel(
    count: int, batch_size: int, told: str
) -> None:
    labels = np.zeros(count, np.int64)
    images = ImageSet(Table("noise", np.zeros((count, 8, 8, 3), np.uint8), labels), 8, None, torch.from_numpy(labels))
    first = Batch(torch.zeros(1, 3, 8, 8), torch.zeros(1), torch.zeros(1))
    training = TrainingSettings(batch_size=batch_size, accumulate=4 if batch_size == 4 else 1)
    small = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3)).eval()
    mean = small.get_buffer("1.running_mean")
    before = mean.clone()
    with pytest.raises(UserError, match=told):
        refuse_single_images(Objective(small, loss_of), first, images, training)
    assert torch.equal(mean, before) and not small.training
    refuse_single_images(Objective(nn.BatchNorm2d(3), loss_of), first, images, training)  # of maps of 8 x 8
    mixed = first._replace(partner_labels=torch.zeros(1), share=torch.ones(1))
    with pytest.raises(UserError, match=told):
        refuse_single_images(Objective(small, loss_of), mixed, images, training)
    with pytest.raises(ValueError, match="else"):  # the number of images is not the reason
        refuse_single_images(Objective(small, _fails), first, images, training)


def _fails(model: nn.Module, batch: Batch) -> torch.Tensor:
    raise ValueError("something else")


def test_more_parts_than_a_step_has_images_are_refused_with_their_largest_number() -> None:
    asked = TrainingSettings(batch_size=64, accumulate=8)
    refuse_too_many_parts(8, 1, asked)
    with pytest.raises(SettingError, match=r"at most 3 here, not 8: a step has 6 images on 2 processes$"):
        refuse_too_many_parts(6, 2, asked)


def test_compilation_without_a_compiler_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: object) -> None:
        raise RuntimeError("no g++\nhere")

    monkeypatch.setattr(torch, "compile", lambda _function: no_compiler)
    refuse_without_compiler(TrainingSettings(), torch.device("cpu"))
    with pytest.raises(
        SettingError, match=r"cannot compile for cpu here \(no g\+\+ here\): set it to false, or"
    ) as caught:
        refuse_without_compiler(TrainingSettings(compile=True), torch.device("cpu"))
    assert caught.value.key == "training.compile"
