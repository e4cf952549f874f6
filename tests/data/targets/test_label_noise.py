from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from emoreg.config.schema import TargetSettings
from emoreg.data.images.table import Table
from emoreg.data.targets.label_noise import CIFAR10, SUPERCLASSES, noisy_labels
from emoreg.errors import SettingError

CIFAR100 = tuple(sorted(name for group in SUPERCLASSES for name in group))


def table(classes: int, of_each: int = 50) -> Table:
    labels = np.repeat(np.arange(classes), of_each)
    return Table("set", np.zeros((len(labels), 1, 1, 3), np.uint8), labels)


def noisy(
    kind: Literal["symmetric", "asymmetric"],
    share: float,
    name: str = "digits",
    classes: tuple[str, ...] = tuple("0123456789"),
    seed: int = 0,
) -> NDArray[np.int64]:
    settings = TargetSettings(name, label_noise=kind, noise_share=share)
    return noisy_labels(table(len(classes)), settings, classes, seed)


def test_symmetric_noise_gives_a_share_of_each_class_any_other_class() -> None:
    labels, clean = noisy("symmetric", 0.4), table(10).labels
    assert np.bincount(clean[labels != clean]).tolist() == [20] * 10
    counts = np.array([np.bincount(noisy("symmetric", 0.9, seed=s)[clean == 3], minlength=10) for s in range(40)]).sum(
        0
    )
    assert counts[3] == 40 * 5 and np.delete(counts, 3).sum() == 40 * 45
    assert (np.abs(np.delete(counts, 3) - 200) < 60).all()  # 200 each, four standard deviations


def test_noise_depends_only_on_the_seed_and_is_nested() -> None:
    clean = table(10).labels
    less, more = noisy("symmetric", 0.2), noisy("symmetric", 0.5)
    wrong = less != clean
    assert np.array_equal(less[wrong], more[wrong]) and (more != clean).sum() == 250
    assert np.array_equal(less, noisy("symmetric", 0.2)) and not np.array_equal(less, noisy("symmetric", 0.2, seed=1))


def test_asymmetric_noise_of_cifar10_changes_five_classes() -> None:
    labels, clean = noisy("asymmetric", 0.3, "cifar10", CIFAR10), table(10).labels
    changed = {(CIFAR10[own], CIFAR10[new]) for own, new in zip(clean, labels, strict=True) if own != new}
    pairs = {("truck", "automobile"), ("bird", "airplane"), ("deer", "horse"), ("cat", "dog"), ("dog", "cat")}
    assert changed == pairs and (labels != clean).sum() == 5 * 15


def test_asymmetric_noise_of_cifar100_stays_within_the_superclass() -> None:
    assert len(CIFAR100) == len(set(CIFAR100)) == 100
    labels, clean = noisy("asymmetric", 0.2, "cifar100", CIFAR100), table(100).labels
    changed = {(CIFAR100[own], CIFAR100[new]) for own, new in zip(clean, labels, strict=True) if own != new}
    assert len(changed) == 100 and ("whale", "beaver") in changed and ("beaver", "dolphin") in changed
    group = {name: number for number, names in enumerate(SUPERCLASSES) for name in names}
    assert all(group[own] == group[new] for own, new in changed)


def test_asymmetric_noise_of_other_sets_gives_the_next_class() -> None:
    labels, clean = noisy("asymmetric", 0.2), table(10).labels
    wrong = labels != clean
    assert np.array_equal(labels[wrong], (clean[wrong] + 1) % 10) and wrong.sum() == 100


def test_asymmetric_noise_needs_all_published_classes() -> None:
    with pytest.raises(
        SettingError, match=r"target\.label_noise: asymmetric needs all classes of cifar10, and 'airplane'"
    ):
        noisy("asymmetric", 0.2, "cifar10", CIFAR10[1:])
    with pytest.raises(SettingError, match=r"not 'airplanes' \(did you mean 'airplane'\?\)"):
        noisy("asymmetric", 0.2, "cifar10", ("airplanes", *CIFAR10[1:]))
