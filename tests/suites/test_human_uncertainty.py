from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emoreg.config.schema import TargetSettings
from emoreg.errors import UserError
from emoreg.suites import human_uncertainty as module
from emoreg.suites.human_uncertainty import read_shares, score
from emoreg.suites.options import HumanUncertaintyOptions
from emoreg.suites.subject import Subject
from pickles import Touches

PEOPLE = np.where(np.arange(12)[:, None] % 2 == np.arange(2), 45, 5)  # nine in ten agree with the label


@pytest.fixture
def small(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """A run that is scored on a CIFAR-10 of only twelve test images and two classes."""
    monkeypatch.setattr(module, "IMAGES", 12)
    monkeypatch.setattr(module, "CLASSES", 2)
    recipe = dataclasses.replace(subject.recipe, target=TargetSettings("cifar10", validation=0.0))
    return dataclasses.replace(subject, recipe=recipe)


def saved(folder: Path, values: Any) -> HumanUncertaintyOptions:
    np.save(folder / "cifar10h-counts.npy", values)
    return HumanUncertaintyOptions(str(folder / "cifar10h-counts.npy"))


def test_figures_follow_from_the_shares(small: Subject, tmp_path: Path) -> None:
    found = score(small, saved(tmp_path, PEOPLE)).figures
    p, q = small.predict(small.scored).logits.double().softmax(1), torch.from_numpy(PEOPLE / 50)
    assert found["cross_entropy"] == pytest.approx(-(q * p.log()).sum(1).mean().item())
    assert found["kl"] == pytest.approx((q * (q / p).log()).sum(1).mean().item()) and found["kl"] >= 0
    assert found["agreement"] == (p.argmax(1) == q.argmax(1)).double().mean().item()


def test_counts_and_shares_give_the_same_and_a_share_may_be_zero(small: Subject, tmp_path: Path) -> None:
    assert score(small, saved(tmp_path, PEOPLE)).figures == score(small, saved(tmp_path, PEOPLE / 50)).figures
    sure = score(small, saved(tmp_path, np.where(PEOPLE > 10, 50, 0))).figures
    assert sure["kl"] == pytest.approx(sure["cross_entropy"])


def test_images_in_another_order_are_refused(small: Subject, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"of 0 % of the images, instead of the published 99 %: .* another order"):
        score(small, saved(tmp_path, PEOPLE[::-1]))


@pytest.mark.parametrize("target", [TargetSettings("cifar100"), TargetSettings("cifar10", classes=("cat", "dog"))])
def test_other_runs_are_refused(small: Subject, tmp_path: Path, target: TargetSettings) -> None:
    other = dataclasses.replace(small, recipe=dataclasses.replace(small.recipe, target=target))
    with pytest.raises(UserError, match="needs all 10,000 test images of cifar10"):
        score(other, saved(tmp_path, PEOPLE))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (PEOPLE[:5], "is not the array of 12 images and 2 classes"),
        (PEOPLE.astype(str), "is not the array of"),
        (PEOPLE * 0, "neither shares nor counts"),
        (-PEOPLE, "neither shares nor counts"),
        (PEOPLE * np.nan, "neither shares nor counts"),
    ],
)
def test_a_file_without_shares_is_refused(small: Subject, tmp_path: Path, values: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        score(small, saved(tmp_path, values))


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "people.npy"
    path.write_bytes(pickle.dumps(Touches()))
    with pytest.raises(UserError, match="is not a NumPy array"):
        read_shares(path)
    np.save(path, np.array([Touches()], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="is not a NumPy array"):
        read_shares(path)
    assert not Path("hacked").exists()
    with pytest.raises(UserError, match=r"cannot read .*gone\.npy: .*published at https://"):
        read_shares(tmp_path / "gone.npy")
