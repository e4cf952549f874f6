"""Kinds of wrong labels that a target's training images may have, drawn ones and those that people gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from emoreg.errors import SettingError

LabelNoise = Literal["none", "symmetric", "asymmetric", "aggre", "random1", "random2", "random3", "worse", "noisy"]
DRAWN_NOISE = ("symmetric", "asymmetric")
HUMAN_LABELS: Mapping[LabelNoise, str] = {  # as published, and of which set (Wei et al. 2022)
    **dict.fromkeys(("aggre", "random1", "random2", "random3", "worse"), "cifar10"),
    "noisy": "cifar100",
}


def check_label_noise(noise: LabelNoise, share: float | None, name: str, classes: tuple[str, ...] | None) -> None:
    """SettingError for label noise that has no meaning.

    Args:
        noise: its kind.
        share: of the labels that are wrong, for drawn noise.
        name: of the target.
        classes: those that are kept of it; None for all.
    """
    if share is not None and not 0 < share < 1:
        raise SettingError("noise_share", f"must lie between 0 and 1, or be null, not {share}")
    if (of := HUMAN_LABELS.get(noise)) is not None:
        if name.lower() != of:
            raise SettingError("label_noise", f"{noise} has people's labels of {of}, and none of {name}")
        if classes is not None:
            raise SettingError("label_noise", f"{noise} needs all classes of {of}: people took images for any of them")
    if share is None and noise in DRAWN_NOISE:
        raise SettingError("noise_share", f"must be given with label_noise {noise}, such as 0.2")
    if share is not None and noise not in DRAWN_NOISE:
        raise SettingError("noise_share", f"must be null with label_noise {noise}: nothing is drawn")
